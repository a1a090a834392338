"""What may be sent: every check that needs no answer from the server.

The checks name what is wrong but never show a value, for it may be a secret; and they raise from
frames that hold none, for some tools print the locals of a traceback.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast, get_args

import anyio.to_thread

from sigmic_guard.errors import ConfigurationError
from sigmic_guard.lifecycle.values import check_choice, is_text
from sigmic_guard.sigmic.api import ApprovalOutcome
from sigmic_guard.sigmic.bodies import Body, LocalFile, json_body, multipart_body

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sigmic_guard.lifecycle.secrets import Secrets
    from sigmic_guard.sigmic.models import CreateRequest

__all__ = ["MAX_FILES", "MAX_FILE_SIZE", "check_create", "check_files", "create_body", "send_body"]

#: Files in one request. Source: the API page, "create".
MAX_FILES: Final = 20
#: Bytes in one file. The page says "50 MB"; this is the larger of what that can mean.
MAX_FILE_SIZE: Final = 50 * 1024 * 1024

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


def check_create(request: CreateRequest) -> None:
    """Check all of a request that can be checked without touching the disk.

    :raises ConfigurationError: the API would refuse it, or it cannot be sent.
    """
    problem = (
        _message_problem(request.message)
        or _paths_problem(request.files)
        or _variables_problem("env", request.env)
        or _variables_problem("secrets", request.secrets)
    )
    if problem is None and request.system_prompt is not None and not is_text(request.system_prompt):
        problem = "system_prompt must be a string of valid Unicode."
    if problem is None and {type(request.auto_execute), type(request.show_in_history)} != {bool}:
        problem = "auto_execute and show_in_history must be True or False."
    if problem is None and request.files and (request.env or request.secrets):
        problem = "files cannot be combined with env or secrets: the API takes either."
    if problem is not None:
        raise ConfigurationError(problem)


def check_message(message: str, files: Sequence[Path] = ()) -> None:
    """Check a follow-up without touching the disk.

    :raises ConfigurationError: the API would refuse it, or it cannot be sent.
    """
    problem = _message_problem(message) or _paths_problem(files)
    if problem is not None:
        raise ConfigurationError(problem)


def check_outcome(outcome: object) -> ApprovalOutcome:
    """Return the decision on a tool call that is meant.

    :raises ConfigurationError: there is none of that name.
    """
    return cast("ApprovalOutcome", check_choice("outcome", outcome, get_args(ApprovalOutcome)))


async def check_files(files: Sequence[Path]) -> tuple[LocalFile, ...]:
    """Look at the files, in a thread, and return what is to be sent.

    :raises ConfigurationError: one is missing, unreadable, no regular file, or too large.
    """
    if not files:
        return ()
    return await anyio.to_thread.run_sync(_look_at, files)


def create_body(request: CreateRequest, files: Sequence[LocalFile]) -> Body:
    """Return the body of a checked request: JSON if it has variables, else a form."""
    texts = {"message": request.message}
    if request.system_prompt is not None:
        texts["systemPrompt"] = request.system_prompt
    flags = {"showInHistory": request.show_in_history, "autoExecute": request.auto_execute}
    if request.env or request.secrets:
        variables = {"env": dict(request.env), "secrets": dict(request.secrets)}
        return json_body(texts | flags | {name: v for name, v in variables.items() if v})
    spelt = {name: "true" if flag else "false" for name, flag in flags.items()}
    return multipart_body(texts | spelt, files)


def send_body(message: str, files: Sequence[LocalFile]) -> Body:
    """Return the body of a checked follow-up: a form if it has files, else JSON."""
    if files:
        return multipart_body({"message": message}, files)
    return json_body({"message": message})


def _message_problem(message: object) -> str | None:
    if not is_text(message) or not message:
        return "message must be a non-empty string of valid Unicode."
    return None


def _paths_problem(files: Sequence[object]) -> str | None:
    if not files:
        return None
    if len(files) > MAX_FILES:
        return f"{len(files)} files are too many: the API takes at most {MAX_FILES}."
    if not all(isinstance(file, (str, os.PathLike)) for file in files):
        return "files must be paths."
    return None


def _variables_problem(what: str, variables: Mapping[str, str] | Secrets) -> str | None:
    for name, value in variables.items():
        if not is_text(name) or not _NAME.fullmatch(name):
            return f"{what} holds a name that does not match [A-Za-z_][A-Za-z0-9_]*."
        if not is_text(value):
            return f"{what} holds a value that is not a string of valid Unicode."
    return None


def _look_at(files: Sequence[Path]) -> tuple[LocalFile, ...]:
    found = []
    for path in map(Path, files):
        try:
            status = path.stat()
        except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
            reason = getattr(exc, "strerror", None) or "no such path"
            raise ConfigurationError(f"The file {str(path)!r} cannot be sent: {reason}.") from None
        if not stat.S_ISREG(status.st_mode):
            raise ConfigurationError(f"{str(path)!r} cannot be sent: it is not a regular file.")
        if status.st_size > MAX_FILE_SIZE:
            raise ConfigurationError(
                f"The file {str(path)!r} has {status.st_size} bytes; the API takes at most "
                f"{MAX_FILE_SIZE}."
            )
        if not os.access(path, os.R_OK):
            raise ConfigurationError(f"The file {str(path)!r} cannot be sent: it is not readable.")
        found.append(LocalFile(path, path.name, status.st_size))
    return tuple(found)
