"""Frames: however a stream is cut, the same frames; a bad length ends it at once.

Source: protocol/README.md, "Framing".
"""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import limits
from protocol.errors import LocalError, RemoteError
from protocol.framing import FrameReader, frame

BODIES = st.lists(st.binary(min_size=1, max_size=300), max_size=8)


@given(BODIES, st.data())
def test_frames_do_not_depend_on_the_cuts(bodies: list[bytes], data: st.DataObject) -> None:
    """Any re-cutting of the stream gives the same bodies, and keeps only an unfinished one."""
    stream = b"".join(map(frame, bodies))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    reader = FrameReader()
    found: list[bytes] = []
    for start, end in itertools.pairwise([0, *cuts, len(stream)]):
        found += reader.feed(stream[start:end])
        whole = sum(4 + len(body) for body in found)
        assert reader.pending_bytes == end - whole
    assert found == bodies


def test_the_layout() -> None:
    """u32 big-endian length, then the body."""
    assert frame(b"abc") == b"\0\0\0\3abc"
    assert frame(bytes(70_000))[:4] == b"\x00\x01\x11\x70"


@pytest.mark.parametrize("length", [101, 2**31, 2**32 - 1])
def test_an_oversized_header_is_refused_at_once(length: int) -> None:
    """With the fourth byte of the header, before any byte of the body."""
    header = length.to_bytes(4, "big")
    reader = FrameReader(bytes_max=100)
    assert reader.feed(header[:3]) == []
    with pytest.raises(RemoteError, match=r"wire\.oversized") as caught:
        reader.feed(header[3:])
    assert caught.value.penalize


def test_an_empty_frame_is_malformed() -> None:
    """No message is empty, and a stream of empty frames would cost nothing to send."""
    with pytest.raises(RemoteError, match=r"wire\.malformed"):
        FrameReader().feed(bytes(4))


def test_a_broken_stream_stays_broken() -> None:
    """Whatever follows a bad header, no frame comes out: there is no way to find the next."""
    reader = FrameReader(bytes_max=100)
    for data in (b"\xff\xff\xff\xff", frame(b"good"), b""):
        with pytest.raises(RemoteError, match=r"wire\.oversized"):
            reader.feed(data)


def test_the_limits_are_inclusive() -> None:
    """A frame of exactly the limit passes; the reader's own default is FRAME_BYTES_MAX."""
    body = bytes(limits.FRAME_BYTES_MAX)
    assert FrameReader().feed(frame(body)) == [body]
    with pytest.raises(RemoteError, match=r"wire\.oversized"):
        FrameReader().feed((limits.FRAME_BYTES_MAX + 1).to_bytes(4, "big"))


@pytest.mark.parametrize("body", [b"", bytes(limits.FRAME_BYTES_MAX + 1)], ids=["empty", "long"])
def test_what_no_reader_takes_is_not_framed(body: bytes) -> None:
    """Our own mistake is ours: LocalError."""
    with pytest.raises(LocalError, match=r"wire\.unencodable"):
        frame(body)
