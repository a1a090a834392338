"""The tables of a SQLite ledger, how a file comes to have them, and a row as a record.

Works on whatever looks like a :class:`sqlite3.Connection` in autocommit mode, whose errors go
through.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from sigmic_guard.errors import LedgerError, SigmicGuardError
from sigmic_guard.ledger.protocol import CorruptRows
from sigmic_guard.lifecycle import Record, TaskPolicy

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Row = tuple[Any, ...]


class Cursor(Protocol):
    """What we need of a cursor."""

    @property
    def rowcount(self) -> int:
        """How many rows the statement changed, over all parameters."""

    def fetchone(self) -> Any:
        """Return the next row, or ``None``."""

    def fetchall(self) -> list[Any]:
        """Return all rows."""


class Connection(Protocol):
    """What we need of a connection; it must be in autocommit mode."""

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Cursor:
        """Run one statement."""

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> Cursor:
        """Run one statement for each of the parameters."""


#: "SgLd", by which a file is known to be a ledger of ours.
APPLICATION_ID: Final = 0x53674C64

#: The n-th takes a file from version n to n + 1. What was released is never changed.
MIGRATIONS: Final[list[tuple[str, ...]]] = [
    (
        """
        CREATE TABLE tasks (
            intent_id TEXT NOT NULL PRIMARY KEY,
            namespace TEXT NOT NULL,
            base_url TEXT NOT NULL,
            credential_fingerprint TEXT NOT NULL,
            owner_id TEXT NOT NULL,
            policy TEXT NOT NULL,
            created_at REAL NOT NULL,
            state TEXT NOT NULL,
            version INTEGER NOT NULL,
            remote_id TEXT,
            deadline_at REAL,
            key TEXT,
            posted_at REAL,
            lost_at REAL,
            message_digest TEXT,
            orphaned_at REAL,
            asked_at REAL,
            reason TEXT,
            cancel_requested_at REAL,
            attempts INTEGER NOT NULL,
            last_error TEXT,
            finished_at REAL,
            remote_status TEXT
        )
        """,
        "CREATE INDEX tasks_unfinished ON tasks (namespace, owner_id) WHERE finished_at IS NULL",
        """
        CREATE UNIQUE INDEX tasks_key ON tasks (namespace, key)
        WHERE finished_at IS NULL AND key IS NOT NULL
        """,
        "CREATE INDEX tasks_finished ON tasks (finished_at) WHERE finished_at IS NOT NULL",
        """
        CREATE INDEX tasks_absent ON tasks (namespace, finished_at)
        WHERE state = 'never_created' AND lost_at IS NOT NULL AND finished_at IS NOT NULL
        """,
        # Remote ids are random: an index of all of them is dear, and old ones are rarely asked for.
        """
        CREATE INDEX tasks_remote_id ON tasks (remote_id)
        WHERE finished_at IS NULL AND remote_id IS NOT NULL
        """,
        """
        CREATE TABLE owners (
            owner_id TEXT NOT NULL PRIMARY KEY,
            boot_id TEXT,
            pid INTEGER NOT NULL,
            opened_at REAL NOT NULL,
            seen_at REAL,
            left_at REAL
        )
        """,
    ),
    (
        # When somebody first saw that it is dead, by the monotonic clock of a boot of the machine.
        "ALTER TABLE owners ADD COLUMN dead_at REAL",
        "ALTER TABLE owners ADD COLUMN dead_boot_id TEXT",
    ),
]

#: In the order of the record's fields.
COLUMNS: Final = (
    "intent_id",
    "namespace",
    "base_url",
    "credential_fingerprint",
    "owner_id",
    "policy",
    "created_at",
    "state",
    "version",
    "remote_id",
    "deadline_at",
    "key",
    "posted_at",
    "lost_at",
    "message_digest",
    "orphaned_at",
    "asked_at",
    "reason",
    "cancel_requested_at",
    "attempts",
    "last_error",
    "finished_at",
    "remote_status",
)
#: What a task keeps for life; an update leaves it as it is.
FIXED: Final = frozenset(
    {"intent_id", "namespace", "base_url", "credential_fingerprint", "created_at", "key"}
)
INTENT_ID, NAMESPACE, POLICY, STATE, VERSION, KEY, REASON = map(
    COLUMNS.index, ("intent_id", "namespace", "policy", "state", "version", "key", "reason")
)


# --- files ----------------------------------------------------------------------------------------


def configure(connection: Connection) -> None:
    """Set what is not kept in the file."""
    connection.execute("PRAGMA synchronous=FULL")
    # Apple's fsync() leaves the data in the drive's cache; nowhere else is there a difference.
    connection.execute("PRAGMA fullfsync=ON")
    connection.execute("PRAGMA checkpoint_fullfsync=ON")
    connection.execute("PRAGMA journal_size_limit=16777216")


def is_ledger(connection: Connection, path: str) -> bool:
    """Tell a ledger from an empty file.

    :raises LedgerError: it is neither, or of a newer version.
    """
    connection.execute("BEGIN")  # so that the three are of one moment
    try:
        application_id, version = _pragma(connection, "application_id"), user_version(connection)
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    finally:
        connection.execute("ROLLBACK")
    if application_id != APPLICATION_ID and (application_id or version or tables):
        raise LedgerError(
            f"{path} is a database of another program, and was left alone; "
            "give the ledger a file of its own"
        )
    check_version(version, path)
    return application_id == APPLICATION_ID


def check_version(version: int, path: str) -> None:
    """Refuse a file of the future.

    :raises LedgerError: its version is not known here.
    """
    if version > len(MIGRATIONS):
        raise LedgerError(
            f"the ledger {path} has version {version}, and this sigmic-guard knows "
            f"{len(MIGRATIONS)} at most; install the newer one here as well, and restart"
        )


def migrate(connection: Connection, path: str) -> None:
    """Bring the file to the present version, all in one transaction."""
    if user_version(connection) == len(MIGRATIONS):
        return
    connection.execute("BEGIN IMMEDIATE")
    version = user_version(connection)  # another process may have been quicker
    check_version(version, path)
    for statements in MIGRATIONS[version:]:
        for statement in statements:
            connection.execute(statement)
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version={len(MIGRATIONS)}")
    connection.execute("COMMIT")


def user_version(connection: Connection) -> int:
    """Return the file's version; 0 is that of an empty one."""
    return _pragma(connection, "user_version")


