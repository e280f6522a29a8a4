"""What the parts of an answer may cost together, and what is told of them afterwards.

Source: router/README.md, "When a provider fails" and "Races and hedges".
"""

from protocol.fields import AwardRole, ChatMessage, Outcome
from protocol.records import AwardJudged, RequestContinued, decode_record
from protocol.units import NS_PER_MS, NS_PER_S
from router import events
from router.choosing import RequesterSettings
from tests.router.support import PRICE_MAX_UCR, PROMPT, channels, counted, last_end, make_ask
from tests.router.test_continuing import ELSEWHERE, ask, counting_world, crash_engine, stall


def test_the_rest_costs_at_most_what_is_left() -> None:
    """The cap of the whole holds: the second request's is lower by what the first part cost."""
    world = counting_world()
    crash_engine(world, world.peers[1])
    requester = world.peers[-1]
    world.give(requester, make_ask(choice=ELSEWHERE))
    world.run(1_100 * NS_PER_MS)
    (told,) = requester.heard(events.Continuing)
    job = requester.node.requester.job(told.request_id)
    assert job is not None
    assert job.request.message.price_max_ucr == 1_000_000 - told.paid_ucr
    assert job.request.message.output_tokens_max == 40 - told.output_tokens
    begun = counted(told.output_tokens)
    assert job.ask.prompt.messages == (*PROMPT.messages, ChatMessage("assistant", begun))
    assert job.request.message.deadline_ns <= job.progress.began_at_ns + 60 * NS_PER_S


def test_what_a_silent_provider_may_still_be_owed_is_not_spent_again() -> None:
    """Until it says that its lane ended: the vouchers ahead of what came, and its window."""
    world = counting_world()
    stall(world, world.peers[1])
    requester = world.peers[-1]
    world.give(requester, make_ask(choice=ELSEWHERE))
    while not requester.heard(events.Continuing):
        world.run(NS_PER_MS)
    (told,), (channel,) = requester.heard(events.Continuing), channels(requester)
    job = requester.node.requester.job(told.request_id)
    assert job is not None
    owed_ucr = channel.total_ucr + channel.terms.window_ucr
    assert owed_ucr > told.paid_ucr == channel.due_ucr
    assert job.request.message.price_max_ucr == PRICE_MAX_UCR - owed_ucr


def test_the_explanation_has_all_awards() -> None:
    """Found by either request's id; the day's spending has both parts."""
    world = counting_world()
    requester = world.peers[-1]
    requester.node.requester.explanations._kept = 8
    requester.node.requester._settings = RequesterSettings(day_max_ucr=10**9)
    crash_engine(world, world.peers[1])
    ask(world)
    (published,) = requester.heard(events.Published)
    (told,) = requester.heard(events.Continuing)
    explanations = requester.node.requester.explanations
    found = explanations.find(published.request_id)
    assert found is not None
    assert explanations.find(told.request_id) is found
    assert [(one.role, one.outcome) for one in found.tried] == [
        (AwardRole.FIRST, Outcome.FAILED),
        (AwardRole.CONTINUE, Outcome.DELIVERED),
    ]
    done = last_end(requester)
    assert isinstance(done, events.Done)
    assert found.paid_ucr == done.cost_ucr
    reputation = requester.node.context.ledger.reputation
    assert reputation.spent_ucr(world.clock.now_ns) == done.cost_ucr
    logged = [decode_record(*entry) for entry in requester.log]
    assert sum(isinstance(record, AwardJudged) for record in logged) == 2
    (link,) = [record for record in logged if isinstance(record, RequestContinued)]
    assert (link.request_id, link.by) == (published.request_id, told.request_id)
