"""In the process of a notebook: lists the files of the project that it reads and writes.

Python tells of every file that it opens, be it a module, a table or a folder that is listed. A line
is written when a file is first seen, so that nothing is lost where the process is ended. Forked
processes write into the same list; of a Python started anew nothing is known but that it was.
"""

import os
import sys
from pathlib import Path

LIST = "MGCA_NOTEBOOK_READS"  # environment variable: the file to write the list into
WROTE, ANYTHING = "> ", "*"
FOLDERS = ("mgca", "results")


def record(root: str, path: str) -> None:
    """List what this process opens below some folders of a project, from now on."""
    seen: set[str] = set()
    target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    inside = tuple(os.path.join(root, name) for name in FOLDERS)

    def write(line: str) -> None:
        if line not in seen:
            seen.add(line)
            os.write(target, f"{line}\n".encode())

    def hook(event: str, arguments: tuple) -> None:
        if event == "subprocess.Popen":
            program = os.fsdecode(arguments[0] or arguments[1][0])
            if "python" in program or program.startswith(sys.prefix):
                write(ANYTHING)
        elif event in ("open", "os.listdir", "os.scandir", "os.rename"):
            name = arguments[1] if event == "os.rename" else arguments[0]
            if not isinstance(name, str | bytes | os.PathLike):
                return  # a descriptor
            full = os.path.abspath(os.fsdecode(name))
            if full.startswith(inside):
                mode = arguments[1] if event == "open" else "w" if event == "os.rename" else "r"
                wrote = isinstance(mode, str) and not mode.startswith("r")
                write((WROTE if wrote else "") + os.path.relpath(full, root))

    sys.addaudithook(hook)


def read(path: Path) -> tuple[list[str] | None, set[str]]:
    """The files of such a list, relative to the project, and those of them that were written.

    A compiled module stands for its source, and is not counted as written. Instead of the first
    there is None where nothing is known, and everything has to be taken as read.
    """
    lines = path.read_text().splitlines() if path.is_file() else [ANYTHING]
    written = {line.removeprefix(WROTE) for line in lines if line.startswith(WROTE)}
    written = {name for name in written if _source(name) == name}
    if ANYTHING in lines:
        return None, written
    return sorted({_source(line.removeprefix(WROTE)) for line in lines}), written


def _source(name: str) -> str:
    path = Path(name)
    if path.parent.name != "__pycache__":
        return name
    return (path.parent.parent / f"{path.name.split('.')[0]}.py").as_posix()
