"""A crash at any point, again and again: what was durable is there, in order.

Source: protocol/log.py and peer/journal.py.
"""

import errno

import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from protocol.errors import StorageError
from protocol.log import LogEntry
from simnet.disk import VirtualDisk
from tests.peer.journal_support import open_journal


class JournalCrashes(RuleBasedStateMachine):
    """Append, commit, fail and crash in any order: what was durable is there, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.disk = VirtualDisk()
        self.durable: list[bytes] = []
        self.appended: list[bytes] = []
        self.poisoned = False
        self.journal = open_journal(self.disk, segment_bytes_max=600)

    @precondition(lambda self: not self.poisoned)
    @rule(payloads=st.lists(st.binary(max_size=200), min_size=1, max_size=8))
    def append(self, payloads: list[bytes]) -> None:
        for payload in payloads:
            self.journal.append_nowait(3, payload)
            self.appended.append(payload)

    @precondition(lambda self: not self.poisoned)
    @rule()
    def commit(self) -> None:
        trio.run(self._commit)
        self.durable = list(self.appended)

    async def _commit(self) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.journal.run)
            await self.journal.wait_durable(len(self.appended) - 1)
            nursery.cancel_scope.cancel()

    @precondition(lambda self: not self.poisoned and len(self.appended) > len(self.durable))
    @rule(operation=st.sampled_from(["pwrite", "fdatasync", "space"]), after=st.integers(0, 3))
    def fail_in_commit(self, operation: str, after: int) -> None:
        left = after

        def fail() -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise OSError(errno.EIO, "injected")

        if operation == "space":
            self.disk.space_bytes = after * 60
        else:
            self.disk.on[operation] = fail
        try:
            trio.run(self._commit)
        except* StorageError:
            self.poisoned = True
        self.disk.space_bytes = 1 << 40
        self.disk.on.clear()
        if not self.poisoned:
            self.durable = list(self.appended)

    @rule(keep_bytes=st.integers(0, 700))
    def crash(self, keep_bytes: int) -> None:
        self.disk = self.disk.crash(keep_bytes)
        entries: list[LogEntry] = []
        self.journal = open_journal(self.disk, entries=entries, segment_bytes_max=600)
        found = [entry.payload for entry in entries]
        assert found[: len(self.durable)] == self.durable
        assert found == self.appended[: len(found)]
        self.durable, self.appended, self.poisoned = found, list(found), False

    @rule()
    def close_and_reopen(self) -> None:
        self.journal.close()
        if not self.poisoned:
            self.durable = list(self.appended)
        self.crash(0)

    @invariant()
    def durable_is_what_was_reported(self) -> None:
        assert self.journal.durable_sequence >= len(self.durable) - 1


JournalCrashes.TestCase.settings = settings(deadline=None)
TestJournalCrashes = JournalCrashes.TestCase
