"""What gossip gets in: replay, rate and fullness, and that one sender can't harm another.

Source: protocol/README.md, "Admission"; router/admission.py.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import crypto, limits
from protocol.envelope import Signed, sign_envelope
from protocol.errors import RemoteError
from protocol.messages import PeerRecord, SealedBid
from protocol.units import NS_PER_S
from router.admission import Admission, RateLimiter, SeenMessages
from tests.vectors.samples import BID, NETWORK, NOW_NS, REQUEST

SIGNERS = [crypto.Signer(bytes([number]) * 32) for number in range(3)]
SERIAL: Iterator[int] = count(1)
TOKEN_NS = NS_PER_S // limits.SENDER_RATE_PER_S
WINDOW_NS = limits.FRESHNESS_NS + limits.CLOCK_SKEW_NS


def request(sender: int = 0, at_ns: int = NOW_NS) -> Signed:
    """A request that was never seen before."""
    fresh = replace(REQUEST, input_tokens_max=1 + next(SERIAL) % limits.INPUT_TOKENS_MAX)
    return sign_envelope(SIGNERS[sender], NETWORK, fresh, at_ns)


def admission() -> Admission:
    """A gate that believes every signature: they have tests of their own."""
    return Admission(NETWORK, check=lambda *_: True)


def outcome(gate: Admission, data: bytes, now_ns: int) -> str:
    """ "" when admitted, else the code."""
    try:
        gate.admit(data, now_ns)
    except RemoteError as error:
        return error.code
    return ""


def not_penalized(gate: Admission, data: bytes, now_ns: int) -> str:
    with pytest.raises(RemoteError) as caught:
        gate.admit(data, now_ns)
    assert not caught.value.penalize, "an honest forwarder sees this too"
    return caught.value.code


def test_requests_and_sealed_bids_get_in_and_nothing_else() -> None:
    """The topic carries these two. README, "Gossip"."""
    gate = Admission(NETWORK)
    signed = request()
    assert gate.admit(signed.data, NOW_NS) == signed
    bid = sign_envelope(SIGNERS[1], NETWORK, SealedBid(bytes(32), b"box"), NOW_NS)
    assert gate.admit(bid.data, NOW_NS) == bid
    for message in (BID, PeerRecord(())):
        other = sign_envelope(SIGNERS[2], NETWORK, message, NOW_NS)
        assert outcome(gate, other.data, NOW_NS) == "envelope.wrong_content"


def test_signatures_are_checked_by_default() -> None:
    """A gate without a verifier of its own uses the real one."""
    forged = bytearray(request().data)
    forged[-1] ^= 1
    with pytest.raises(RemoteError, match=r"envelope\.bad_signature") as caught:
        Admission(NETWORK).admit(bytes(forged), NOW_NS)
    assert caught.value.penalize


def test_a_replay_is_ignored_and_no_offence() -> None:
    """Gossip delivers twice; who forwards a repeat can't know that we have it."""
    gate, signed = admission(), request()
    gate.admit(signed.data, NOW_NS)
    for later_ns in (0, 1, limits.FRESHNESS_NS):
        assert not_penalized(gate, signed.data, NOW_NS + later_ns) == "envelope.replayed"
    assert not_penalized(gate, signed.data, NOW_NS + limits.FRESHNESS_NS + 1) == "envelope.stale"


def test_a_resigned_message_is_the_same_message() -> None:
    """The digest leaves the signature out: its sender can't have it forwarded twice."""
    gate, signed = admission(), request()
    gate.admit(signed.data, NOW_NS)
    resigned = signed.data[:-64] + bytes(64)
    assert not_penalized(gate, resigned, NOW_NS) == "envelope.replayed"


def test_the_earliest_date_is_not_admitted_again_at_its_latest_moment() -> None:
    """Dated 10 s ahead, it is fresh for 70 s, to the very last ns of which it is remembered."""
    gate, signed = admission(), request(at_ns=NOW_NS + limits.CLOCK_SKEW_NS)
    gate.admit(signed.data, NOW_NS)
    assert outcome(gate, signed.data, NOW_NS + WINDOW_NS) == "envelope.replayed"
    assert outcome(gate, signed.data, NOW_NS + WINDOW_NS + 1) == "envelope.stale"


