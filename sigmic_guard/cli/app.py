"""The commands as typer knows them: arguments, options, and how each ends."""

import os
import runpy
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated, Final, NoReturn

import anyio
import typer

from sigmic_guard import SigmicGuardError, TaskOptions, __version__
from sigmic_guard.cli import explain as explaining
from sigmic_guard.cli import forget as forgetting
from sigmic_guard.cli import ps as showing
from sigmic_guard.cli import reap as reaping
from sigmic_guard.cli import running, tasks
from sigmic_guard.cli.codes import CONNECTION, INTERRUPTED, NOT_DONE, USAGE, code_of
from sigmic_guard.cli.exec import execute
from sigmic_guard.cli.ledger import ledger_path
from sigmic_guard.cli.options import BaseUrl, Json, Ledger, Namespace, duration
from sigmic_guard.cli.terminal import Terminal
from sigmic_guard.errors import ConfigurationError
from sigmic_guard.ledger.statements import Order
from sigmic_guard.lifecycle import State
from sigmic_guard.sigmic.credentials import ENVIRONMENT_VARIABLE, Credential

app = typer.Typer(
    name="sigmic-guard",
    help="Run Sigmic tasks that end when this program does.\n\n"
    f"The API key is taken from the environment: {ENVIRONMENT_VARIABLE}.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

#: How an id may be shortened: where the ledger is asked, and where the API is.
_PREFIX: Final = "; a beginning of 4 characters or more will do where it fits one task only."
_PREFIX_TOO: Final = "; of one that the ledger knows, a beginning of 4 characters or more will do."

#: For a command whose program parses its own arguments.
_PASS_ON: Final = {"allow_extra_args": True, "ignore_unknown_options": True}


def main() -> None:
    """Run the command line and exit."""
    app(prog_name="sigmic-guard")


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - typer's signature
    if wanted:
        print(f"sigmic-guard {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=_show_version, is_eager=True
        ),
    ] = False,
) -> None:
    del version


@app.command(short_help="Run a task and print its answer.")
def run(
    message: Annotated[str, typer.Argument(metavar="MESSAGE", help="What the task is to do.")],
    *,
    file: Annotated[
        list[Path] | None,
        typer.Option(metavar="PATH", help="A file for the task; may be repeated."),
    ] = None,
    timeout: Annotated[
        float | None, duration("How long it may take; then it is cancelled.")
    ] = None,
    system_prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", help="A system prompt.")
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A variable of the task; the API shows it."),
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=VALUE]",
            help="A variable that is never shown; without a value, that of the environment.",
        ),
    ] = None,
    json: Json = False,
    base_url: BaseUrl = None,
) -> None:
    """Run a task and print its answer; Ctrl-C, SIGTERM and the time-out cancel it.

    Exits with 0 (completed), 1 (failed), 2 (wrong usage), 3 (credentials or connection),
    124 (timed out), 130 (Ctrl-C) or 143 (SIGTERM).
    """
    options = TaskOptions(
        files=file or (),
        timeout=timeout,
        system_prompt=system_prompt,
        env=_pairs(env, "--env"),
        secrets=_pairs(secret, "--secret", from_environment=True),
    )
    _perform(partial(running.run, message=message, options=options, base_url=base_url), json=json)


@app.command()
def cancel(
    task_id: Annotated[list[str], typer.Argument(metavar="ID…", help=f"Ids of tasks{_PREFIX_TOO}")],
    *,
    wait: Annotated[float, duration("How long to try.", default="30s")] = 30.0,
    json: Json = False,
    base_url: BaseUrl = None,
) -> None:
    """Cancel tasks, and see that they have ended.

    Prints what came of each: confirmed, already_finished, not_found or unconfirmed.
    Exits with 0 if all have ended.
    """
    _perform(partial(tasks.cancel, task_ids=task_id, wait=wait, base_url=base_url), json=json)


@app.command()
def status(
    task_id: Annotated[str, typer.Argument(metavar="ID", help=f"The id of a task{_PREFIX_TOO}")],
    *,
    json: Json = False,
    base_url: BaseUrl = None,
) -> None:
    """Show a task."""
    _perform(partial(tasks.status, task_id=task_id, base_url=base_url), json=json)


