"""The append-only log's bytes: segment header, frame, hash chain, and the replay of them.

Pure: knows no file, clock, task or logger, and not what a record means. The daemon's journal
and the simulator's disks both run it. All integers are little-endian.

    header  8s magic ‖ u16 version ‖ u16 network length ‖ u32 segment ‖ u64 first sequence
            ‖ 32s owner ‖ 32s previous head ‖ 64s network, zero padded ‖ u32 crc32c of the rest
    frame   u32 payload length ‖ u32 crc32c ‖ u64 sequence ‖ u8 type ‖ payload ‖ 32s chain
            crc32c is over all that follows it; body = sequence ‖ type ‖ payload
            chain = blake2b-256(body, key = previous chain)

The chain before the first record is `genesis_head(network, owner)`, so the same records in two
nodes' logs have different heads. This page is the rule; vectors are in
tests/vectors/log.json.

What replay makes of damage, by the only evidence that a log has of itself:

- a good frame follows the bad one: **corrupt**. A durable record was lost, or the pages of the
  last commit reached the disk out of order: the log can't tell which, so nothing is guessed;
- nothing good follows, in the last segment: **torn**, an incomplete last write. A flipped bit
  in the very last record looks the same, and no reader can tell; a signed head can;
- a good checksum with the wrong sequence or chain: **corrupt**, wherever it is.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from struct import Struct
from typing import Final, NamedTuple

from crc32c import crc32c

from protocol import limits
from protocol.errors import LocalError, StorageError

# The types that the log itself knows: a snapshot begins a segment, and a replay may begin there.
SNAPSHOT_TYPE: Final = 21
SNAPSHOT_PART_TYPE: Final = 22
SNAPSHOT_END_TYPE: Final = 23
FRAME_TYPE_AT: Final = 16  # the place of the type in a frame
MAGIC: Final = b"peerdlog"
VERSION: Final = 1
HEAD_BYTES: Final = 32

_HEADER: Final = Struct("<8sHHIQ32s32s64s")
_CRC: Final = Struct("<I")
_FRAME: Final = Struct("<IIQB")
_PREFIX: Final = Struct("<II")
_BODY: Final = Struct("<QB")

HEADER_BYTES: Final = _HEADER.size + _CRC.size
FRAME_OVERHEAD_BYTES: Final = _FRAME.size + HEAD_BYTES


class LogEntry(NamedTuple):
    """One record: its place, its kind, its bytes, and the head of the log up to and with it."""

    sequence: int
    type: int
    payload: bytes
    chain: bytes


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """What the first bytes of a segment say: whose log it is and where this part begins."""

    network: str
    owner: bytes
    segment: int
    first_sequence: int
    previous_head: bytes


def genesis_head(network: str, owner: bytes) -> bytes:
    """The head of an empty log: 32 bytes that are different for every node and network."""
    name = network.encode()
    return blake2b(name + b"\0" + owner, digest_size=HEAD_BYTES, person=b"peerd/log/1").digest()


def encode_header(header: SegmentHeader) -> bytes:
    """The HEADER_BYTES that start a segment; LocalError "storage.bad_record" out of range."""
    name = header.network.encode()
    if not 0 < len(name) <= limits.LOG_NETWORK_BYTES_MAX or b"\0" in name:
        raise LocalError("storage.bad_record", f"network name of {len(name)} bytes")
    if len(header.owner) != 32 or len(header.previous_head) != HEAD_BYTES:
        raise LocalError("storage.bad_record", "owner and head are 32 bytes each")
    packed = _HEADER.pack(
        MAGIC,
        VERSION,
        len(name),
        header.segment,
        header.first_sequence,
        header.owner,
        header.previous_head,
        name,
    )
    return packed + _CRC.pack(crc32c(packed))


def decode_header(data: bytes) -> SegmentHeader | None:
    """The header at the start of `data`, or None where it is incomplete or damaged.

    StorageError "storage.version" for an undamaged header of another version: later versions
    keep this layout's length, magic, version and checksum, so that they can be told apart.
    """
    if len(data) < HEADER_BYTES:
        return None
    packed = data[: _HEADER.size]
    if _CRC.unpack_from(data, _HEADER.size)[0] != crc32c(packed) or packed[:8] != MAGIC:
        return None
    _, version, length, segment, first, owner, previous, name = _HEADER.unpack(packed)
    if version != VERSION:
        raise StorageError("storage.version", f"log version {version}, this is {VERSION}")
    try:
        network = name[:length].decode()
    except UnicodeDecodeError:
        return None
    header = SegmentHeader(network, owner, segment, first, previous)
    # One encoding only: a header whose length and padding disagree is not one of ours.
    return header if name == network.encode().ljust(len(name), b"\0") else None


class LogWriterState:
    """The encoder: the next sequence and the head, and nothing of where the bytes go."""

    __slots__ = ("head", "next_sequence")

    def __init__(self, next_sequence: int, head: bytes) -> None:
        self.next_sequence = next_sequence
        self.head = head

    def advance(self, type: int, payload: bytes) -> None:
        """As `append`, where nobody wants the frame."""
        body = _BODY.pack(self.next_sequence, type) + payload
        self.head = blake2b(body, digest_size=HEAD_BYTES, key=self.head).digest()
        self.next_sequence += 1

    def append(self, type: int, payload: bytes) -> bytes:
        """The frame of the next record; type is 0..255, payload at most RECORD_BYTES_MAX.

        LocalError "storage.bad_record" outside of these, with nothing changed.
        """
        length = len(payload)
        if length > limits.RECORD_BYTES_MAX or not 0 <= type <= 255:
            raise LocalError("storage.bad_record", f"type {type}, {length} bytes")
        body = _BODY.pack(self.next_sequence, type) + payload
        chain = blake2b(body, digest_size=HEAD_BYTES, key=self.head).digest()
        rest = body + chain
        self.next_sequence += 1
        self.head = chain
        return _PREFIX.pack(length, crc32c(rest)) + rest


class ScanOutcome(Enum):
    """How the reading of a segment ended."""

    CLEAN = "clean"
    TORN = "torn_tail"
    CORRUPT = "corrupt"


class LogReplay:
    """Reads a log segment by segment, in order; afterwards says how far it was good, and why.

    `sequence` and `head` are those of the next record, `first_sequence` and `begun_head` those
    before the first that was read; `offset` is where the good bytes of the
    segment read last end. With `network` and `owner` given, another's log is refused; without,
    the first segment's header says whose log it is.
    """

    def __init__(self, network: str | None = None, owner: bytes | None = None) -> None:
        self.network = network
        self.owner = owner
        self.segment = 0
        self.sequence = 0
        self.first_sequence = 0
        self.head = self.begun_head = b""
        self._begins = False
        if network is not None and owner is not None:
            self.head = genesis_head(network, owner)
        self.offset = 0
        self.outcome = ScanOutcome.CLEAN
        self.detail = ""

    def begin_at(self, segment: int) -> None:
        """Starts with a later segment than the first, and takes its header's word for what was
        before; the chain from there on is checked."""
        self.segment, self._begins = segment, True

    def scan(self, data: bytes, *, is_last: bool) -> Iterator[LogEntry]:
        """The entries of the next segment; exhaust it before the attributes are looked at.

        Only the last segment can be torn: each later one was begun when all before it was
        durable. StorageError "storage.foreign" or "storage.version" by its header.
        """
        assert self.outcome is ScanOutcome.CLEAN, "damage ends a replay"
        self.offset = 0
        header = decode_header(data)
        if header is None:
            self._end(data, is_last, "the segment's header is incomplete or damaged")
            return
        if not self._accept(header):
            return
        sequence, head, offset, end = self.sequence, self.head, HEADER_BYTES, len(data)
        unpack = _FRAME.unpack_from
        problem = ""
        while offset + FRAME_OVERHEAD_BYTES <= end:
            length, crc, found, type_ = unpack(data, offset)
            stop = offset + FRAME_OVERHEAD_BYTES + length
            if length > limits.RECORD_BYTES_MAX or stop > end:
                break
            body = data[offset + 8 : stop - HEAD_BYTES]
            chain = data[stop - HEAD_BYTES : stop]
            if crc32c(chain, crc32c(body)) != crc:
                break
            if found != sequence:
                problem = f"record {found} stands where {sequence} belongs"
                break
            if blake2b(body, digest_size=HEAD_BYTES, key=head).digest() != chain:
                problem = f"record {found} does not continue the hash chain"
                break
            yield LogEntry(sequence, type_, body[9:], chain)
            sequence, head, offset = sequence + 1, chain, stop
        self.sequence, self.head, self.offset = sequence, head, offset
        self.segment += 1
        if problem:
            self._fail(problem)
        elif offset < end:
            self._end(data, is_last, f"record {sequence} is incomplete or damaged")

    def _accept(self, header: SegmentHeader) -> bool:
        """Whether the header continues this log; StorageError "storage.foreign" if another's."""
        if self.network is None or self.owner is None:
            self.network, self.owner = header.network, header.owner
            self.head = genesis_head(header.network, header.owner)
        if (header.network, header.owner) != (self.network, self.owner):
            whose = f"node {header.owner.hex()[:16]} on network {header.network!r}"
            raise StorageError("storage.foreign", f"written by {whose}")
        if header.segment != self.segment:
            return self._fail(f"it is segment {header.segment} by its header")
        if self._begins:
            self.sequence = self.first_sequence = header.first_sequence
            self.head, self._begins = header.previous_head, False
        if header.first_sequence != self.sequence:
            return self._fail(f"it begins at record {header.first_sequence}, not {self.sequence}")
        self.begun_head = self.begun_head or header.previous_head
        if header.previous_head != self.head:
            return self._fail("it does not continue the hash chain of the segment before")
        return True

    def _end(self, data: bytes, is_last: bool, problem: str) -> None:
        """Decides between a torn tail and corruption for the bad bytes at `offset`."""
        if not is_last:
            self._fail(f"{problem}, and a later segment exists")
            return
        later = find_later_frame(data, self.offset + 1, self.sequence)
        if later is not None:
            self._fail(f"{problem}, and {later} follows")
            return
        self.outcome, self.detail = ScanOutcome.TORN, problem

    def _fail(self, problem: str) -> bool:
        self.outcome, self.detail = ScanOutcome.CORRUPT, problem
        return False


