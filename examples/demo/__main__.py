"""``python examples/demo``, ``make demo`` and, in a checkout, ``sigmic-guard demo``."""

import sys
from pathlib import Path
from typing import Annotated

import typer

sys.path.insert(0, str(Path(__file__).parents[1]))

from demo import stage


def main(
    *,
    number: Annotated[
        int, typer.Option("--tasks", min=20, max=5000, help="How many tasks to run.")
    ] = 400,
    svg: Annotated[
        Path | None, typer.Option(help="Draw the last screen into this file.", dir_okay=False)
    ] = None,
    lie: Annotated[
        bool,
        typer.Option(
            "--lie",
            help="Let each DELETE lie and be believed, and the ledger forget: the demo must fail.",
        ),
    ] = False,
) -> None:
    """Run tasks against an emulator, stop them with SIGTERM, then with SIGKILL; compare the books.

    Exits with 0 only if, in both acts, the supervisor's counts and the emulator's agree, and no
    task is left running. Half as many tasks are live when SIGKILL comes as --tasks says.
    """
    raise typer.Exit(stage.main(tasks=number, svg=svg, lie=lie))


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(main)
    app(prog_name="sigmic-guard demo")
