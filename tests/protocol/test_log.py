"""The log's format: what was written is read back, and damage is never taken for data.

Source: protocol/log.py; golden bytes in tests/vectors/log.json.
"""

import json
from pathlib import Path

import pytest
from crc32c import crc32c
from hypothesis import assume, given
from hypothesis import strategies as st

from protocol import limits
from protocol.errors import LocalError, StorageError
from protocol.log import (
    FRAME_OVERHEAD_BYTES,
    HEADER_BYTES,
    LogEntry,
    LogReplay,
    LogWriterState,
    ScanOutcome,
    SegmentHeader,
    decode_header,
    encode_header,
    find_later_frame,
    genesis_head,
)

NETWORK = "test"
OWNER = bytes(range(32))
VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "log.json").read_text())

Records = list[tuple[int, bytes]]
records_lists = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=400)), max_size=12)
RECORDS: Records = [(1, b"open"), (2, b""), (255, b"\0" * 60), (0, b"voucher" * 9), (7, b"end")]


def make_header(**changes: object) -> bytes:
    fields: dict[str, object] = {
        "network": NETWORK,
        "owner": OWNER,
        "segment": 0,
        "first_sequence": 0,
        "previous_head": genesis_head(NETWORK, OWNER),
    }
    return encode_header(SegmentHeader(**{**fields, **changes}))  # type: ignore[arg-type]


def make_frames(records: Records) -> list[bytes]:
    state = LogWriterState(0, genesis_head(NETWORK, OWNER))
    return [state.append(type_, payload) for type_, payload in records]


def make_segment(records: Records) -> bytes:
    return make_header() + b"".join(make_frames(records))


def replayed(data: bytes, *, is_last: bool = True) -> tuple[list[LogEntry], LogReplay]:
    replay = LogReplay(NETWORK, OWNER)
    return list(replay.scan(data, is_last=is_last)), replay


def plain(entries: list[LogEntry]) -> Records:
    assert [entry.sequence for entry in entries] == list(range(len(entries)))
    return [(entry.type, entry.payload) for entry in entries]


def with_checksum(frame: bytes) -> bytes:
    """The frame with its checksum made right again, after something in it was changed."""
    checksum: int = crc32c(frame[8:])
    return frame[:4] + checksum.to_bytes(4, "little") + frame[8:]


@given(records_lists)
def test_what_is_appended_is_what_is_replayed(records: Records) -> None:
    data = make_segment(records)
    entries, replay = replayed(data)
    assert plain(entries) == records
    assert replay.outcome is ScanOutcome.CLEAN
    assert (replay.sequence, replay.offset) == (len(records), len(data))
    assert replay.head == (entries[-1].chain if entries else genesis_head(NETWORK, OWNER))


@given(records_lists, records_lists, st.booleans())
def test_a_second_segment_continues_the_first(
    first: Records, second: Records, known: bool
) -> None:
    frames = make_frames(first + second)
    entries, replay = replayed(make_header() + b"".join(frames[: len(first)]), is_last=False)
    header = make_header(segment=1, first_sequence=len(first), previous_head=replay.head)
    if not known:  # the reader that takes the owner from the first header finds the same
        replay = LogReplay()
        entries = list(replay.scan(make_segment(first), is_last=False))
    entries += replay.scan(header + b"".join(frames[len(first) :]), is_last=True)
    assert plain(entries) == first + second
    assert replay.outcome is ScanOutcome.CLEAN


def test_every_truncation_keeps_exactly_the_complete_records() -> None:
    frames = make_frames(RECORDS)
    data = make_header() + b"".join(frames)
    ends = [HEADER_BYTES + sum(map(len, frames[:count])) for count in range(len(frames) + 1)]
    for cut in range(len(data) + 1):
        entries, replay = replayed(data[:cut])
        complete = sum(end <= cut for end in ends[1:])
        assert plain(entries) == RECORDS[:complete], cut
        good = ends[complete] if cut >= HEADER_BYTES else 0
        assert replay.offset == good, cut
        expected = ScanOutcome.CLEAN if cut in ends else ScanOutcome.TORN
        assert replay.outcome is expected, cut


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_every_flipped_byte_is_found(mask: int) -> None:
    """Corrupt while a record follows; in the last record it can only look like a torn write."""
    frames = make_frames(RECORDS)
    data = make_header() + b"".join(frames)
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= mask
        entries, replay = replayed(bytes(flipped))
        good, end = 0, HEADER_BYTES
        while place >= end and good < len(frames):
            end += len(frames[good])
            good += 1
        good -= place >= HEADER_BYTES
        assert plain(entries) == RECORDS[:good], place
        in_last = place >= len(data) - len(frames[-1])
        assert replay.outcome is (ScanOutcome.TORN if in_last else ScanOutcome.CORRUPT), place