def _pragma(connection: Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value


# --- rows -----------------------------------------------------------------------------------------


def encode(record: Record) -> Row:
    """Return the record's row."""
    row: list[Any] = list(msgspec.structs.astuple(record))
    row[POLICY] = _encode_policy(record.policy)
    row[STATE] = record.state.value
    if record.reason is not None:
        row[REASON] = record.reason.value
    return tuple(row)


def decode(row: Row) -> Record:
    """Return the row's record.

    :raises CorruptRows: the row is corrupt.
    """
    fields = dict(zip(COLUMNS, row, strict=True))
    try:
        fields["policy"] = _decode_policy(fields["policy"])
        return msgspec.convert(fields, Record)
    except (TypeError, SigmicGuardError, msgspec.DecodeError) as error:
        raise CorruptRows({str(row[INTENT_ID]): str(error)}) from error


def decode_all(rows: Iterable[Row]) -> list[Record]:
    """Return the rows' records.

    :raises CorruptRows: some of them are corrupt; it has the others.
    """
    records: list[Record] = []
    corrupt: dict[str, str] = {}
    for row in rows:
        try:
            records.append(decode(row))
        except CorruptRows as error:
            corrupt |= error.corrupt
    if corrupt:
        raise CorruptRows(corrupt, records)
    return records


def clean(row: Row) -> Row:
    """Write out the surrogates that no UTF-8 can hold."""
    return tuple(clean_text(value) if isinstance(value, str) else value for value in row)


def clean_text(text: str) -> str:
    """Write out the surrogates that no UTF-8 can hold."""
    return text.encode(errors="backslashreplace").decode()


# Tasks share their policies, and a policy is much dearer to encode than the rest of its row.
@lru_cache(maxsize=1024)
def _encode_policy(policy: TaskPolicy) -> str:
    return msgspec.json.encode(policy).decode()


@lru_cache(maxsize=1024)
def _decode_policy(text: str) -> TaskPolicy:
    return msgspec.json.decode(text, type=TaskPolicy)  # fields that are not known are left out
