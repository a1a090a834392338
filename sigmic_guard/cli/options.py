"""Options that several commands have, as typer knows them."""

from typing import Annotated, Any

import typer

from sigmic_guard.cli.durations import parse_duration

BaseUrl = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="Where the API is; default: SIGMIC_BASE_URL, then the public one."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line, for machines.")]

Ledger = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="sqlite:/// and a path; default: SIGMIC_GUARD_LEDGER, then the default file.",
    ),
]
Namespace = Annotated[
    str | None, typer.Option(metavar="NAME", help="One namespace only; default: all of them.")
]


def duration(text: str, *, default: str | None = None) -> Any:
    """Return an option of seconds, or of a duration such as ``5m``.

    :param default: the default, as the help says it.
    """
    says = f"{text} Seconds, or 5m, 1h30m" + (f"; default: {default}." if default else ".")
    return typer.Option(parser=_parse, metavar="TIME", help=says, show_default=False)


def _parse(value: str | float) -> float:
    try:
        return parse_duration(value)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