@app.command("list")
def list_(
    *,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="How many.")] = 20,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    json: Json = False,
    base_url: BaseUrl = None,
) -> None:
    """List tasks, most recent activity first."""
    most = None if everything else limit
    _perform(partial(tasks.list_tasks, limit=most, base_url=base_url), json=json)


@app.command(short_help="Show the tasks under way, dead owners' first.")
def ps(
    *,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show it again each second, until Ctrl-C.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Show so many; default: all.")
    ] = None,
    state: Annotated[
        list[State] | None, typer.Option(metavar="STATE", help="Only this state; may be repeated.")
    ] = None,
    dead: Annotated[bool, typer.Option("--dead", help="Only dead owners' tasks.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Only ids, one a line, for xargs.")
    ] = False,
    sort: Annotated[
        Order | None,
        typer.Option(
            metavar="age|state|owner|due",
            help="The order; default: dead owners' tasks, and then the oldest.",
        ),
    ] = None,
    namespace: Namespace = None,
    ledger: Ledger = None,
    json: Json = False,
) -> None:
    """Show what the ledger knows of the tasks under way: dead owners' first, then the oldest.

    In a line: the task's id (or its intent's, while it has none), state, key, the pid of its owner
    (as that process's own machine or container counts), whether the owner lives or for how long
    there was no sign of it, age, time until the deadline, why it is to end, and namespace. On a
    terminal the last of them are left out, and ids cut short, where there is no room; a part of an
    id will do for explain, forget, cancel and status.

    Needs no API key and no network, and leaves no trace in the ledger. Exits with 0 if every owner
    lives, 1 if a dead owner's task is left, shown or not, whoever may end it, 3 if the ledger
    cannot be read. A watch exits with 0 on Ctrl-C.
    """
    if watch and quiet:
        raise typer.BadParameter("a watch is for people to look at", param_hint="--quiet")
    choice = showing.Choice(namespace, sort, frozenset(state or ()), dead, limit)

    async def show(terminal: Terminal) -> int:
        path = ledger_path(ledger)
        if not watch:
            return await showing.ps(terminal, path=path, choice=choice, quiet=quiet)
        # Not needed otherwise, and rich takes its time.
        watching = import_module("sigmic_guard.cli.watch")
        code: int = await watching.watch(terminal, path=path, choice=choice)
        return code

    _perform(show, json=json, needs_key=False)


@app.command(short_help="Tell in words what is known of a task.")
def explain(
    identifier: Annotated[
        str,
        typer.Argument(metavar="ID", help=f"The id of a task, or of its intent{_PREFIX}"),
    ],
    *,
    ledger: Ledger = None,
    json: Json = False,
) -> None:
    """Tell in words what the ledger knows of a task, and why it will be reaped or will not.

    Needs no network. Exits with 1 if the ledger has no such task, or several.
    """

    async def tell(terminal: Terminal) -> int:
        return await explaining.explain(terminal, identifier, path=ledger_path(ledger))

    _perform(tell, json=json, needs_key=False)


@app.command(short_help="End the tasks whose owner is dead.")
def reap(
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell: send nothing, and write nothing.")
    ] = False,
    wait: Annotated[
        float,
        duration("How long to try; a task without an id takes more than 30s.", default="60s"),
    ] = 60.0,
    namespace: Namespace = None,
    ledger: Ledger = None,
    json: Json = False,
) -> None:
    """End the tasks whose owner is dead, and tell of each what came of it.

    Ours are those of the account in SIGMIC_ACCOUNT or, without one, of the API key. Exits with 0 if
    none is left that we may end: one that somebody may still ask for by its key, or that is not
    ours, is listed and is no failure. With 1 if one may still run
    (or, with --dry-run, is to be ended), 3 for want of an API key, a ledger or an API that works.
    """

    async def end(terminal: Terminal) -> int:
        return await reaping.command(
            terminal, path=ledger_path(ledger), namespace=namespace, wait=wait, dry_run=dry_run
        )

    _perform(end, json=json)


