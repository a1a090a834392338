"""What is true, whatever the code under test believes; and whoever breaks it is told.

The truth is the remote system's own, the orders that were given, and who lives. It is asked at each
DELETE, as it is sent and as it arrives, and at each write to the ledger.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Final

from sigmic_guard.lifecycle import State, TaskPolicy
from sigmic_guard.supervisor.ground.marking import MARKER
from sigmic_guard.testing import FakeSigmic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sigmic_guard.ledger import Write
    from sigmic_guard.lifecycle import Record
    from sigmic_guard.testing.fake_task import FakeTask


@dataclass(eq=False)
class Life:
    """One boot of one process, as it really went."""

    name: str
    credential: str
    namespace: str
    owner_id: str = ""
    #: Its process runs, or is stopped; not killed, not drained.
    alive: bool = True
    #: It was told to shut down: all its tasks are to end.
    draining: bool = False
    #: Its last sign of life, and its death, on the virtual clock.
    seen_at: float = 0.0
    died_at: float = inf

    def __repr__(self) -> str:
        return self.name


@dataclass(eq=False)
class Wish:
    """A task as somebody wanted it."""

    message: str
    life: Life
    policy: TaskPolicy
    key: str | None
    begun_at: float
    #: The latest time that its row tells; who claims another's task leaves none there.
    shown_at: float = field(init=False)
    #: Its owner asked for its end, or was told that there is no task.
    over: bool = False
    #: It was waited for, in vain or not.
    answered: bool = False

    def __post_init__(self) -> None:
        self.shown_at = self.begun_at

    def has_the_key_of(self, other: Wish) -> bool:
        """Whether both are known by one key."""
        mine, its = self.life, other.life
        same = (mine.credential, mine.namespace) == (its.credential, its.namespace)
        return same and self.key == other.key

    @property
    def claimable(self) -> bool:
        """Whether a crash leaves it to whoever asks for its key."""
        return self.policy.on_crash == "reattach" and self.key is not None

    def late(self, now: float) -> bool:
        """Whether its deadline has passed."""
        timeout = self.policy.timeout
        return timeout is not None and now >= self.begun_at + timeout

    def wanted(self, now: float) -> bool:
        """Whether a live owner wants it, and did not ask for its end."""
        life = self.life
        return life.alive and not life.draining and not self.over and not self.late(now)

    def waits(self, now: float, since: float, row: Record | None) -> bool:
        """Whether its owner died or left it, and it may still be claimed.

        :param since: when that time began.
        :param row: where an owner that leaves says that it does.
        """
        kept = self.claimable and not self.life.alive and not self.life.draining
        if self.handed_over and row is not None:
            kept = row.state is State.HANDED_OVER
        now += ROUNDING  # it is reaped on time, and what is on time depends on the last bit
        until = since + self.policy.reattach_within
        return kept and not self.over and not self.late(now) and now < until

    @property
    def handed_over(self) -> bool:
        """Whether its owner's shutdown leaves it to whoever asks for its key."""
        policy = self.policy
        return self.life.draining and policy.on_shutdown == "reattach" and self.key is not None

    @property
    def let_go(self) -> bool:
        """Whether its owner died, and it may run on."""
        return not self.life.alive and self.policy.on_crash == "abandon"


#: By how much each clock may be wrong, in seconds.
HOUR: Final = 3600.0
#: Seconds: times since the epoch, as rows hold them, are rounded to less than a microsecond.
ROUNDING: Final = 1e-5


