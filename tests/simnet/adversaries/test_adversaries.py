"""What each adversary gains, and what it costs the others: honest code, one kind at a time.

Source: simnet/README.md, "Adversaries".
"""

from pathlib import Path
from typing import Any

import pytest

from protocol import limits
from protocol.errors import ConfigError
from simnet.scenario import Scenario
from simnet.scenario import adversaries as kinds
from simnet.scenario import file as scenario_file
from simnet.scenario.market import Providers, Requesters
from tests.simnet.test_simulation import summary_of

ADVANCE_UCR = Requesters().advance_ucr


def run(*adversaries: Any, **changes: Any) -> dict[str, Any]:
    """A market of 40 nodes for 20 seconds, half of its sellers adversaries; no check may fail."""
    given: dict[str, Any] = {
        "name": "adverse",
        "nodes": 40,
        "duration_s": 20,
        "providers": (Providers(name="honest", count=6), Providers(name="adversaries", count=6)),
        "requesters": (Requesters(name="askers", count=8, requests_per_s=1.5),),
        "adversaries": adversaries,
    }
    told = summary_of(Scenario(**(given | changes)))
    assert told["faults"] == []
    assert told["requests"] == told["done"] + told["failed"] > 10
    return told


def of(told: dict[str, Any], group: str) -> dict[str, Any]:
    """What a group got out of it."""
    row: dict[str, Any] = told["groups"][group]
    return row


# --- sellers -----------------------------------------------------------------------------------


def test_honest_nodes_gain_and_lose_nothing() -> None:
    """What is paid is delivered, what is sold was made."""
    told = run()
    for row in told["groups"].values():
        assert row["gain_ucr"] == 0
        assert row["tokens_sold"] == row["tokens_made"]


def test_who_vanishes_keeps_one_advance_a_channel_and_delays_answers() -> None:
    """The loss is what was lent ahead; the request goes to the next bid."""
    told, calm = run(kinds.Vanish()), run()
    row = of(told, "adversaries")
    assert 0 < row["gain_ucr"] == -of(told, "askers")["gain_ucr"]
    assert row["gain_ucr"] <= ADVANCE_UCR * of(told, "askers")["nodes"] * row["nodes"]
    assert row["tokens_sold"] == row["delivered_ucr"] == 0
    assert told["first_text_ms"]["p90"] > calm["first_text_ms"]["p90"] + 1_000
    assert told["done"] > told["requests"] / 2


def test_cheap_identities_that_vanish_stop_a_market_without_memory() -> None:
    """They win the awards a request has: most requests fail, and each costs an advance."""
    cheap = Providers(name="adversaries", count=14, price_permille=100)
    told = run(kinds.Vanish(), providers=(Providers(name="honest", count=6), cheap))
    assert told["failures"]["request.all_failed"] > told["requests"] / 3
    assert 0 < of(told, "adversaries")["gain_ucr"] < ADVANCE_UCR


def test_text_that_no_machine_made_is_paid_in_full() -> None:
    """Nothing in a transcript says where text came from: the defence is to ask elsewhere too."""
    row = of(run(kinds.Garbage()), "adversaries")
    assert row["tokens_made"] == 0 < row["tokens_sold"]
    assert row["earned_ucr"] == row["delivered_ucr"] > 0


def test_readers_who_say_that_it_is_garbage_keep_others_from_it() -> None:
    """`peerd feedback RECEIPT bad`, some seconds later, counts against its seller."""

    def told(notices: int) -> dict[str, Any]:
        askers = Requesters(
            name="askers",
            count=1,
            requests_per_s=1.5,
            reputation_weight=350,
            notices_permille=notices,
        )
        return run(kinds.Garbage(), requesters=(askers,), duration_s=30)

    silent, heard = told(0), told(1_000)
    assert of(heard, "adversaries")["earned_ucr"] * 2 < of(silent, "adversaries")["earned_ucr"]
    assert of(heard, "adversaries")["earned_ucr"] > 0


def test_text_that_is_not_what_was_signed_ends_at_the_first_chunk() -> None:
    """The chunk is refused and not owed, the peer kept away; the first voucher is lost."""
    told = run(kinds.WrongDigest())
    row = of(told, "adversaries")
    assert told["offences"]["chunk.wrong_hash"] > 0
    assert row["tokens_sold"] == row["delivered_ucr"] == 0
    assert row["gain_ucr"] < ADVANCE_UCR
    assert told["done"] > told["requests"] * 0.9


