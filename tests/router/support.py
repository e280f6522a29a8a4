"""What the market's tests share: offers, asks, worlds, and filters that misbehave for a peer."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from protocol import crypto, wire
from protocol.channel import Channel, Role
from protocol.crypto import Signer
from protocol.fields import (
    ChatMessage,
    GenerationParameters,
    InferenceType,
    Prompt,
    RequestFilter,
    Strategy,
)
from protocol.framing import HEADER_BYTES, frame
from protocol.units import NS_PER_MS, NS_PER_S
from router import actions as act
from router import events
from router.actions import Ask, ModelOffer
from router.choosing import Choice
from simnet.peer import Peer, SimEngine, WorldSettings
from simnet.world import World

MODEL = "m"
W_UCR = 1_920  # one chunk, 32 tokens, at 60 credits per million
ADVANCE_UCR = 100_000
PRICE_MAX_UCR = 1_000_000
PROMPT = Prompt(InferenceType.CHAT, (ChatMessage("user", "hi"),))
STAYS = Choice(elsewhere=False)  # so that how a lane ends can be seen
ANYBODY = RequestFilter(b"", (), ())


def offer(
    digest: int = 1,
    *,
    output_price: int = 60_000_000,
    input_price: int = 15_000_000,
    places: int = 4,
    tokens_per_s_milli: int = 50_000,
) -> ModelOffer:
    """A model with a 2,048-token context that starts in ~20 ms; prices in ucr per million."""
    return ModelOffer(
        name=MODEL,
        digest=bytes([digest]) * 32,
        context_tokens=2_048,
        input_price_ucr=input_price,
        output_price_ucr=output_price,
        ttft_ns=20 * NS_PER_MS,
        ttft_ns_per_input_token=10_000,
        tokens_per_s_milli=tokens_per_s_milli,
        places=places,
    )


def engine(of: ModelOffer | None = None, *, input_tokens: int = 12) -> SimEngine:
    """A token every 20 ms after a prefill of 20 ms."""
    return SimEngine(
        of or offer(),
        prefill_ns=20 * NS_PER_MS,
        token_ns=20 * NS_PER_MS,
        input_tokens=input_tokens,
    )


def make_ask(number: int = 1, tokens: int = 40, **changes: Any) -> Ask:
    """An ask for `tokens` output tokens with room in every limit; `changes` replace fields."""
    ask = Ask(
        ask_id=number,
        model=MODEL,
        prompt=PROMPT,
        parameters=GenerationParameters(tokens, 0, 0, 1000, 1, ()),
        price_max_ucr=PRICE_MAX_UCR,
        timeout_ns=60 * NS_PER_S,
        bid_window_ns=200 * NS_PER_MS,
        strategy=Strategy(500, 500),
        filters=ANYBODY,
        deposit_ucr=1_000_000,
        advance_max_ucr=ADVANCE_UCR,
        choice=STAYS,
    )
    return replace(ask, **changes)


def only(*peers: Peer) -> RequestFilter:
    """A filter that takes bids of these peers alone."""
    return RequestFilter(b"", tuple(key_of(peer) for peer in peers), ())


def key_of(peer: Peer) -> bytes:
    """The peer's public key."""
    return peer.signer.public_key


def make_world(providers: int = 1, requesters: int = 1, **settings: Any) -> World:
    """Providers first, each cheaper than the one before it; then requesters."""
    world = World(WorldSettings(**settings))
    for number in range(providers):
        price = 60_000_000 - number * 10_000_000
        world.add(engine(offer(number + 1, output_price=price)))
    for _ in range(requesters):
        world.add()
    return world


def message_of(data: bytes) -> Any:
    """The message of one whole frame, as the world's `frame_filter` sees it."""
    return wire.decode(data[HEADER_BYTES:])


def frame_of(message: Any) -> bytes:
    """The inverse of `message_of`."""
    return frame(wire.encode(message))


Change = Callable[[Any], Any]


def tamper(world: World, sender: Peer, kind: type, change: Change, *, times: int = 1) -> None:
    """Replace the first `times` messages of `kind` that `sender` sends by `change(message)`.

    None drops the message, a tuple sends several, bytes go out as they are. Again on the same
    world: applied to what the earlier ones let through whole.
    """
    before = world.frame_filter
    left = times

    def misbehave(source: Peer, _target: Peer, data: bytes) -> bytes | None:
        nonlocal left
        if before is not None:
            filtered = before(source, _target, data)
            if filtered != data:
                return filtered
        if source is not sender or not left:
            return data
        message = message_of(data)
        if not isinstance(message, kind):
            return data
        left -= 1
        changed = change(message)
        if changed is None or isinstance(changed, bytes):
            return changed
        several = changed if isinstance(changed, tuple) else (changed,)
        return b"".join(frame_of(one) for one in several)

    world.frame_filter = misbehave


def last_end(peer: Peer, ask_id: int = 1) -> events.Done | events.Failed:
    """How an ask ended."""
    for told_id, event in reversed(peer.told):
        if told_id == ask_id and isinstance(event, events.TERMINAL):
            return event
    raise AssertionError(f"ask {ask_id} did not end")


