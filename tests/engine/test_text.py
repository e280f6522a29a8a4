"""Text from tokens' bytes: whole characters, stop strings, counts that follow the text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.text import TextStream


def play(pieces: list[bytes], stop: tuple[str, ...] = ()) -> tuple[str, int, TextStream]:
    stream = TextStream(stop)
    text, count = "", 0
    for piece in pieces:
        more, tokens = stream.push(piece)
        text, count = text + more, count + tokens
        if stream.stopped:
            return text, count, stream
    more, tokens = stream.flush()
    return text + more, count + tokens, stream


def test_a_character_waits_for_its_last_byte():
    stream = TextStream(())
    snowman = "☃".encode()
    assert stream.push(b"a" + snowman[:1]) == ("a", 1)
    assert stream.push(snowman[1:2]) == ("", 0)
    assert stream.push(snowman[2:]) == ("☃", 2)


def test_a_token_without_text_counts_with_the_next():
    stream = TextStream(())
    assert stream.push(b"") == ("", 0)
    assert stream.push(b"x") == ("x", 2)


def test_bytes_that_are_no_text_become_replacement_characters():
    assert play([b"a\xff", b"b"])[0] == "a\ufffdb"


def test_an_unfinished_character_at_the_end_is_dropped_and_counted():
    text, count, _ = play([b"a", "☃".encode()[:2]])
    assert (text, count) == ("a", 2)


def test_what_may_begin_a_stop_string_is_held_back():
    stream = TextStream(("END",))
    assert stream.push(b"xE") == ("x", 1)
    assert stream.push(b"N") == ("", 0)
    assert stream.push(b"x") == ("ENx", 2)


def test_held_back_text_comes_out_at_the_end():
    assert play([b"xEN"], ("END",))[:2] == ("xEN", 1)


def test_the_earliest_stop_string_cuts():
    text, count, stream = play([b"one tw", b"o three"], ("three", "two"))
    assert (text, count, stream.stopped) == ("one ", 2, True)
    assert stream.flush() == ("", 0)


@pytest.mark.parametrize("size", [1, 2, 3, 50])
def test_a_stop_string_is_found_however_the_tokens_cut_it(size):
    raw = "aabaabaac and more é".encode()
    pieces = [raw[at : at + size] for at in range(0, len(raw), size)]
    text, _, stream = play(pieces, ("aabaac",))
    assert (text, stream.stopped) == ("aab", True)


@given(
    pieces=st.lists(st.text("abé☃", max_size=4), max_size=12),
    stop=st.lists(st.text("abé", min_size=1, max_size=3), max_size=3),
    cut=st.integers(1, 5),
)
def test_streamed_text_is_the_whole_text_cut_at_the_first_stop(pieces, stop, cut):
    """Reference: the text at the first token after which any stop string is complete."""
    raw = "".join(pieces).encode()
    tokens = [raw[at : at + cut] for at in range(0, len(raw), cut)]
    text, count, stream = play(tokens, tuple(stop))
    used = len(tokens)
    for end in range(1, len(tokens) + 1):
        so_far = b"".join(tokens[:end]).decode("utf-8", "ignore")
        found = [at for at in map(so_far.find, stop) if at >= 0]
        if found:
            assert (text, count, stream.stopped) == (so_far[: min(found)], end, True)
            return
    assert (text, count, stream.stopped) == (raw.decode(), used, False)