@given(records_lists.filter(len), st.data())
def test_bytes_lost_from_the_middle_are_corruption(records: Records, data: st.DataObject) -> None:
    frames = [*make_frames([*records, (9, b"survivor")])]
    lost = data.draw(st.integers(1, len(frames[0])))
    bad = frames[0][:-lost]
    # What follows may happen to begin with the very bytes that were lost.
    assume(not (bad + b"".join(frames[1:])).startswith(frames[0]))
    entries, replay = replayed(make_header() + bad + b"".join(frames[1:]))
    assert entries == []
    assert replay.outcome is ScanOutcome.CORRUPT


def test_a_repeated_or_missing_record_with_a_right_checksum_is_corruption() -> None:
    frames = make_frames(RECORDS)
    for order in ([0, 0, 1], [0, 2, 3], [1, 2], [0, 1, 3]):
        entries, replay = replayed(make_header() + b"".join(frames[index] for index in order))
        assert replay.outcome is ScanOutcome.CORRUPT, order
        assert "belongs" in replay.detail
        assert len(entries) == sum(place == index for place, index in enumerate(order))


@pytest.mark.parametrize("place", [16, 17, -1, -32])
def test_a_changed_last_record_with_a_right_checksum_breaks_the_chain(place: int) -> None:
    frames = make_frames(RECORDS)
    changed = bytearray(frames[-1])
    changed[place] ^= 1
    data = make_header() + b"".join(frames[:-1]) + with_checksum(bytes(changed))
    entries, replay = replayed(data)
    assert plain(entries) == RECORDS[:-1]
    assert replay.outcome is ScanOutcome.CORRUPT
    assert "chain" in replay.detail


@given(records_lists.filter(len), st.data())
def test_the_head_depends_on_every_record_and_their_order(
    records: Records, data: st.DataObject
) -> None:
    def head(of: Records) -> bytes:
        state = LogWriterState(0, genesis_head(NETWORK, OWNER))
        for type_, payload in of:
            state.append(type_, payload)
        return state.head

    at = data.draw(st.integers(0, len(records) - 1))
    type_, payload = records[at]
    variants = [
        [*records[:at], (type_ ^ 1, payload), *records[at + 1 :]],
        [*records[:at], (type_, payload + b"\0"), *records[at + 1 :]],
        [*records[:at], *records[at + 1 :]],
    ]
    if records[::-1] != records:
        variants.append(records[::-1])
    assert head(records) not in [head(variant) for variant in variants]


def test_the_same_records_of_two_nodes_have_different_heads() -> None:
    heads = {genesis_head("a", OWNER), genesis_head("b", OWNER), genesis_head("a", bytes(32))}
    assert len(heads) == 3


def test_another_nodes_log_is_refused() -> None:
    for change in ({"owner": bytes(32)}, {"network": "other"}):
        with pytest.raises(StorageError) as caught:
            replayed(make_header(**change))
        assert caught.value.code == "storage.foreign"


@pytest.mark.parametrize(
    "change", [{"segment": 1}, {"first_sequence": 1}, {"previous_head": bytes(32)}]
)
def test_a_header_that_does_not_continue_the_log_is_corruption(change: dict[str, object]) -> None:
    entries, replay = replayed(make_header(**change) + b"".join(make_frames(RECORDS)))
    assert entries == []
    assert replay.outcome is ScanOutcome.CORRUPT
    assert replay.offset == 0


def test_a_newer_version_is_told_apart_from_damage() -> None:
    packed = make_header()[:-4]
    newer = packed[:8] + b"\x02\0" + packed[10:]
    with pytest.raises(StorageError) as caught:
        decode_header(newer + crc32c(newer).to_bytes(4, "little"))
    assert caught.value.code == "storage.version"


@pytest.mark.parametrize("network", [b"x\0y", b"\xff\xfe"])
def test_a_header_has_one_encoding(network: bytes) -> None:
    packed = bytearray(make_header()[:-4])
    packed[-64:] = network.ljust(64, b"\0")
    packed[10:12] = len(network).to_bytes(2, "little") if network[0] != 120 else b"\1\0"
    assert decode_header(bytes(packed) + crc32c(bytes(packed)).to_bytes(4, "little")) is None


def test_only_the_last_segment_can_be_torn() -> None:
    data = make_segment(RECORDS)
    for cut in (10, HEADER_BYTES + 5, len(data) - 1):
        entries, replay = replayed(data[:cut], is_last=False)
        assert replay.outcome is ScanOutcome.CORRUPT, cut
        assert len(entries) < len(RECORDS)


@given(st.binary(max_size=2_000), st.integers(0, 3_000))
def test_noise_and_zeros_behind_the_log_are_a_torn_tail(noise: bytes, zeros: int) -> None:
    data = make_segment(RECORDS)
    for tail in (noise + bytes(zeros), bytes(zeros) + noise):
        entries, replay = replayed(data + tail)
        assert plain(entries) == RECORDS
        assert replay.outcome is (ScanOutcome.TORN if tail else ScanOutcome.CLEAN)
        assert replay.offset == len(data)