@app.command(short_help="Take dead owners' tasks off the books.")
def forget(
    identifier: Annotated[
        list[str],
        typer.Argument(metavar="ID…", help=f"Ids of tasks, or of their intents{_PREFIX}"),
    ],
    *,
    ledger: Ledger = None,
    json: Json = False,
) -> None:
    """Take dead owners' tasks off the books, and leave the tasks themselves as they are.

    Nobody will look for such a task again, or end it. Needs no API key and no network. Exits with 1
    if one was not forgotten: it has a living owner, or the ledger has no such task under way.
    """

    async def take_off(terminal: Terminal) -> int:
        return await forgetting.forget(terminal, identifier, path=ledger_path(ledger))

    _perform(take_off, json=json, needs_key=False)


@app.command(
    "exec",
    short_help="Run a program, and end the tasks that it left.",
    context_settings={"allow_interspersed_args": False},
)
def exec_(
    command: Annotated[
        list[str], typer.Argument(metavar="CMD…", help="A program and its arguments.")
    ],
    *,
    grace: Annotated[float, duration("How long ending its tasks may take.", default="8s")] = 8.0,
) -> None:
    """Run a program; when it is gone, however it went, end the tasks that it left.

    The ledger is that of SIGMIC_GUARD_LEDGER, or the default file; the program gets its URL there.
    Exits with the program's status, 128 + N if signal N ended it, 125 if it was not run for want
    of a ledger or an API key, 126 if it cannot be run, 127 if there is no such program.
    """
    raise typer.Exit(execute(command, check_credential=_check_credential, grace=grace))


@app.command("help")
def help_(
    context: typer.Context,
    command: Annotated[
        str | None, typer.Argument(metavar="[COMMAND]", help="The command to tell of.")
    ] = None,
) -> None:
    """Tell how a command is used, or which there are."""
    above = context.parent
    assert above is not None
    if command is None:
        print(above.get_help())
        return
    above.command.main([command, "--help"], prog_name=above.command_path)


@app.command(
    short_help="Serve a Sigmic API on this machine.",
    add_help_option=False,
    context_settings=_PASS_ON,
)
def emulator(context: typer.Context) -> None:
    """Serve a Sigmic API on this machine, and print its URL; see emulator --help."""
    sys.argv[1:] = context.args
    runpy.run_module("sigmic_guard.emulator", run_name="__main__", alter_sys=True)


@app.command(
    short_help="Play a SIGTERM and a SIGKILL, in a checkout.",
    add_help_option=False,
    context_settings=_PASS_ON,
)
def demo(context: typer.Context) -> None:
    """Play a SIGTERM and a SIGKILL, and compare the books; in a checkout only; see demo --help."""
    program = Path(__file__).parents[2] / "examples" / "demo"
    if not (program / "__main__.py").is_file():
        print("sigmic-guard: the demo is not installed; run it in a checkout", file=sys.stderr)
        raise typer.Exit(USAGE)
    sys.argv[1:] = context.args
    runpy.run_path(str(program), run_name="__main__")


def _pairs(
    pairs: list[str] | None, option: str, *, from_environment: bool = False
) -> dict[str, str]:
    try:
        return running.parse_pairs(pairs or [], from_environment=from_environment)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def _perform(
    command: Callable[[Terminal], Awaitable[int]], *, json: bool, needs_key: bool = True
) -> NoReturn:
    """Do it, and exit with the code that says how it went."""
    terminal = Terminal(json=json)
    terminal.log_here()

    async def perform() -> int:
        try:
            if needs_key:
                _check_credential()
        except ConfigurationError as error:
            await terminal.error(error)
            return CONNECTION
        try:
            return await command(terminal)
        except SigmicGuardError as error:
            await terminal.error(error)
            return code_of(error)

    try:
        code = anyio.run(perform)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        code = NOT_DONE
    finally:
        terminal.flush()
    raise typer.Exit(code)


def _check_credential() -> None:
    """Refuse what the library would refuse, in the words of a command line.

    :raises ConfigurationError: there is no credential, or it cannot be one.
    """
    if not os.environ.get(ENVIRONMENT_VARIABLE):
        raise ConfigurationError(f"there is no API key: set {ENVIRONMENT_VARIABLE}")
    Credential()
