"""From an intent to a remote task: the POST, sent once.

The order is the promise: the intent is durable before the first byte goes out, and no checkpoint
stands between reading an id and owning it.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from sigmic_guard.errors import (
    ApiError,
    ConfigurationError,
    ConnectionFailed,
    DuplicateKey,
    LedgerError,
    ProtocolError,
    SigmicGuardError,
    bare,
)
from sigmic_guard.lifecycle import Event, State
from sigmic_guard.sigmic import is_id
from sigmic_guard.supervisor.ground.marking import digest, mark
from sigmic_guard.supervisor.ground.phases import Block, Create
from sigmic_guard.supervisor.ground.workers import Pool
from sigmic_guard.supervisor.work.capacity import Capacity

if TYPE_CHECKING:
    from collections.abc import Callable

    from sigmic_guard.lifecycle import TaskPolicy
    from sigmic_guard.sigmic.models import CreateRequest
    from sigmic_guard.supervisor.ground.entries import Entries
    from sigmic_guard.supervisor.ground.entry import Entry
    from sigmic_guard.supervisor.ground.ground import Ground

#: POSTs under way at once; 16 to 64 in flight beat more.
MAX_CREATES: Final = 64
#: Tasks whose intent is being written, or whose POST is under way or about to be.
MAX_INTENTS: Final = 256
#: How often a key may turn out to be free, and be taken by somebody else meanwhile.
MAX_CLAIMS: Final = 5


def refused_outright(error: SigmicGuardError) -> bool:
    """Tell whether a failed POST provably created nothing: never sent, or answered 4xx."""
    if isinstance(error, ConnectionFailed):
        return not error.sent
    if isinstance(error, ApiError):
        return 400 <= error.status < 500
    return isinstance(error, ConfigurationError)


def interrupted(what: str, hit: BaseException, *, sent: bool) -> ConnectionFailed:
    """Make the error of a request whose worker was cancelled, or met a bug: that is its cause."""
    if not isinstance(hit, Exception):
        return ConnectionFailed(f"the {what} was interrupted", sent=sent)
    kind = type(hit).__name__
    failure = ConnectionFailed(f"the {what} was broken off by a bug ({kind})", sent=sent)
    failure.__cause__ = hit
    return bare(failure)


class KeyClaims(Protocol):
    """Who finds out about creates whose key is taken."""

    def claim_key(self, task: Entry, tell: Callable[[Entry, BaseException | None], None]) -> None:
        """Find out what becomes of the create; tell that the key is free, or why it is not."""

    def hold(self) -> None:
        """Let nobody be told of a key any more."""


class Creator:
    """Creates tasks, at most ``max_tasks`` alive at once; further ones wait in order."""

    def __init__(
        self,
        ground: Ground,
        entries: Entries,
    ) -> None:
        self._ground = ground
        self._entries = entries
        self._roster = ground.roster
        self._outbox = ground.outbox
        self._api = ground.api
        self._observer = ground.observer
        self._timeout = ground.settings.create_timeout
        #: Who finds out about taken keys; filled in by the wiring.
        self.claims: KeyClaims
        #: How often the key of one was taken when its intent was to be written.
        self._beaten: dict[Entry, int] = {}
        self._pool: Pool[Entry] = Pool(
            ground.workers, "create", self._create, MAX_CREATES, failed=self._break_off
        )
        self._capacity = Capacity(ground, self._take)
        #: Those that may be created, when there are fewer under way.
        self._admitted: deque[Entry] = deque()
        #: Of how many the intent is being written, or the POST under way or about to be.
        self._under_way = 0
        #: Why the intent of one that the pool has could not be written.
        self._unwritten: dict[Entry, SigmicGuardError] = {}
        self._held = False
        self._roster.finished.append(self._finished)

    def hold(self) -> None:
        """Let no create begin any more."""
        self._held = True
        self._pool.hold()
        self.claims.hold()

    def begin(
        self,
        request: CreateRequest,
        policy: TaskPolicy,
        deadline: float | None,
        key: str | None,
        block: Block | None = None,
    ) -> Entry:
        """Take a task on, and create it as soon as there is a place for it.

        :param deadline: absolute, on anyio's clock.
        :param block: what owns it: a follow-up can come after its completion.
        """
        record = self._entries.intend(policy, deadline, key, message_digest=self._digest(request))
        task = self._entries.enlist(record, deadline)
        task.block = block
        self._ask_for(task, request)
        if key is not None and not self._capacity.has_place(task):
            # It may lead to a task that exists, whether there is a place for it or not.
            self.claims.claim_key(task, self._on_key_decided)
        else:
            self._capacity.admit(task)
        return task

    def begin_anew(self, task: Entry) -> None:
        """Create a task that has its place, was claimed by its key, and turned out not to exist."""
        request, old = _create_of(task).request, task.record
        assert request is not None
        # Not what the dead owner's create was: this one may have files, and that one none.
        record = self._entries.intend(
            old.policy, task.deadline, old.key, message_digest=self._digest(request)
        )
        self._roster.renew(task, record)
        self._ask_for(task, request)
        self._capacity.admit(task, at_once=True)

    def _digest(self, request: CreateRequest) -> str | None:
        return None if self._can_be_marked(request) else digest(request.message)

    def _can_be_marked(self, request: CreateRequest) -> bool:
        return self._ground.settings.marker and not request.files

    def _ask_for(self, task: Entry, request: CreateRequest) -> None:
        self._roster.origins.note_message(task, request.message)
        task.create = Create(mark(request, task.record.intent_id) if task.marked else request)

    def _finished(self, task: Entry) -> None:
        self._beaten.pop(task, None)
        if task.create is not None:
            task.create.request = None  # withdrawn

    def _take(self, task: Entry) -> None:
        self._admitted.append(task)
        self._write_intents()

    def _write_intents(self) -> None:
        """Have as many intents written as may be under way."""
        while self._admitted and self._under_way < MAX_INTENTS and not self._held:
            task = self._admitted.popleft()
            if task.record.state is State.INTENT:  # else it was withdrawn while it waited
                self._under_way += 1
                self._write_intent(task)

    def _write_intent(self, task: Entry) -> None:
        """Make the intent durable, and leave the task to a worker then."""
        written = partial(self._on_intent_written, task)
        self._outbox.insert_and_tell(task.record, written, timeout=self._timeout)

    def _on_intent_written(self, task: Entry, error: SigmicGuardError | None) -> None:
        if error is not None:
            self._unwritten[task] = error
        self._pool.put(task)

    def _not_written(self, task: Entry, error: SigmicGuardError) -> None:
        """Refuse the task, or ask who has its key: others may be quicker so many times."""
        if isinstance(error, DuplicateKey):
            times = self._beaten[task] = self._beaten.get(task, 0) + 1
            if times < MAX_CLAIMS:
                self.claims.claim_key(task, self._on_key_decided)
                return
        self._refuse(task, error)

    def _on_key_decided(self, task: Entry, error: BaseException | None) -> None:
        if error is None:
            self._capacity.admit(task)
        elif isinstance(error, LedgerError | DuplicateKey):
            self._refuse(task, error)
        else:
            self._break_off(task, error)

    def _refuse(self, task: Entry, error: SigmicGuardError) -> None:
        if task.record.state is State.INTENT:
            _create_of(task).failure = bare(error)
            self._roster.apply(task, Event.WITHDRAW, error=str(error))

    async def _create(self, task: Entry) -> None:
        error = self._unwritten.pop(task, None)
        try:
            if task.record.state is not State.INTENT:
                return  # withdrawn meanwhile
            if error is None:
                await self._post(task)
            else:
                self._not_written(task, error)
        finally:
            self._under_way -= 1
            self._write_intents()

    async def _post(self, task: Entry) -> None:
        create = _create_of(task)
        request, create.request = create.request, None
        assert request is not None
        create.posted_at = self._ground.lifetime.moment()
        self._roster.origins.expect(task)
        self._roster.apply(task, Event.POST)
        self._observer.detail(task.record, "message", request.message)
        try:
            with self._observer.around("create", task.record):
                remote_id = await self._api.create(request, timeout=self._timeout)
        except SigmicGuardError as error:
            create.failure = bare(error)
            event = Event.REFUSE if refused_outright(error) else Event.LOSE
            self._roster.apply(task, event, error=str(error))
        except BaseException as hit:
            if not isinstance(hit, Exception):
                self._break_off(task, hit)
            raise
        else:
            if not is_id(remote_id):
                self._disbelieve(task, "the API gave the new task an id that cannot be one")
            elif remote_id in self._roster.named:
                self._disbelieve(task, "the API gave the new task the id of another live task")
            else:
                self._roster.apply(task, Event.CREATED, remote_id=remote_id)

    def _disbelieve(self, task: Entry, why: str) -> None:
        """Take the answer for lost: there is a task, and the list tells which."""
        _create_of(task).failure = ProtocolError(why)
        self._roster.apply(task, Event.LOSE, error=why)

    def _break_off(self, task: Entry, hit: BaseException) -> None:
        """Say what is known of a create whose worker was cancelled, or has a bug."""
        if task.record.state is State.CREATING:
            # The POST may have gone out all the same.
            failure = _create_of(task).failure = interrupted("create", hit, sent=True)
            self._roster.apply(task, Event.LOSE, error=str(failure))
        elif task.record.state is State.INTENT:
            failure = _create_of(task).failure = interrupted("create", hit, sent=False)
            self._roster.apply(task, Event.WITHDRAW, error=str(failure))


def _create_of(task: Entry) -> Create:
    """Return the create of a task whose id is not known yet."""
    assert task.create is not None
    return task.create
