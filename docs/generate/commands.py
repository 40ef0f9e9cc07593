"""Write the reference of the command line from the commands themselves."""

from __future__ import annotations

import inspect
import re

import click
import typer

from wsss_ray.cli import app


def markdown() -> str:
    """Return a section for each command: its usage, its help, and a table of its arguments and options."""
    group = typer.main.get_command(app)
    with click.Context(group, info_name="wsss-ray") as parent:
        return "\n".join(_command(name, command, parent) for name, command in sorted(group.commands.items()))


def _command(name: str, command: click.Command, parent: click.Context) -> str:
    with click.Context(command, info_name=name, parent=parent) as context:
        usage = " ".join(["wsss-ray", name, *(piece.strip("{}") for piece in command.collect_usage_pieces(context))])
        lines = [f"### {name}", "", inspect.cleandoc(command.help or ""), "", "```text", usage, "```", ""]
        rows = [_row(param, context) for param in command.params if not getattr(param, "hidden", False)]
    if rows:
        lines += ["| argument or option | |", "|---|---|", *rows, ""]
    return "\n".join(lines)


def _row(param: click.Parameter, context: click.Context) -> str:
    if isinstance(param, click.Argument):
        metavar, text = param.make_metavar(context), getattr(param, "help", None) or ""
        return f"| `{flat(metavar)}` | {cell(text)} |"
    names, text = param.get_help_record(context) or ("", "")
    return f"| `{flat(names)}` | {cell(text)} |"


def flat(text: str) -> str:
    """Return text on one line, for code in a cell of a table."""
    return re.sub(r"\s+", " ", text).strip()


def cell(text: str) -> str:
    """Return text for a cell of a table."""
    return re.sub(r"([|*])", r"\\\1", flat(text)).replace("<", "&lt;")
