"""The log's fold: the ledger that its records make, exactly, and where the log ends.

The live ledger runs ahead of it, with what was sent and received and not yet logged; this one
is what a replay gives, so that snapshots say what the records do. Replays whole logs and those
that begin with a snapshot. Has no disk. Rule: protocol/README.md, "Snapshots".
"""

from typing import Any, Final

from protocol import records, signing
from protocol.crypto import Verify, verify
from protocol.errors import StorageError
from protocol.fields import SignedHead
from protocol.log import LogEntry, LogWriterState, genesis_head
from router.ledger import Ledger
from router.snapshot import restore, snapshot_parts

_INSIDE: Final = tuple(records.NUMBERS[c] for c in (records.SnapshotPart, records.SnapshotSigned))


class Fold:
    """What a log says up to its end. With `check`, each snapshot is compared to the records
    before it; else only its signature is looked at.

    `snapshot_at` is the record at which the last snapshot began, `began_at` that of the one
    from which this fold began; None where there is none. `heads` counts the signed ones, and
    the last of them covers all records up to `signed_to`.
    """

    def __init__(
        self, network: str, owner: bytes, *, check: bool = False, verify: Verify = verify
    ) -> None:
        self.ledger = Ledger(network, owner)
        self.end = LogWriterState(0, genesis_head(network, owner))
        self.began_at: int | None = None
        self.snapshot_at: int | None = None
        self.heads = 0
        self._check = check
        self._verify = verify
        self.signed_to = -1
        self._is_first = True
        self._begun: int | None = None
        self._count = 0
        self._parts: list[bytes] = []
        self._restoring = False
        self._expected: list[bytes] | None = None

    def add(self, record: Any, number: int, payload: bytes) -> None:
        """A record that this node appends now."""
        self._is_first = False
        if isinstance(record, records.SnapshotBegun):
            self.snapshot_at = self.end.next_sequence
        self.ledger.apply(record)
        self.end.advance(number, payload)

    def replay(self, number: int, payload: bytes) -> None:
        """A record of a log that has no frames, as the simulator's; errors as `take`."""
        before = self.end.head
        sequence = self.end.next_sequence
        self.end.advance(number, payload)
        self._take(sequence, before, number, payload)

    def take(self, entry: LogEntry) -> None:
        """The next entry of a log. StorageError `storage.corrupt`, `storage.bad_head`,
        `storage.bad_snapshot`, `storage.version`."""
        before = self.end.head
        self.end.next_sequence, self.end.head = entry.sequence + 1, entry.chain
        self._take(entry.sequence, before, entry.type, entry.payload)

    def live(self) -> Ledger:
        """A ledger of its own that starts where the log ends, with no peer connected."""
        ledger = Ledger(self.ledger.network, self.ledger.owner)
        restore(ledger, snapshot_parts(self.ledger))
        ledger.finish_replay()
        return ledger

    def _take(self, sequence: int, before: bytes, number: int, payload: bytes) -> None:
        if self._restoring and number not in _INSIDE:
            raise StorageError("storage.bad_snapshot", f"it is broken off at {sequence}")
        record = self.ledger.replay(number, payload)
        is_first, self._is_first = self._is_first, False
        match record:
            case records.HeadSigned():
                self._check_head(sequence, before, record.head)
            case records.SnapshotBegun():
                self._begin(sequence, record.parts, is_first)
                return
            case records.SnapshotPart():
                self._parts.append(record.state)
            case records.SnapshotSigned():
                self._check_head(sequence, before, record.head)
                self._complete(sequence, record.head)
        if is_first and sequence:
            raise StorageError("storage.corrupt", f"the log begins at record {sequence}")

    def _begin(self, sequence: int, parts: int, is_first: bool) -> None:
        self._begun, self._count, self._parts = sequence, parts, []
        self._restoring = is_first
        if self._check and not is_first:
            self._expected = list(snapshot_parts(self.ledger))

    def _complete(self, sequence: int, head: SignedHead) -> None:
        begun, parts, expected = self._begun, self._parts, self._expected
        if begun is None or self._count != len(parts) or sequence != begun + len(parts) + 1:
            raise StorageError("storage.bad_snapshot", f"the one at {sequence} is incomplete")
        if expected is not None and expected != parts:
            detail = f"the one at {begun} is not what the records before it make"
            raise StorageError("storage.bad_snapshot", detail)
        if self._restoring:
            self.ledger.heads.own.clear()
            restore(self.ledger, parts)
            self.ledger.heads.signed(head)
            self.began_at = begun
        self.snapshot_at = begun
        self._begun, self._parts, self._expected, self._restoring = None, [], None, False

    def _check_head(self, sequence: int, before: bytes, head: SignedHead) -> None:
        ledger = self.ledger
        check_head(ledger.network, ledger.owner, sequence, before, head, self._verify)
        self.heads += 1
        self.signed_to = head.sequence


def check_head(
    network: str, owner: bytes, sequence: int, before: bytes, head: SignedHead, verify: Verify
) -> None:
    """Record `sequence` of a log must sign the record before it, whose chain is `before`, by its
    owner's key. StorageError `storage.bad_head`."""
    signed = signing.head_bytes(network, owner, head.sequence, head.head)
    if (head.sequence, head.head) != (sequence - 1, before):
        raise StorageError("storage.bad_head", f"record {sequence} signs another log")
    if not verify(owner, signed, head.signature):
        raise StorageError("storage.bad_head", f"record {sequence}")
