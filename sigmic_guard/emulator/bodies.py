"""Reading what a client sends: credentials, query parameters, JSON and multipart bodies.

Whatever is wrong with them is a `Refusal`. Secrets and the contents of files are read and dropped.
"""

import re
from collections.abc import Callable, Collection, Mapping
from typing import TypeVar
from urllib.parse import parse_qsl

import msgspec
from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import BadHttpMessage

from sigmic_guard.emulator.answers import Refusal
from sigmic_guard.emulator.world import Draft

MAX_FILES = 20
MAX_FILE_SIZE = 50 * 2**20
OUTCOMES = ("proceed_once", "proceed_always", "cancel")

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CHUNK = 2**16
_Body = TypeVar("_Body")


class _Create(msgspec.Struct, rename="camel"):
    message: str
    system_prompt: str | None = None
    show_in_history: bool = True
    auto_execute: bool = True
    env: dict[str, str] | None = None
    secrets: dict[str, str] | None = None
    files: msgspec.Raw | None = None


class _Message(msgspec.Struct):
    message: str


class _Decision(msgspec.Struct):
    outcome: str


_decode_create = msgspec.json.Decoder(_Create).decode
_decode_message = msgspec.json.Decoder(_Message).decode
_decode_decision = msgspec.json.Decoder(_Decision).decode


def credential(headers: Mapping[str, str], accepted: Collection[str] | None) -> str:
    """The credential of a request, if it is well formed and accepted; None accepts any."""
    authorization = headers.get("Authorization")
    if authorization is None:
        found = headers.get("X-API-Key", "")
    else:
        scheme, _, found = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise Refusal("INVALID_AUTH_FORMAT", "Authorization is 'Bearer <credential>'")
        found = found.strip()
    if not found:
        raise Refusal("AUTH_REQUIRED", "no credential was sent")
    if found.startswith("eyJ"):
        problem = "INVALID_TOKEN"
    elif found.startswith("sigmic_"):
        problem = "INVALID_API_KEY"
    else:
        raise Refusal("INVALID_AUTH_FORMAT", "a credential begins with sigmic_ or eyJ")
    if found == "sigmic_" or (accepted is not None and found not in accepted):
        raise Refusal(problem, "the credential is invalid or expired")
    return found


def page(query: str) -> tuple[int, int]:
    """Limit and offset of a list."""
    parameters = dict(parse_qsl(query, keep_blank_values=True))
    return _whole(parameters, "limit", 50), _whole(parameters, "offset", 0)


async def draft(request: web.BaseRequest) -> Draft:
    """What a create asks for."""
    if request.content_type.startswith("multipart/"):
        fields, files = await _multipart(request)
        if {"env", "secrets"} & fields.keys():
            raise _invalid("env and secrets need an application/json body")
        made = Draft(
            message=fields.get("message", ""),
            system_prompt=fields.get("systemPrompt"),
            show_in_history=_flag(fields, "showInHistory"),
            auto_execute=_flag(fields, "autoExecute"),
            files=files,
        )
    else:
        body = await _json(request, _decode_create)
        if body.files is not None:
            raise _invalid("files need a multipart/form-data body")
        for name in (*(body.env or ()), *(body.secrets or ())):
            if not _NAME.fullmatch(name):
                raise _invalid(f"{name!r} is no name for env or secrets")
        made = Draft(
            message=body.message,
            system_prompt=body.system_prompt,
            show_in_history=body.show_in_history,
            auto_execute=body.auto_execute,
            env=body.env or {},
        )
    if not made.message:
        raise _invalid("message is required")
    return made


async def message(request: web.BaseRequest) -> str:
    """The text of a follow-up message."""
    if request.content_type.startswith("multipart/"):
        fields, _ = await _multipart(request)
        text = fields.get("message", "")
    else:
        text = (await _json(request, _decode_message)).message
    if not text:
        raise _invalid("message is required")
    return text


async def outcome(request: web.BaseRequest) -> str:
    """What was decided on a tool call."""
    decision = await _json(request, _decode_decision)
    if decision.outcome not in OUTCOMES:
        raise _invalid(f"outcome is one of {', '.join(OUTCOMES)}")
    return decision.outcome


def _invalid(problem: str) -> Refusal:
    return Refusal("VALIDATION_ERROR", problem)


def _whole(parameters: Mapping[str, str], name: str, default: int) -> int:
    text = parameters.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()):
        raise _invalid(f"{name} is a whole number, 0 or more")
    return int(text)


def _flag(fields: Mapping[str, str], name: str) -> bool:
    text = fields.get(name, "true").lower()
    if text not in {"true", "false"}:
        raise _invalid(f"{name} is true or false")
    return text == "true"


async def _json(request: web.BaseRequest, decode: Callable[[bytes], _Body]) -> _Body:
    if request.content_type != "application/json":
        raise _invalid("the body is application/json or multipart/form-data")
    try:
        return decode(await request.content.read())
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _invalid(str(error)) from error


async def _multipart(
    request: web.BaseRequest,
) -> tuple[dict[str, str], tuple[tuple[str, int], ...]]:
    """Text fields by name, and the name and size of each file."""
    fields: dict[str, str] = {}
    files: list[tuple[str, int]] = []
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader):
                raise _invalid("a part of the body is itself multipart")
            if part.name == "files":
                if len(files) == MAX_FILES:
                    raise _invalid(f"at most {MAX_FILES} files")
                files.append((part.filename or "", await _size(part)))
            elif part.name:
                fields[part.name] = await part.text()
    except (ValueError, BadHttpMessage) as error:
        raise _invalid(f"broken multipart body: {error}") from error
    return fields, tuple(files)


async def _size(part: BodyPartReader) -> int:
    size = 0
    while chunk := await part.read_chunk(_CHUNK):
        size += len(chunk)
        if size > MAX_FILE_SIZE:
            raise _invalid(f"a file has at most {MAX_FILE_SIZE} bytes")
    return size