@given(
    st.integers(-limits.CLOCK_SKEW_NS, limits.FRESHNESS_NS),
    st.lists(st.integers(0, WINDOW_NS) | st.sampled_from([0, 1, WINDOW_NS]), max_size=5),
)
def test_nothing_is_admitted_twice(age_ns: int, steps: list[int]) -> None:
    """Whatever its date and whenever it comes again, on a clock that does not go back."""
    gate, signed = admission(), request(at_ns=NOW_NS - age_ns)
    gate.admit(signed.data, NOW_NS)
    now_ns = NOW_NS
    for step_ns in steps:
        now_ns += step_ns
        gate.admit(request(1, now_ns).data, now_ns)  # time passes for others too
        assert outcome(gate, signed.data, now_ns) in ("envelope.replayed", "envelope.stale")


def test_a_sender_over_its_rate_is_ignored_and_recovers() -> None:
    """50 at once, then 10 a second; more is dropped, and is no offence of who forwards it."""
    gate = admission()
    for _ in range(limits.SENDER_BURST_MESSAGES):
        gate.admit(request().data, NOW_NS)
    assert not_penalized(gate, request().data, NOW_NS) == "admission.rate"
    assert outcome(gate, request(at_ns=NOW_NS).data, NOW_NS + TOKEN_NS - 1) == "admission.rate"
    assert outcome(gate, request(at_ns=NOW_NS).data, NOW_NS + TOKEN_NS) == ""
    assert outcome(gate, request(at_ns=NOW_NS).data, NOW_NS + TOKEN_NS) == "admission.rate"


def test_the_rate_is_each_senders_own() -> None:
    """One that floods leaves the others all of theirs."""
    gate = admission()
    for _ in range(3 * limits.SENDER_BURST_MESSAGES):
        outcome(gate, request(0).data, NOW_NS)
    for _ in range(limits.SENDER_BURST_MESSAGES):
        assert outcome(gate, request(1).data, NOW_NS) == ""


def test_replaying_a_senders_message_does_not_use_up_its_rate() -> None:
    """Anybody can repeat what somebody else signed: a repeat is not the sender's doing."""
    gate, signed = admission(), request()
    gate.admit(signed.data, NOW_NS)
    for _ in range(200):
        assert outcome(gate, signed.data, NOW_NS) == "envelope.replayed"
    for _ in range(limits.SENDER_BURST_MESSAGES - 1):
        assert outcome(gate, request().data, NOW_NS) == ""


def test_forging_a_sender_does_not_use_up_its_rate() -> None:
    """The rate counts verified messages only."""
    known = [False]
    gate = Admission(NETWORK, check=lambda key, *_: known[0] or key != SIGNERS[0].public_key)
    for _ in range(2 * limits.SENDER_BURST_MESSAGES):
        assert outcome(gate, request(0).data, NOW_NS) == "envelope.bad_signature"
    known[0] = True
    assert outcome(gate, request(0).data, NOW_NS) == ""


def test_a_flooding_sender_does_not_fill_the_memory_of_replays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What its rate keeps out is not remembered either, or one key would silence all others."""
    monkeypatch.setattr(limits, "SEEN_MESSAGES_MAX", 2 * limits.SENDER_BURST_MESSAGES)
    gate = admission()
    for _ in range(4 * limits.SENDER_BURST_MESSAGES):
        outcome(gate, request(0).data, NOW_NS)
    assert outcome(gate, request(1).data, NOW_NS) == ""


def test_full_means_refusing_never_forgetting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a flood would open the door to replays; it ends when the window has passed."""
    monkeypatch.setattr(limits, "SEEN_MESSAGES_MAX", 3)
    gate = admission()
    kept = [request(number) for number in range(3)]
    for signed in kept:
        gate.admit(signed.data, NOW_NS)
    assert not_penalized(gate, request(0).data, NOW_NS) == "admission.full"
    for signed in kept:
        assert outcome(gate, signed.data, NOW_NS) == "envelope.replayed"
    later_ns = NOW_NS + WINDOW_NS + 1
    assert outcome(gate, request(0, later_ns).data, later_ns) == ""