def failure(peer: Peer, ask_id: int = 1) -> str:
    """The code that an ask failed with."""
    end = last_end(peer, ask_id)
    assert isinstance(end, events.Failed), end
    return end.code


def succeeded(peer: Peer, ask_id: int = 1) -> bool:
    """Whether an ask ended with a receipt."""
    return isinstance(last_end(peer, ask_id), events.Done)


def codes_against(peer: Peer, offender: Peer) -> list[str]:
    """Why `peer` penalised `offender`."""
    return [code for key, code in peer.penalized if key == key_of(offender)]


def channels(peer: Peer, role: Role | None = None) -> list[Channel]:
    """The peer's channels, oldest first."""
    every = peer.node.context.ledger.channels.values()
    return [channel for channel in every if role is None or channel.role is role]


def same_totals(one: Peer, other: Peer) -> bool:
    """Whether both ledgers agree about every channel that they share."""
    mine = {channel.cid: channel for channel in channels(one)}
    theirs = {channel.cid: channel for channel in channels(other)}
    shared = mine.keys() & theirs.keys()
    return bool(shared) and all(
        (mine[cid].due_ucr, mine[cid].total_ucr, mine[cid].settled_ucr)
        == (theirs[cid].due_ucr, theirs[cid].total_ucr, theirs[cid].settled_ucr)
        for cid in shared
    )


def resigned(signer: Signer, layout: bytes) -> bytes:
    """A signature by someone who means it: for lies that are properly signed."""
    return signer.sign(layout)


def flipped(signature: bytes) -> bytes:
    """The signature with one bit wrong."""
    return bytes([signature[0] ^ 1]) + signature[1:]


def stranger(number: int = 99) -> Signer:
    """A key that is nobody's in the world."""
    return Signer(crypto.digest(b"stranger", bytes([number])))


def when_job_starts(world: World, provider: Peer, happen: Callable[[bytes], None]) -> None:
    """Call `happen(job_id)` once the provider gave its engine a job."""

    def watch(peer: Peer, actions: list[act.Action]) -> None:
        for action in actions:
            if peer is provider and isinstance(action, act.StartJob):
                world.clock.after(0, partial(happen, action.job_id))

    world.after_step = watch


def break_engine(world: World, provider: Peer, after_ns: int) -> None:
    """The provider's engine crashes so long after it was given a job."""

    def broke(job_id: bytes) -> None:
        provider.jobs.pop(job_id, None)
        world.give(provider, act.JobBroke(job_id, "engine.crashed"))

    when_job_starts(
        world, provider, lambda job_id: world.clock.after(after_ns, lambda: broke(job_id))
    )


def retried(requester: Peer) -> list[str]:
    """Why each failed attempt failed."""
    return [event.code for event in requester.heard(events.Retrying)]


def awarded_to(requester: Peer) -> list[bytes]:
    """Whom the awards went to, in order."""
    return [event.provider for event in requester.heard(events.Awarded)]


def complete(world: World, requester: Peer, number: int, tokens: int = 40, **changes: Any) -> None:
    """Ask, wait, and expect a receipt."""
    world.give(requester, make_ask(number, tokens, **changes))
    world.run(10 * NS_PER_S)
    assert succeeded(requester, number), last_end(requester, number)


def close_all(world: World, requester: Peer) -> list[events.ChannelSettled]:
    """Ask for a close of every channel; the settlements so far."""
    world.give(requester, act.CloseChannels(()))
    world.run(10 * NS_PER_S)
    return requester.heard(events.ChannelSettled)


def text_of(requester: Peer) -> str:
    """What its asker has read."""
    return "".join(event.text for event in requester.heard(events.Text))


def counted(tokens: int) -> str:
    """The whole answer of an engine that counts, of so many tokens."""
    return "".join(f"{number} " for number in range(1, tokens + 1))


def refuse_once(world: World, requester: Peer, number: int, **changes: object) -> None:
    """An ask whose award comes when the provider's engine is gone for a moment."""
    (provider,) = [peer for peer in world.peers if peer.engine is not None]
    assert provider.engine is not None
    world.give(requester, make_ask(number, **changes))
    world.run(150 * NS_PER_MS)
    world.give(provider, act.OffersChanged(()))
    world.run(10 * NS_PER_S)
    assert failure(requester, number) == "provider.busy"
    world.give(provider, act.OffersChanged((provider.engine.offer,)))


def assert_losses_bounded(requester: Peer, provider: Peer) -> None:
    """The payer signed at most A over what it took; the payee sent at most W over its voucher."""
    for channel in channels(requester):
        assert channel.total_ucr - channel.due_ucr <= ADVANCE_UCR
    for channel in channels(provider):
        assert channel.due_ucr - channel.total_ucr <= W_UCR


def forgotten() -> World:
    """A provider that delivered and lost its log, then a second job of the same requester."""
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1)
    world.crash(provider)
    provider.log.clear()
    world.restart(provider)
    world.run(NS_PER_S)
    complete(world, requester, 2)
    return world
