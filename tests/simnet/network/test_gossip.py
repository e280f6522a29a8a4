"""The model of gossipsub 1.1: meshes, back-off, offers, fanout, scores, over real admission.

Source: the gossipsub 1.1 specification; simnet/README.md, "Its limit".
"""

from pathlib import Path
from typing import Any

import pytest

from protocol import limits
from protocol.envelope import sign_envelope
from protocol.units import NS_PER_MS, NS_PER_S
from simnet.network.gossip import Message
from simnet.recording.recorder import Recorder
from simnet.scenario import Scenario
from simnet.scenario.market import Providers, Requesters
from simnet.scenario.network import Access, Gossip, Scoring, Topology
from simnet.simulation import Simulation
from tests.vectors.samples import REQUEST


def network(nodes: int = 60, settle_s: int = 5, **changes: Any) -> Simulation:
    """A network whose market never begins."""
    settings = Scenario(
        name="quiet",
        nodes=nodes,
        warmup_s=3_600,
        providers=(Providers(count=1),),
        requesters=(Requesters(count=1, subscribed=changes.pop("subscribed", True)),),
        **changes,
    )
    simulation = Simulation(settings, 3, Recorder(None), Path())
    simulation.begin()
    simulation.run(settle_s * NS_PER_S)
    return simulation


def publish(simulation: Simulation, node: int, *, forged: bool = False) -> Message:
    """A node's request, and the second in which it spreads."""
    peer, now_ns = simulation.peers[node], simulation.clock.now_ns
    data = sign_envelope(peer.signer, simulation.network, REQUEST, now_ns).data
    if forged:
        data = data[:-1] + bytes([data[-1] ^ 1])
    message = simulation.gossip.publish(node, data, "Request")
    simulation.run(NS_PER_S)
    return message


def test_meshes_settle_at_their_degree_and_are_mutual() -> None:
    """Between D_lo and D_hi at every node, and whoever is in mine has me in its own."""
    simulation = network(settle_s=20)
    mesh, settings = simulation.gossip.mesh, simulation.scenario.gossip
    for node, others in enumerate(mesh):
        assert settings.degree_low <= len(others) <= settings.degree_high
        assert len(set(others)) == len(others)
        assert set(others) <= set(simulation.gossip.meshes.neighbours[node])
        assert all(node in mesh[other] for other in others)


def test_a_message_reaches_all_over_few_hops_and_no_node_twice() -> None:
    """Every node admits it once; copies beyond that are duplicates, about D a node."""
    simulation = network()
    message = publish(simulation, 7)
    assert message.reached == 59
    assert message.missing == 0
    assert 1 <= max(message.hops) - 1 <= 6
    assert 3 * 59 < message.duplicates < 10 * 59


def test_a_flood_sends_a_copy_over_every_link_but_back() -> None:
    """Exactly: the baseline router has nothing to choose."""
    simulation = network(gossip=Gossip(router="flood"), topology=Topology(degree=6))
    message = publish(simulation, 7)
    neighbours = simulation.gossip.meshes.neighbours
    simulation.run(NS_PER_S)
    arrived = message.reached + message.duplicates
    # Everybody sends to all but whom it came from; nobody sends back to the origin.
    links = sum(map(len, neighbours))
    back = 59 + sum(7 in others for others in neighbours)
    direct = sum(message.hops[other] == 2 for other in neighbours[7])
    assert arrived == links - back + direct


def test_what_the_mesh_loses_the_offers_bring_back() -> None:
    """At 36 % loss the mesh alone leaves gaps that IHAVE and IWANT fill within heartbeats."""
    shares = []
    for lazy in (0, 6):
        simulation = network(
            gossip=Gossip(degree=3, degree_low=2, degree_high=4, degree_lazy=lazy),
            access=Access(links={"fast": 1}, loss_ppm=200_000),
        )
        messages = [publish(simulation, node) for node in range(10)]
        simulation.run(5 * NS_PER_S)
        shares.append(sum(message.reached for message in messages) / 590)
    assert shares[0] < 0.95 < 0.98 < shares[1], shares