def test_a_stale_message_is_not_counted_or_remembered() -> None:
    """Freshness comes before replay and rate: what is too old leaves no trace."""
    gate, signed = admission(), request(at_ns=NOW_NS)
    late_ns = NOW_NS + limits.FRESHNESS_NS + 1
    for _ in range(2 * limits.SENDER_BURST_MESSAGES):
        assert outcome(gate, signed.data, late_ns) == "envelope.stale"
    assert outcome(gate, signed.data, late_ns - 1) == ""


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3 * TOKEN_NS)), max_size=200))
def test_the_rate_is_never_exceeded_over_any_interval(steps: list[tuple[int, int]]) -> None:
    """Between any two moments a sender gets at most the burst and the rate's share, plus the
    one that is due at the start; and one that stays under the rate is never refused."""
    limiter, now_ns = RateLimiter(), NOW_NS
    allowed: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for sender, step_ns in steps:
        now_ns += step_ns
        if limiter.allow(bytes([sender]) * 32, now_ns):
            allowed[sender].append(now_ns)
    for times in allowed.values():
        for first in range(len(times)):
            for last in range(first, len(times)):
                share = (times[last] - times[first]) // TOKEN_NS
                assert last - first + 1 <= limits.SENDER_BURST_MESSAGES + share


@given(st.lists(st.integers(TOKEN_NS, 10 * TOKEN_NS), max_size=120))
def test_a_sender_under_its_rate_is_never_refused(steps: list[int]) -> None:
    """One message per token, after any pause, for ever."""
    limiter, now_ns = RateLimiter(), NOW_NS
    for step_ns in steps:
        now_ns += step_ns
        assert limiter.allow(b"s" * 32, now_ns)


def test_the_senders_that_are_tracked_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least recently heard is forgotten first; one that floods is not, so it gains
    nothing by being heard again and again."""
    monkeypatch.setattr(limits, "SENDERS_TRACKED_MAX", 4)
    limiter, flooder = RateLimiter(), b"f" * 32
    for number in range(200):
        assert limiter.allow(flooder, NOW_NS) == (number < limits.SENDER_BURST_MESSAGES)
        assert limiter.allow(number.to_bytes(32, "big"), NOW_NS)
    assert len(limiter._free_at) == 4


def test_the_memory_of_replays_empties_itself() -> None:
    """A digest is kept for as long as its message could still be fresh, and no longer."""
    seen = SeenMessages()
    for number in range(100):
        seen.add(number.to_bytes(32, "big"), NOW_NS)
    seen.check(b"new" * 8, NOW_NS + WINDOW_NS)
    assert len(seen._until) == 100
    seen.check(b"new" * 8, NOW_NS + WINDOW_NS + 1)
    assert len(seen._until) == 0


def test_a_sender_that_fell_silent_takes_no_memory() -> None:
    """Its bucket is full again, as a stranger's is: nothing is lost by forgetting it."""
    limiter = RateLimiter()
    for number in range(500):
        assert limiter.allow(number.to_bytes(32), NOW_NS + number * NS_PER_S)
    burst_s = limits.SENDER_BURST_MESSAGES // limits.SENDER_RATE_PER_S
    assert len(limiter._free_at) <= burst_s + 1


def test_what_was_seen_is_forgotten_after_its_window_and_not_before() -> None:
    """One message a second for ten windows: never more than a window's worth is kept."""
    seen, per_window = SeenMessages(), WINDOW_NS // NS_PER_S
    for second in range(10 * per_window):
        now_ns = NOW_NS + second * NS_PER_S
        seen.check(second.to_bytes(32), now_ns)
        seen.add(second.to_bytes(32), now_ns)
        for age in (0, 1, per_window):
            if age <= second:
                with pytest.raises(RemoteError, match="replayed"):
                    seen.check((second - age).to_bytes(32), now_ns)
        assert len(seen._until) <= per_window + 1
