"""Chunks that were sent and may be lost with their stream: kept to be sent again as they are.

Texts are in memory only, never in the log, and bounded. Rule: router/README.md, "Resuming".
"""

from collections import deque
from dataclasses import dataclass, field

from protocol import limits
from protocol.messages import Chunk, Voucher

LaneKey = tuple[bytes, int]


@dataclass(slots=True)
class _Sent:
    """The last chunks of one lane, in order; `first` is the sequence of the oldest."""

    chunks: deque[Chunk] = field(default_factory=deque)
    size: int = 0


class Resending:
    """What was sent on each lane and is not known to have arrived."""

    def __init__(self) -> None:
        self._lanes: dict[LaneKey, _Sent] = {}
        self._size = 0

    def keep(self, chunk: Chunk) -> None:
        """A chunk is sent; over the bounds the lane's oldest are forgotten."""
        sent = self._lanes.setdefault((chunk.cid, chunk.lane), _Sent())
        sent.chunks.append(chunk)
        self._grow(sent, chunk_bytes(chunk))
        while sent.chunks and (
            sent.size > limits.RESEND_LANE_BYTES_MAX or self._size > limits.RESEND_BYTES_MAX
        ):
            self._drop_oldest(sent)

    def received(self, voucher: Voucher) -> None:
        """The payer states what it has of each lane."""
        for claim in voucher.lanes:
            sent = self._lanes.get((voucher.cid, claim.lane))
            while sent and sent.chunks and sent.chunks[0].sequence <= claim.chunks:
                self._drop_oldest(sent)

    def after(self, cid: bytes, lane: int, chunks: int, last: int) -> list[Chunk] | None:
        """The chunks behind the first `chunks` of a lane up to the `last` one; None when some
        of them are forgotten."""
        sent = self._lanes.get((cid, lane))
        found = [chunk for chunk in sent.chunks if chunk.sequence > chunks] if sent else []
        return found if len(found) == last - chunks else None

    def forget(self, cid: bytes, lane: int) -> None:
        """The lane has ended."""
        sent = self._lanes.pop((cid, lane), None)
        if sent is not None:
            self._size -= sent.size

    def _grow(self, sent: _Sent, size: int) -> None:
        sent.size += size
        self._size += size

    def _drop_oldest(self, sent: _Sent) -> None:
        self._grow(sent, -chunk_bytes(sent.chunks.popleft()))


def chunk_bytes(chunk: Chunk) -> int:
    """About what a chunk takes in memory; at most four bytes a character, and its fields."""
    alternatives = sum(1 + len(token.top) for token in chunk.logprobs)
    return 4 * len(chunk.text) + 512 + 256 * alternatives