def test_own_messages_go_to_the_mesh_and_to_others_up_to_its_highest_degree() -> None:
    """As the daemon's do; who has fewer neighbours tells all of them."""
    simulation = network(topology=Topology(degree=16))
    meshes, settings = simulation.gossip.meshes, simulation.scenario.gossip
    for node, neighbours in enumerate(meshes.neighbours):
        told = meshes.widened(node)
        assert len(set(told)) == len(told) == min(len(neighbours), settings.degree_high)
        assert set(meshes.of[node]) <= set(told) <= set(neighbours)


def test_a_hub_offers_to_a_quarter_of_those_outside_its_mesh(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where that is more than D_lazy: of 59 leaves 8 are in the mesh, 4 more are told at once,
    and 12 of 51 are offered it, if they lack it."""
    simulation = network(topology=Topology(kind="star"), settle_s=8)
    told: list[int] = []
    monkeypatch.setattr(simulation.gossip, "_offered", lambda leaf, _: told.append(leaf))
    mesh = simulation.gossip.mesh[0]
    assert len(mesh) == 8
    publish(simulation, 0)
    assert 51 // 4 - 4 <= len(set(told)) == len(told) <= 51 // 4
    assert set(told).isdisjoint(mesh)


def test_a_full_mesh_takes_a_graft_until_the_next_heartbeat_prunes() -> None:
    """As py-libp2p's does: a star's hub has all leaves in its mesh for a moment, then D."""
    simulation = network(topology=Topology(degree=24))
    meshes, settings = simulation.gossip.meshes, simulation.scenario.gossip
    outside = [other for other in meshes.neighbours[0] if other not in meshes.of[0]]
    for other in outside:
        meshes._grafted(0, other)
    assert set(meshes.of[0]) == set(meshes.neighbours[0])
    simulation.run(NS_PER_S)
    assert len(meshes.of[0]) == settings.degree


def test_a_pruned_peer_waits_before_it_is_taken_back() -> None:
    """GRAFT during back-off is answered by PRUNE."""
    simulation = network(gossip=Gossip(back_off_s=30))
    meshes = simulation.gossip.meshes
    other = meshes.of[0][0]
    meshes._prune(0, other)
    simulation.run(NS_PER_S)
    assert other not in meshes.of[0]
    assert 0 not in meshes.of[other]
    meshes._grafted(0, other)
    assert other not in meshes.of[0]
    assert meshes.waits(0, other)
    simulation.run(31 * NS_PER_S)
    assert not meshes.waits(0, other)


def test_who_is_outside_the_topic_publishes_by_fanout_and_hears_nothing() -> None:
    """It is in nobody's mesh, and its message reaches all who are inside."""
    simulation = network(subscribed=False)
    (outside,) = simulation.roles.requesters
    message = publish(simulation, outside)
    assert message.reached == 59
    other = publish(simulation, (outside + 1) % 60)
    assert not other.hops[outside]
    assert not simulation.gossip.mesh[outside]
    assert not any(outside in others for others in simulation.gossip.mesh)


def test_a_dead_node_leaves_all_meshes_and_comes_back() -> None:
    """Its neighbours fill up without it; messages go round it; later it hears again."""
    simulation = network()
    simulation.crash(simulation.peers[5])
    assert not any(5 in others for others in simulation.gossip.mesh)
    message = publish(simulation, 7)
    assert message.reached == 58
    simulation.restart(simulation.peers[5])
    simulation.run(3 * NS_PER_S)
    assert simulation.gossip.mesh[5]
    assert publish(simulation, 8).reached == 59


def test_what_admission_refuses_goes_no_further() -> None:
    """A forged message dies with the first hop, which holds it against the sender."""
    simulation = network(gossip=Gossip(scoring=Scoring(enabled=True)))
    neighbours = simulation.gossip.meshes.neighbours[7]
    for _ in range(4):
        message = publish(simulation, 7, forged=True)
        assert message.reached == 0
    # Once by each: then nobody listens, for as long as a penalty lasts.
    assert simulation.gossip.refused == len(neighbours)
    assert simulation.penalties == {"envelope.bad_signature": len(neighbours)}
    assert publish(simulation, 7).reached == 0
    scores = [simulation.gossip.scores.of(other, 7) for other in neighbours]
    assert max(scores) < 0
    simulation.run(3 * NS_PER_S)
    assert not any(7 in simulation.gossip.mesh[other] for other in neighbours)
    simulation.run(limits.PENALTY_NS)
    assert publish(simulation, 7).reached == 59


def test_scores_are_those_of_the_specification() -> None:
    """P1 and P2 raise, P4 and P7 lower by their squares, all but P1 decay."""
    simulation = network(gossip=Gossip(scoring=Scoring(enabled=True, decay_permille=500)))
    scores = simulation.gossip.scores
    other = next(one for one in range(60) if one not in simulation.gossip.meshes.neighbours[0])
    assert scores.of(0, other) == 0
    scores.first(0, other)
    assert scores.of(0, other) == pytest.approx(0.5)
    scores.invalid(0, other)
    scores.invalid(0, other)
    assert scores.of(0, other) == pytest.approx(0.5 - 10 * 4)
    scores.misbehaved(0, other)
    assert scores.of(0, other) == pytest.approx(0.5 - 40 - 5)
    scores.decay(0)
    assert scores.of(0, other) == pytest.approx(0.25 - 10 - 1.25)
    for _ in range(20):
        scores.decay(0)
    assert scores.of(0, other) == 0
    assert other not in scores._marks[0]


@pytest.mark.parametrize(("every", "grafted"), [(0, 0), (10, 2)])
def test_a_mesh_that_brings_little_takes_two_that_bring_more(every: int, grafted: int) -> None:
    """Opportunistic grafting: the best outside, when the median inside is under the threshold."""
    scoring = Scoring(
        enabled=True,
        time_in_mesh_points=0,
        opportunistic_heartbeats=every,
        opportunistic_threshold=2.0,
    )
    simulation = network(gossip=Gossip(scoring=scoring), topology=Topology(degree=16))
    meshes, scores = simulation.gossip.meshes, simulation.gossip.scores
    before = list(meshes.of[0])
    outside = [other for other in meshes.neighbours[0] if other not in before]
    for other in outside[:3]:
        scores.first(0, other)
    meshes._peers[outside[0]].alive = False
    simulation.run(10 * NS_PER_S)
    assert set(meshes.of[0]) - set(before) == set(outside[1 : 1 + grafted])
    # Nobody is grafted where all do well enough.
    for other, deliveries in [*((other, 9) for other in meshes.of[0]), (outside[3], 50)]:
        for _ in range(deliveries):
            scores.first(0, other)
    simulation.run(10 * NS_PER_S)
    assert outside[3] not in meshes.of[0]


def test_a_node_that_is_busy_hears_later() -> None:
    """A processor does one thing after the other: work in front of a message delays it."""
    simulation = network()
    node = simulation.gossip.meshes.neighbours[7][0]
    simulation.cpu.take(node, simulation.clock.now_ns, 700 * NS_PER_MS)
    peer, now_ns = simulation.peers[7], simulation.clock.now_ns
    data = sign_envelope(peer.signer, simulation.network, REQUEST, now_ns).data
    simulation.gossip.publish(7, data, "Request")
    simulation.run(600 * NS_PER_MS)
    assert not simulation.peers[node].node.admission._seen._until
    simulation.run(400 * NS_PER_MS)
    assert simulation.peers[node].node.admission._seen._until