@dataclass
class Truth:
    """The judge.

    :ivar wishes: by the message of the task, which is its own.
    :ivar heirs: who claimed a task by its key, by remote id.
    :ivar asking: the orders whose answer is awaited.
    :ivar seen_dead: when somebody first saw that an owner is dead, as the ledger has it.
    :ivar first_seen_dead: the same, of all whose tasks were ever judged.
    :ivar clocks: by how many seconds wall clocks were wrong at any time.
    :ivar crimes: what must not be, in words.
    """

    fake: FakeSigmic
    now: Callable[[], float]
    seen_dead: Mapping[str, float]
    first_seen_dead: dict[str, float] = field(default_factory=dict)
    clocks: set[float] = field(default_factory=lambda: {0.0})
    wishes: dict[str, Wish] = field(default_factory=dict)
    heirs: dict[str, Wish] = field(default_factory=dict)
    asking: list[Wish] = field(default_factory=list)
    lives: dict[str, Life] = field(default_factory=dict)
    rows: dict[str, Record] = field(default_factory=dict)
    crimes: list[str] = field(default_factory=list)

    def accuse(self, crime: str) -> None:
        """Note what must not be."""
        self.crimes.append(f"{self.now():.3f}: {crime}")

    def wish_of(self, task_id: str) -> Wish | None:
        """Return who wants a task, and how; ``None`` of what never was."""
        if task_id in self.heirs:
            return self.heirs[task_id]
        task = self.fake.tasks.get(task_id)
        return None if task is None else self.wishes[task.message]

    def given(self, task_id: str, wish: Wish) -> None:
        """Note whose task it is, whoever had it created."""
        if self.fake.tasks[task_id].message != wish.message:
            self._inherit(task_id, wish)
        now = self.now()
        for other in self.fake.live if wish.key is not None and wish.wanted(now) else ():
            owner = self.wish_of(other)
            if other != task_id and owner is not None and owner.has_the_key_of(wish):
                row = self.row_of(self.fake.tasks[other])
                if owner.wanted(now) or self.waits(owner, row):
                    self.accuse(f"{wish.message} has the key of {owner.message}")

    def _inherit(self, task_id: str, heir: Wish) -> None:
        before = self.wish_of(task_id)
        assert before is not None
        heir.shown_at = min(heir.shown_at, before.shown_at)
        self.heirs[task_id] = heir

    def waits(self, wish: Wish, row: Record | None) -> bool:
        """Whether its owner died or left it, and it may still be claimed.

        That time begins when the death was seen; or, where two clocks differ by so much that the
        row seems to be hours old, with the last sign of life.
        """
        owner_id = wish.life.owner_id
        if owner_id in self.seen_dead:  # the ledger forgets it when the last row was taken over
            self.first_seen_dead.setdefault(owner_id, self.seen_dead[owner_id])
        seen = self.first_seen_dead.get(owner_id, inf)
        if max(self.clocks) - min(self.clocks) > HOUR:
            seen = min(seen, max(wish.life.seen_at, wish.shown_at))
        return wish.waits(self.now(), seen, row)

    def row_of(self, task: FakeTask) -> Record | None:
        """Return the row of the intent that made a task."""
        return self.rows.get(task.env[MARKER])

    # --- DELETEs ------------------------------------------------------------------------------

    def deleting(self, sender: Life, task_id: str) -> None:
        """Judge a DELETE as it is sent."""
        wish = self.wish_of(task_id)
        if wish is None:
            self.accuse(f"{sender} deletes {task_id}, which never was")
            return
        now, owner = self.now(), wish.life
        row = self.row_of(self.fake.tasks[task_id])
        gone = row is not None and row.finished_at is not None
        if sender.credential != owner.credential:
            self.accuse(f"{sender} deletes {wish.message} of another credential")
        elif wish.wanted(now) and not gone:
            self.accuse(f"{sender} deletes {wish.message}, which {owner} wants")
        elif owner.alive and owner is not sender and not gone:
            self.accuse(f"{sender} deletes {wish.message}, which is {owner}'s, and that lives")
        elif wish.handed_over and owner is sender and not (wish.over or wish.late(now)):
            self.accuse(f"{sender} deletes {wish.message}, which it was to hand over")
        elif self.waits(wish, row):
            self.accuse(f"{sender} deletes {wish.message}, which can still be claimed")
        elif wish.let_go and not (wish.over or wish.late(owner.died_at) or owner.draining):
            self.accuse(f"{sender} deletes {wish.message}, which {owner} had abandoned")
        elif row is not None and not gone and row.owner_id != sender.owner_id:
            self.accuse(f"{sender} deletes {wish.message}, the row of which is not its own")

    def deleted(self, sender: Life, task_id: str) -> None:
        """Judge a DELETE as it arrives.

        One that outlived its sender is nobody's any more: it was judged as it was sent.
        """
        wish = self.wish_of(task_id)
        if wish is not None and wish.wanted(self.now()) and sender.alive:
            row = self.row_of(self.fake.tasks[task_id])
            if wish.life is not sender and (row is None or row.finished_at is None):
                self.accuse(f"a DELETE of {sender} reaches {wish.message}, which is wanted")

    # --- rows ---------------------------------------------------------------------------------

    def written(self, writer: Life, write: Write) -> None:
        """Judge a write that the ledger has done."""
        record, expected = write
        before = self.rows.get(record.intent_id)
        self.rows[record.intent_id] = record
        if before is record or before == record:
            return
        if (0 if before is None else before.version) != expected:
            self.accuse(f"{writer} wrote a row over another's: {before} became {record}")
        if record.version <= expected:
            self.accuse(f"{writer} wrote a row of an old version: {record}")
        if record.owner_id != writer.owner_id:
            self.accuse(f"{writer} wrote a row as somebody else: {record}")
        if before is not None and before.owner_id != writer.owner_id:
            self._taken_over(writer, before, record)

    def _taken_over(self, heir: Life, before: Record, after: Record) -> None:
        owner = self.lives[before.owner_id]
        if owner.alive and before.state is not State.HANDED_OVER:
            self.accuse(f"{heir} took a row of {owner}, which lives: {before}")
        if heir.credential != before.credential_fingerprint:
            self.accuse(f"{heir} took a row of another credential: {before}")
        if heir.namespace != before.namespace:
            self.accuse(f"{heir} took a row of another namespace: {before}")
        wish = self._wish_behind(before)
        if before.finished_at is not None:
            self.accuse(f"{heir} took a row that had finished: {before}")
        elif wish is not None and self.waits(wish, before) and before.reason is None:
            self._claimed(heir, wish, after)

    def _wish_behind(self, row: Record) -> Wish | None:
        if row.remote_id is not None:
            return self.wish_of(row.remote_id)
        return next((self.wish_of(task.id) for task in self._made_by(row)), None)

    def _made_by(self, row: Record) -> Iterator[FakeTask]:
        return (t for t in self.fake.tasks.values() if t.env[MARKER] == row.intent_id)

    def _claimed(self, heir: Life, wish: Wish, after: Record) -> None:
        for asked in self.asking:
            if asked.life is heir and asked.key == wish.key:
                for task in self._made_by(after):
                    self._inherit(task.id, asked)
                return
        self.accuse(f"{heir} took {wish.message}, which can still be claimed")

    # --- the end ------------------------------------------------------------------------------

    def orphans(self, groups: set[tuple[str, str]], *, finished: bool = False) -> list[str]:
        """Return what still runs of these credentials and namespaces, and should not.

        :param finished: all have been told to leave, and every row is to have finished.
        """
        now, left = self.now(), list[str]()
        for task_id in self.fake.live:
            wish = self.wish_of(task_id)
            assert wish is not None
            life = wish.life
            if (life.credential, life.namespace) not in groups or wish.wanted(now):
                continue
            row = self.row_of(self.fake.tasks[task_id])
            if row is None:
                self.accuse(f"{wish.message} of {life} has no row")
            elif not finished and (life.alive or self._is_held(row)):
                continue  # by somebody who may be stopped
            elif not wish.let_go or row.state is not State.DETACHED:
                left.append(f"{wish.message} of {life} runs on")
        for row in self.rows.values():
            owner = self.lives[row.owner_id]
            mine = (row.credential_fingerprint, row.namespace) in groups
            if mine and row.finished_at is None and (finished or not owner.alive):
                left.append(f"the row of {owner} is left: {row}")
        return left

    def _is_held(self, row: Record) -> bool:
        return row.finished_at is None and self.lives[row.owner_id].alive