@pytest.mark.parametrize("first", [0, 65_534, 65_535, 65_536, 2**32 - 1, 2**48])
@pytest.mark.parametrize("skipped", [0, 1, 5, 70_000])
def test_a_later_record_is_found_wherever_it_lies(first: int, skipped: int) -> None:
    frame = LogWriterState(first + skipped, bytes(32)).append(3, b"x" * 100)
    for gap in (0, 1, 48, 4_096):
        assert find_later_frame(b"\xaa" * gap + frame, 0, first) is not None
        assert find_later_frame(bytes(gap) + frame + bytes(9), 0, first) is not None
        assert find_later_frame(b"\xaa" * gap + frame[:-1], 0, first) is None


def test_a_record_before_the_expected_one_is_no_later_record() -> None:
    frame = LogWriterState(6, bytes(32)).append(3, b"x")
    assert find_later_frame(frame, 0, 6) is not None
    assert find_later_frame(frame, 0, 7) is None


def test_the_search_is_bounded_and_gives_up_on_the_safe_side(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "LOG_SEARCH_CANDIDATES_MAX", 100)
    decoy = (512).to_bytes(4, "little") + b"\1\1\1\1" + b"\1\1".ljust(8, b"\0")
    decoy += b"\xff" * 33
    assert find_later_frame(decoy * 100, 0, 0) is None
    assert find_later_frame(decoy * 101, 0, 0) is not None


@pytest.mark.parametrize(
    ("type_", "payload"),
    [(256, b""), (-1, b""), (1, bytes(limits.RECORD_BYTES_MAX + 1))],
)
def test_a_record_out_of_range_is_refused_and_changes_nothing(type_: int, payload: bytes) -> None:
    state = LogWriterState(4, bytes(32))
    with pytest.raises(LocalError) as caught:
        state.append(type_, payload)
    assert caught.value.code == "storage.bad_record"
    assert (state.next_sequence, state.head) == (4, bytes(32))


def test_the_longest_record_is_read_back_and_a_longer_one_is_damage() -> None:
    records = [(1, bytes(limits.RECORD_BYTES_MAX))]
    data = make_segment(records)
    assert plain(replayed(data)[0]) == records
    frame = data[HEADER_BYTES:]
    longer = (limits.RECORD_BYTES_MAX + 1).to_bytes(4, "little") + frame[4:17] + b"\0" + frame[17:]
    entries, replay = replayed(data[:HEADER_BYTES] + with_checksum(longer))
    assert (entries, replay.outcome) == ([], ScanOutcome.TORN)


@pytest.mark.parametrize("change", [{"network": ""}, {"network": "n" * 65}, {"owner": b"short"}])
def test_a_header_out_of_range_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(LocalError) as caught:
        make_header(**change)
    assert caught.value.code == "storage.bad_record"


def test_golden_vector() -> None:
    network, owner = VECTORS["network"], bytes.fromhex(VECTORS["owner"])
    head = genesis_head(network, owner)
    assert head.hex() == VECTORS["genesis_head"]
    state, replay, data = LogWriterState(0, head), LogReplay(network, owner), b""
    for index, segment in enumerate(VECTORS["segments"]):
        first = state.next_sequence
        data = encode_header(SegmentHeader(network, owner, index, first, state.head))
        assert data.hex() == segment["header"]
        for record in segment["records"]:
            frame = state.append(record["type"], bytes.fromhex(record["payload"]))
            assert frame.hex() == record["frame"]
            assert state.head.hex() == record["head"]
            data += frame
        last = index == len(VECTORS["segments"]) - 1
        entries = list(replay.scan(data, is_last=last))
        assert [entry.payload.hex() for entry in entries] == [
            record["payload"] for record in segment["records"]
        ]
        assert replay.outcome is ScanOutcome.CLEAN
    assert replay.head.hex() == VECTORS["segments"][-1]["records"][-1]["head"]


def test_golden_vector_by_hand() -> None:
    """The layout, spelled out from the document rather than with the code's own structs."""
    record = VECTORS["segments"][0]["records"][0]
    frame, payload = bytes.fromhex(record["frame"]), bytes.fromhex(record["payload"])
    assert len(frame) == FRAME_OVERHEAD_BYTES + len(payload)
    assert frame[:4] == len(payload).to_bytes(4, "little")
    assert frame[4:8] == crc32c(frame[8:]).to_bytes(4, "little")
    assert frame[8:17] == (0).to_bytes(8, "little") + bytes([record["type"]])
    assert frame[17:] == payload + bytes.fromhex(record["head"])
    header = bytes.fromhex(VECTORS["segments"][1]["header"])
    assert header[:24] == (
        b"peerdlog" + b"\1\0" + b"\5\0" + b"\1\0\0\0" + (3).to_bytes(8, "little")
    )
    assert header[24:56].hex() == VECTORS["owner"]
    assert header[56:88].hex() == VECTORS["segments"][0]["records"][-1]["head"]
    assert header[88:152] == b"peerd".ljust(64, b"\0")
    assert header[152:] == crc32c(header[:152]).to_bytes(4, "little")
