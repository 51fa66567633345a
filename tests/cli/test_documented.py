"""Every command that README, book and notebooks print is one that the program understands.

Its words are parsed as the command line parses them, up to what it would need: no file is looked
for, nothing is computed. The notebooks and the first lines of the README are executed elsewhere.
"""

import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup
from typer.main import get_command

from mgca.cli import commands as program

UsageError = typer.BadParameter.__mro__[1]  # of the click that typer brings
ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "SECURITY.md", ".github/CONTRIBUTING.md")),
    *sorted((ROOT / "book").glob("*.md")),
    *sorted((ROOT / "notebooks").glob("*.py")),
    *sorted((ROOT / "mgca" / "experiments" / "report").glob("*.py")),
]
# In a block of code, or within backticks; a comment behind it is none of it.
BLOCK = re.compile(r"^(?:# )?(?:\.venv/bin/|env/bin/)?(mgca [^`]*?)(?:\s+#.*|\s*[|;>].*)?$", re.M)
LAUNCHED = re.compile(r"^(?:# )?.*-m (mgca [^`#|;>]*?)(?:\s+#.*|\s*[|;>].*)?$", re.M)
WITHIN = re.compile(r"`(mgca [^`\n]+)`")
# Prose and templates: not commands that somebody types.
NOT_TYPED = re.compile(r"[…{}|<]|\.\.\.|^mgca (is|has|and|or|in|of|holds)\b")


def commands(text: str) -> list[str]:
    """The commands of a page; one that goes on in the next line is joined."""
    joined = re.sub(r"\\\n(?:# )?\s*", " ", text)
    found = [match for rule in (BLOCK, LAUNCHED, WITHIN) for match in rule.findall(joined)]
    return [line.strip() for line in dict.fromkeys(found) if not NOT_TYPED.search(line)]


def understood(line: str) -> None:
    """Parse a command's words.

    Raises:
        UsageError: If one of them is unknown, or lacks its value.
    """
    _, *words = shlex.split(line)
    command = get_command(program)
    context = typer.Context(command, info_name="mgca")
    while isinstance(command, TyperGroup) and words and not words[0].startswith("-"):
        name, command, words = command.resolve_command(context, words)
        context = typer.Context(command, info_name=name, parent=context)
    command.make_parser(context).parse_args(list(words))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_of_a_page_are_understood(page):
    for line in commands(page.read_text(encoding="utf-8")):
        try:
            understood(line)
        except UsageError as error:
            pytest.fail(f"{page.name}: {line}: {error.format_message()}")


def test_there_are_many():
    lines = [line for page in PAGES for line in commands(page.read_text(encoding="utf-8"))]
    assert len(lines) > 60
    assert "mgca train --scale scenes" in lines


@pytest.mark.parametrize(
    "line", ["mgca nothing", "mgca train --nothing 1", "mgca segment a.jpg --classes", "mgca --no"]
)
def test_what_is_not_understood_is_found(line):
    with pytest.raises(UsageError):
        understood(line)