def find_later_frame(data: bytes, start: int, expected: int) -> str | None:
    """Says which good frame of this log lies at or after `start`, or None: the tail is torn.

    A good frame has a legal length, a sequence that this log could have reached within one
    segment from `expected`, and the right checksum. Its chain can't be checked, as the one
    before it is lost. The cost is bounded: where more places than LOG_SEARCH_CANDIDATES_MAX
    look like a frame, it can't be shown that none is, and that counts as one.
    """
    highest = expected + limits.SEGMENT_BYTES_MAX // FRAME_OVERHEAD_BYTES
    tops = b"|".join(
        re.escape(top.to_bytes(6, "little")) for top in range(expected >> 16, (highest >> 16) + 1)
    )
    # Length below 2^17, checksum not zero (which skips zero-filled pages at the speed of the
    # pattern engine), then a sequence whose upper six bytes are plausible.
    shape = re.compile(rb"(?s)(?=..[\x00\x01]\x00(?!\x00{4})......(?:" + tops + rb"))")
    view = memoryview(data)
    for candidate, match in enumerate(shape.finditer(data, start)):
        if candidate >= limits.LOG_SEARCH_CANDIDATES_MAX:
            return "more of what looks like records than is searched"
        offset = match.start()
        if offset + FRAME_OVERHEAD_BYTES > len(data):
            return None
        length, crc, found, _ = _FRAME.unpack_from(data, offset)
        stop = offset + FRAME_OVERHEAD_BYTES + length
        if length > limits.RECORD_BYTES_MAX or stop > len(data):
            continue
        if expected <= found <= highest and crc32c(view[offset + 8 : stop]) == crc:
            return f"an undamaged record {found} at offset {offset}"
    return None