def test_tokens_claimed_are_believed_up_to_what_the_request_allows() -> None:
    """Within the allowance the count is the seller's word; beyond it is an offence."""
    within = run(kinds.OverClaim(factor_permille=1_500))
    row = of(within, "adversaries")
    assert row["tokens_sold"] > row["tokens_made"] * 14 // 10
    assert within["offences"] == {}
    beyond = run(kinds.OverClaim(factor_permille=4_000))
    assert beyond["offences"]["chunk.too_many_tokens"] > 0
    assert of(beyond, "adversaries")["gain_ucr"] < ADVANCE_UCR


def test_promises_of_speed_win_awards_and_are_not_taken_back() -> None:
    """A boaster sells more than its share; its own machine is not faster for it."""
    told, calm = run(kinds.OverPromise(factor_permille=10_000)), run()
    boasted, before = of(told, "adversaries"), of(calm, "adversaries")
    assert boasted["tokens_sold"] > before["tokens_sold"]
    assert boasted["tokens_sold"] == boasted["tokens_made"]


def test_a_ring_gains_where_it_is_the_market_and_loses_where_it_is_not() -> None:
    """Its price holds only while nobody else bids."""
    dear = Providers(name="adversaries", count=6, price_permille=1_500, price_spread_permille=0)
    alone = run(kinds.Collude(), providers=(dear,))
    contested = run(kinds.Collude(), providers=(Providers(name="honest", count=6), dear))
    calm = run(providers=(Providers(name="adversaries", count=6, price_spread_permille=0),))

    def price(told: dict[str, Any]) -> float:
        row = of(told, "adversaries")
        return float(row["earned_ucr"]) / max(1, row["tokens_sold"])

    assert price(alone) > 1.3 * price(calm)
    assert of(contested, "adversaries")["tokens_sold"] < of(contested, "honest")["tokens_sold"]


def test_who_bids_last_wins_less() -> None:
    """Bids are sealed, so there is nothing to see, and auctions end when enough have come."""
    told, calm = run(kinds.Snipe()), run()
    assert of(told, "adversaries")["tokens_sold"] < of(calm, "adversaries")["tokens_sold"]


def test_lies_about_clearing_prices_delay_awards_and_sell_nothing() -> None:
    """A third of the sellers silence the rest; at half of the window all are heard."""
    market: dict[str, Any] = {
        "nodes": 48,
        "duration_s": 12,
        "bids_wanted": 8,
        "providers": (
            Providers(name="honest", count=24),
            Providers(name="adversaries", count=12, price_permille=1_500),
        ),
    }
    told, calm = run(kinds.ClearingLies(), **market), run(**market)
    assert of(told, "adversaries")["tokens_sold"] == of(calm, "adversaries")["tokens_sold"] == 0
    assert told["failed"] == calm["failed"] == 0
    assert told["paid_ucr"] < calm["paid_ucr"] * 11 // 10
    assert told["award_ms"]["p50"] < calm["award_ms"]["p50"] + 1_000


# --- askers ------------------------------------------------------------------------------------

BOTH = (
    Requesters(name="askers", count=6, requests_per_s=1.0),
    Requesters(name="adversaries", count=4, requests_per_s=1.0),
)
SELLERS = (Providers(name="honest", count=10),)


@pytest.mark.parametrize("kind", [kinds.StopPaying(), kinds.DoubleSpend()])
def test_who_does_not_pay_gets_one_window_of_each_seller(kind: Any) -> None:
    """W is what a seller lends a payer, however many channels it opens; then it stops."""
    told = run(kind, requesters=BOTH, providers=SELLERS)
    row = of(told, "adversaries")
    # The dearest chunk there is: a whole prompt and CHUNK_TOKENS_MAX tokens, a fifth dearer.
    tokens = Requesters().input_tokens.max * 15 + limits.CHUNK_TOKENS_MAX * 60
    assert 0 < row["gain_ucr"] <= tokens * 12 // 10 * row["nodes"] * of(told, "honest")["nodes"]
    assert row["gain_ucr"] == -of(told, "honest")["gain_ucr"]
    assert told["failures"]["channel.unpaid"] > 0
    askers = of(told, "askers")
    assert askers["done"] == askers["requests"] > 0
    assert askers["gain_ucr"] == 0


