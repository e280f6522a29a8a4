"""What a key bought is known from the log alone. Source: router/README.md, "Keys"."""

from dataclasses import replace

import pytest

from protocol import limits, records
from protocol.records import RequestKeyed
from protocol.signing import receipt_id
from protocol.units import NS_PER_MS, NS_PER_S
from router import actions as act
from router import events
from router.actions import RequestKey
from router.choosing import Choice
from router.keyed import Bought, KeyedRequests
from simnet.peer import Peer
from simnet.world import World
from tests.router.support import break_engine, channels, complete, last_end, make_ask, make_world
from tests.vectors.samples import RECEIPT

KEY = RequestKey(bytes([3]) * 32, bytes([4]) * 32)


def bought(peer: Peer, world: World, *, orphaned: bool = False) -> Bought | None:
    """What the key bought; with `orphaned`, as after a start."""
    ledger = peer.node.context.ledger
    orphans = frozenset(ledger.keyed.requests if orphaned else ())
    return ledger.keyed.bought(KEY.name, ledger.channels, orphans, world.clock.now_ns)


@pytest.mark.parametrize("use_offers", [True, False])
def test_the_key_is_logged_before_anything_leaves(use_offers: bool) -> None:
    """Of all that an ask causes, its record is the first, and only once."""
    world = make_world()
    _, requester = world.peers
    complete(world, requester, 1)
    ask = make_ask(2, key=KEY, use_offers=use_offers)
    actions = requester.node.receive(ask, world.clock.now_ns)
    first = actions[0]
    assert isinstance(first, act.Append)
    record = records.decode_record(first.type, first.payload)
    assert isinstance(record, RequestKeyed)
    assert (record.name, record.body) == KEY
    assert requester.node.requester.job(record.request_id) is not None
    assert sum(isinstance(one, act.Append) and one.type == 42 for one in actions) == 1


def test_an_answer_is_known_by_its_receipt_also_after_a_restart() -> None:
    world = make_world()
    _, requester = world.peers
    complete(world, requester, 1, key=KEY)
    done = last_end(requester)
    assert isinstance(done, events.Done)
    found = bought(requester, world)
    assert found is not None
    assert (found.body, found.answered) == (KEY.body, True)
    assert found.paid_ucr == done.receipt.price_ucr
    world.crash(requester)
    world.restart(requester)
    assert bought(requester, world, orphaned=True) == found


def test_an_answer_in_parts_is_known_by_the_last_one_s_receipt() -> None:
    """Both requests are the key's; the bill has both, and the first needs no receipt."""
    world = make_world(2)
    best, requester = world.peers[1:]
    break_engine(world, best, 510 * NS_PER_MS)
    complete(world, requester, 1, key=KEY, choice=Choice())
    done = last_end(requester)
    assert isinstance(done, events.Done)
    found = bought(requester, world)
    assert found == Bought(KEY.body, done.cost_ucr, (done.receipt_id,), True)
    assert done.cost_ucr > done.receipt.price_ucr
    world.crash(requester)
    world.restart(requester)
    assert bought(requester, world, orphaned=True) == found


def test_one_that_died_with_the_node_is_not_free_until_its_lane_is_settled() -> None:
    """What was due when it died, and after the channel is re-established what that says."""
    world = make_world()
    _, requester = world.peers
    world.give(requester, make_ask(1, 400, key=KEY))
    while not requester.heard(events.Text):
        world.run(NS_PER_MS)
    world.run(2 * NS_PER_S)
    assert (found := bought(requester, world)) is not None
    assert not found.answered
    world.crash(requester)
    world.restart(requester)
    died = bought(requester, world, orphaned=True)
    assert died is not None
    assert not died.answered
    complete(world, requester, 2)
    (channel,) = channels(requester)
    other = last_end(requester, 2)
    assert isinstance(other, events.Done)
    settled = bought(requester, world, orphaned=True)
    assert settled is not None
    assert settled.paid_ucr == channel.due_ucr - other.receipt.price_ucr >= died.paid_ucr


def test_what_cost_nothing_may_be_tried_again() -> None:
    world = make_world()
    provider, requester = world.peers
    break_engine(world, provider, 0)
    world.give(requester, make_ask(1, key=KEY))
    world.run(10 * NS_PER_S)
    assert isinstance(last_end(requester), events.Failed)
    assert bought(requester, world) is None
    assert bought(requester, world, orphaned=True) is None
    world.after_step = None
    complete(world, requester, 2, key=KEY)
    assert (found := bought(requester, world)) is not None
    assert found.answered


def test_one_that_broke_off_is_answered_when_who_went_on_with_it_has_a_receipt() -> None:
    """Not before: the node may die between the two."""
    book, cid = KeyedRequests(), bytes(32)
    first, second = bytes([1]) * 32, bytes([2]) * 32
    opened = records.LaneOpened(cid, 1, first, cid, "m", 0, 0, 1, b"")
    book.apply(RequestKeyed(*KEY, first, 1))
    book.watch(opened)
    book.apply(RequestKeyed(*KEY, second, 2))
    book.apply(records.RequestContinued(first, second, "engine.crashed", 2))
    book.watch(records.LaneClosed(cid, 1, 3, 5, "engine.crashed", 3))
    assert book.bought(KEY.name, {}, frozenset(), 3) == Bought(KEY.body, 5, (), answered=False)
    book.watch(replace(opened, lane=2, request_id=second))
    receipt = replace(RECEIPT, cid=cid, lane=2, price_ucr=7)
    book.watch(records.ReceiptAcknowledged(receipt, bytes(64), bytes(64)))
    whole = Bought(KEY.body, 12, (receipt_id(receipt),), answered=True)
    assert book.bought(KEY.name, {}, frozenset(), 3) == whole


def test_the_book_is_bounded_by_count_and_age() -> None:
    book = KeyedRequests()

    def keyed(number: int, at_ns: int) -> None:
        name = number.to_bytes(32, "big")
        book.apply(RequestKeyed(name, name, name, at_ns))
        cid = bytes(32)
        book.watch(records.LaneOpened(cid, number, name, cid, "m", 0, 0, at_ns, b""))

    for number in range(limits.KEYED_REQUESTS_KEPT + 5):
        keyed(number, number)
    assert len(book.requests) == len(book._lanes) == limits.KEYED_REQUESTS_KEPT
    assert next(iter(book.requests)) == (5).to_bytes(32, "big")
    keyed(10**6, limits.KEYED_KEPT_NS + 10)
    assert next(iter(book.requests)) == (11).to_bytes(32, "big")
    name = (12).to_bytes(32, "big")
    orphans = frozenset([name])
    assert book.bought(name, {}, orphans, limits.KEYED_KEPT_NS + 11) is not None
    assert book.bought(name, {}, orphans, limits.KEYED_KEPT_NS + 12) is None
