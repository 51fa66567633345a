"""The directive ``mgca-cli``: every command of ``mgca``, from what its ``--help`` is made of."""

import re

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective
from typer.main import get_command

import mgca.cli

SPECIAL = re.compile(r"([\\`*_{}\[\]<>$#|~])")


def setup(app):
    app.add_directive("mgca-cli", CommandLine)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class CommandLine(SphinxDirective):
    """A section per command with its usage, its text and its options, each with an anchor."""

    def run(self) -> list[nodes.Node]:
        group = get_command(mgca.cli.commands)
        context = group.context_class(group, info_name="mgca")
        return [self._section(path, lines) for path, (_, lines) in all_commands(group, context)]

    def _section(self, path: str, lines: list[str]) -> nodes.section:
        section = nodes.section(ids=[path.replace(" ", "-")], names=[path])
        self.state.document.note_explicit_target(section, section)
        section += nodes.title(path, "", nodes.literal(path, path))
        text = StringList(lines, source=self.get_source_info()[0])
        self.state.nested_parse(text, self.content_offset, section)
        return section


def all_commands(command, context):
    """Every command below one: its path, and the command with the Markdown of its section.

    A group within ``mgca`` is only a name before its commands.
    """
    children = [command.get_command(context, name) for name in _names(command, context)]
    if not children or context.parent is None:
        yield context.command_path, (command, list(_page(command, context)))
    for child in children:
        if not child.hidden:
            below = child.context_class(child, info_name=child.name, parent=context)
            yield from all_commands(child, below)


def _names(command, context) -> list[str]:
    return command.list_commands(context) if hasattr(command, "list_commands") else []


def _page(command, context):
    """The Markdown of a command's section."""
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield from ("```text", usage, "```", "")
    yield from _prose(command.help)
    yield from ("```{program} " + context.command_path, "```", "")
    panels = {}
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:
            kind = "Arguments" if parameter.param_type_name == "argument" else "Options"
            panel = getattr(parameter, "rich_help_panel", None) or kind
            panels.setdefault(panel, []).append((parameter, *record))
    # The panel of what has none, `--help` above all, comes last.
    for panel in sorted(panels, key=lambda name: (name != "Arguments", name == "Options")):
        yield from (f"**{_escape(panel)}**", "")
        for parameter, names, text in panels[panel]:
            if parameter.param_type_name == "argument":
                yield from (f"`{names.split(' <')[0]}`", f": {_escape(text)}", "")
            else:
                yield from ("```{option} " + names, "", _escape(text), "```", "")
    yield from _prose(command.epilog)


def _prose(text: str | None):
    """A help text: its paragraphs, and as code what is set in."""
    for block in re.split(r"\n\s*?\n", (text or "").strip()):
        lines = block.split("\n")
        if all(line.startswith("  ") for line in lines):
            yield from ("```bash", *(line.strip() for line in lines), "```", "")
        elif block:
            yield from (*(_escape(line.strip()) for line in lines), "")


def _escape(text: str) -> str:
    """Text as it is, and options in it as code: elsewhere two hyphens would become a dash."""
    parts = re.split(r"(?<![\w-])(--[a-z][\w-]*)", text)
    return "".join(
        f"`{part}`" if i % 2 else SPECIAL.sub(r"\\\1", part) for i, part in enumerate(parts)
    )