@pytest.mark.parametrize("keep_permille", [0, 300, 700])
def test_an_old_copy_of_a_log_gains_no_more_than_an_advance(keep_permille: int) -> None:
    """Each end proves to the other what it forgot: by its voucher, by its signed claim. What a
    seller that lost a running lane may keep is the advance on it; sellers lose nothing."""
    sellers = (Providers(name="honest", count=5), Providers(name="forgetful", count=5))
    told = run(
        kinds.Rollback(group="adversaries", at_s=8, keep_permille=keep_permille),
        kinds.Rollback(group="forgetful", at_s=14, keep_permille=keep_permille),
        requesters=BOTH,
        providers=sellers,
    )
    assert of(told, "askers")["gain_ucr"] > -ADVANCE_UCR
    assert of(told, "honest")["gain_ucr"] >= 0


# --- the network -------------------------------------------------------------------------------

PLAIN: dict[str, Any] = {"providers": SELLERS}


def test_a_flood_is_held_to_the_rate_of_its_sender() -> None:
    """A first burst, then ten a second; the market goes on, and its nodes work for it."""
    told, calm = run(kinds.Flood(messages_per_s=100), **PLAIN), run(**PLAIN)
    own = told["gossip"]["deliveries"] - calm["gossip"]["deliveries"]
    seconds = told["virtual_s"]
    most = limits.SENDER_BURST_MESSAGES + limits.SENDER_RATE_PER_S * seconds
    assert 0 < own <= most * (40 - 1)
    assert told["gossip"]["refused"] > own
    assert told["done"] > told["requests"] * 0.8


@pytest.mark.parametrize(
    ("kind", "warmup_s"),
    [(kinds.Censor(nodes=20), 5), (kinds.Censor(nodes=20), 0), (kinds.Degrade(nodes=20), 5)],
)
def test_half_of_the_mesh_that_is_bad_slows_it(kind: Any, warmup_s: int) -> None:
    """Who passes nothing on, from a warm mesh or a cold start, or all of it late."""
    told, calm = run(kind, warmup_s=warmup_s, **PLAIN), run(warmup_s=warmup_s, **PLAIN)
    assert told["done"] > told["requests"] * 0.9
    assert told["trace_hash"] != calm["trace_hash"]
    if isinstance(kind, kinds.Censor):
        assert told["gossip"]["duplicates"] < calm["gossip"]["duplicates"]


@pytest.mark.parametrize("victim_nodes", [1, 0])
def test_an_eclipse_silences_its_victims_and_nobody_else(victim_nodes: int) -> None:
    """A victim's requests reach no provider and fail with a reason; no money moves."""
    groups = (
        Requesters(name="askers", count=6, requests_per_s=1.0),
        Requesters(name="victims", count=2, requests_per_s=1.0),
    )
    eclipse = kinds.Eclipse(nodes=6, victims="victims", victim_nodes=victim_nodes)
    told = run(eclipse, requesters=groups, **PLAIN)
    victims, askers = of(told, "victims"), of(told, "askers")
    assert askers["done"] == askers["requests"] > 0
    assert told["failures"] == {"request.no_bids": victims["requests"] - victims["done"]}
    assert (victims["done"] == 0) == (victim_nodes == 0)


# --- files -------------------------------------------------------------------------------------


def test_every_kind_has_a_ready_scenario() -> None:
    """One that can be run as it is."""
    ready = [scenario_file.load(path) for path in scenario_file.ready().values()]
    used = {type(kind) for one in ready for kind in one.adversaries}
    assert used == set(kinds.AnyAdversary.__args__)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ('kind = "vanish"\ngroup = "requesters"', "there are providers"),
        ('kind = "stop-paying"\ngroup = "providers"', "there are requesters"),
        ('kind = "censor"\nvictims = "nobody"', "there is no 'nobody'"),
        ('kind = "censor"\nnodes = 90', "90 adversaries"),
        ('kind = "vanihs"', "expected 'vanish'"),
    ],
)
def test_a_wrong_adversary_is_named(tmp_path: Path, table: str, expected: str) -> None:
    """One line: where, and what was expected."""
    path = tmp_path / "wrong.toml"
    path.write_text(f"nodes = 40\n\n[[adversaries]]\n{table}\n")
    with pytest.raises(ConfigError, match=r"wrong.toml:[1345]: ") as raised:
        scenario_file.load(path)
    assert expected in str(raised.value)
