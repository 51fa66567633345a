"""The API reference, made of the library's docstrings when the book is built.

autodoc and napoleon do the work. What they lack is here: entries that name several arguments, types
that only type checkers import, names that a package takes over from its modules, links to the
source at its commit, and the foreign types that are not linked because nothing is fetched.
"""

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from typing import TypeVar

from publish import REPOSITORY

import mgca

ROOT = Path(mgca.__file__).resolve().parent.parent
# Types of other packages. Names of our own are never ignored.
PACKAGES = (
    "IPython PIL gradio lightning_fabric matplotlib mmcv mmengine mmseg numpy open_clip pandas "
    "supervision torch tqdm transformers"
).split()
FOREIGN = rf"({'|'.join([*PACKAGES, *sys.stdlib_module_names])})\..+"
MODULES = re.compile(r"^% modules: (.+)$", re.MULTILINE)
SEVERAL = re.compile(r"^( +)(\w+(?:, \w+)+):( .*)$")


def setup(app):
    for extension in ("autodoc", "autosummary", "napoleon", "linkcode"):
        app.setup_extension(f"sphinx.ext.{extension}")
    app.config.linkcode_resolve = _Source()
    app.config.nitpick_ignore_regex = [*app.config.nitpick_ignore_regex, ("py:.*", FOREIGN)]
    app.connect("builder-inited", lambda app: _import_types())
    app.connect("source-read", _write_out)
    # Before napoleon, which is connected with the usual 500.
    app.connect("autodoc-process-docstring", _one_name_each, priority=400)
    app.connect("missing-reference", _where_documented)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _write_out(app, page, source) -> None:
    """A page's line ``% modules: mgca.losses`` becomes the modules of that room.

    A room stands for all its modules, one with a minus before it is left out.
    """
    source[0] = MODULES.sub(lambda line: _sections(line[1].split()), source[0])


def _sections(names: list[str]) -> str:
    left_out = tuple(f"{name[1:]}." for name in names if name.startswith("-"))
    modules = {
        module: is_room
        for name in names
        if not name.startswith("-")
        for module, is_room in _modules(name).items()
        if not f"{module}.".startswith(left_out)
    }
    overview = "\n".join(f"   {module}" for module in modules)
    parts = [f"```{{eval-rst}}\n.. autosummary::\n\n{overview}\n```"]
    for module, is_room in modules.items():
        # What a room takes over from its modules stands there.
        options = "   :members:\n" + "   :ignore-module-all:\n" * is_room
        parts.append(f"## {module}\n\n```{{eval-rst}}\n.. automodule:: {module}\n{options}```")
    return "\n\n".join(parts)


def _modules(name: str) -> dict[str, bool]:
    """A module, and if it is a room, those within it: whether each is a room."""
    paths = getattr(importlib.import_module(name), "__path__", None)
    within = pkgutil.walk_packages(paths, f"{name}.") if paths else ()
    return {name: bool(paths)} | {found.name: found.ispkg for found in within}


def _import_types() -> None:
    """Give each module the names that it imports for type checkers only."""
    for found in pkgutil.walk_packages(mgca.__path__, "mgca."):
        if found.name.rsplit(".", 1)[-1] == "__main__":
            continue
        module = importlib.import_module(found.name)
        for node in ast.parse(inspect.getsource(module)).body:
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                block = ast.Module(node.body, type_ignores=[])
                exec(compile(block, module.__file__, "exec"), module.__dict__)


def _one_name_each(app, what, name, thing, options, lines) -> None:
    """A line of a section that describes several names becomes one for each, with its own type.

    ``a, b: Text`` becomes ``a: Text`` and ``b: Text``; ``a: One. b: Other`` is taken apart.
    """
    if lines and lines[0].startswith("Alias for field number"):
        lines.clear()  # what Python says of a named tuple; its docstring says more
        return
    if what in ("property", "attribute", "data"):
        # napoleon would take what precedes a colon of the first line for a type. It looks no
        # further where that line is an empty comment.
        lines[:0] = ["..", ""]
        return
    known = _parameters(thing)
    lines[:] = [part for line in lines for part in _apart(line, known)]
    done, place = [], 0
    while place < len(lines):
        match = SEVERAL.match(lines[place])
        end = place + 1
        if match is None or match[2][0].isupper():  # exceptions are split by Sphinx itself
            done.append(lines[place])
        else:
            indent = len(match[1])
            deeper = re.compile(rf" {{{indent + 1},}}\S")
            while end < len(lines) and deeper.match(lines[end]):
                end += 1
            for one in match[2].split(", "):
                done += [f"{match[1]}{one}:{match[3]}", *lines[place + 1 : end]]
        place = end
    lines[:] = done


def _apart(line: str, known: set[str]) -> list[str]:
    """An argument's line, cut where the next argument begins."""
    head = re.match(r"( +)(\w+): ", line)
    if head is None or head[2] not in known:
        return [line]
    for cut in re.finditer(r"\. (\w+): ", line):
        if cut[1] in known:
            rest = head[1] + line[cut.start() + 2 :]
            return [line[: cut.start() + 1], *_apart(rest, known)]
    return [line]


def _parameters(thing) -> set[str]:
    try:
        return set(inspect.signature(thing).parameters)
    except (TypeError, ValueError):
        return set()


def _where_documented(app, env, node, content):
    """A name such as ``mgca.load`` is a link to ``mgca.model.load``, where it is documented."""
    if node.get("refdomain") != "py":
        return None
    domain, target = env.get_domain("py"), node["reftarget"]
    things = [_find(full) for full in (target, f"{node.get('py:module')}.{target}")]
    thing = next((thing for thing in things if thing is not None), None)
    if isinstance(thing, TypeVar):
        return content
    for place in domain.objects:
        if place.endswith(f".{target.rsplit('.', 1)[-1]}") and _find(place) is thing is not None:
            document = node.get("refdoc", env.docname)
            return domain.resolve_xref(env, document, app.builder, "obj", place, node, content)
    return None


def _find(full: str):
    """What a dotted name means, or None; a module before what another module has by its name."""
    parts = full.split(".")
    if parts[0] != "mgca":
        return None
    ends = range(len(parts), 0, -1)
    length = next(end for end in ends if ".".join(parts[:end]) in sys.modules)
    thing = sys.modules[".".join(parts[:length])]
    for part in parts[length:]:
        thing = getattr(thing, part, None)
    return thing


class _Source:
    """The address of a name's source lines: at the commit that the book is built from."""

    def __init__(self) -> None:
        command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
        found = subprocess.run(command, capture_output=True, text=True)
        self._commit = found.stdout.strip() if found.returncode == 0 else "main"

    def __call__(self, domain: str, info: dict[str, str]) -> str | None:
        thing = sys.modules.get(info["module"]) if domain == "py" else None
        for part in info["fullname"].split("."):
            thing = getattr(thing, part, None)
        thing = getattr(thing, "fget", thing)  # of a property
        try:
            thing = inspect.unwrap(thing)
            lines, first = inspect.getsourcelines(thing)
            file = Path(inspect.getsourcefile(thing)).resolve().relative_to(ROOT)
        except (TypeError, OSError, ValueError):  # a constant, or of another package
            return None
        return f"{REPOSITORY}/blob/{self._commit}/{file}#L{first}-L{first + len(lines) - 1}"
