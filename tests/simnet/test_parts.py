"""The parts beneath a simulation: distances, links, graphs, arrivals, prices, machines.

Source: simnet/README.md, "Its limit"; each part's own page.
"""

import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from protocol import crypto
from protocol.errors import ConfigError
from protocol.units import NS_PER_MS, NS_PER_S
from simnet.clock import EventHeap
from simnet.entropy import Entropy
from simnet.extra import need
from simnet.market.workload import arrivals, draw_tokens
from simnet.memory import Recent, VerifiedOnce
from simnet.network.cpu import Cpu
from simnet.network.latency import ACCESS_LINKS, ROUND_TRIPS_MS, cloud_regions, read_matrix
from simnet.network.links import Links
from simnet.network.topology import build
from simnet.peer import Peer
from simnet.scenario.market import Requesters, Tokens
from simnet.scenario.network import Access, Latency, Topology

ROOT = Path(__file__).parents[2]


def make_links(latency: Latency, access: Access, nodes: int = 2) -> Links:
    """Links between nodes that do nothing else."""
    return Links(EventHeap(0), Cpu(nodes), cloud_regions(), latency, access, nodes, 1)


# --- distances ---------------------------------------------------------------------------------


def test_the_table_of_regions_is_as_published() -> None:
    """Square and symmetric; one way is half; Frankfurt to Tokyo takes 227 ms and back."""
    distances = cloud_regions()
    names = list(ROUND_TRIPS_MS)
    for one, other in itertools.product(names, names):
        there = ROUND_TRIPS_MS[one][names.index(other)]
        assert there == ROUND_TRIPS_MS[other][names.index(one)]
    frankfurt, tokyo = names.index("frankfurt"), names.index("tokyo")
    assert distances.one_way_ns[frankfurt][tokyo] == 113_500_000


def test_a_matrix_of_ones_own_is_read_and_its_faults_are_named(tmp_path: Path) -> None:
    """Names in the head and before each line; ms."""
    path = tmp_path / "m.csv"
    path.write_text(",a,b\na,2,30.5\nb,31,4\n")
    matrix = read_matrix(path)
    assert matrix.regions == ("a", "b")
    assert matrix.one_way_ns == ((1_000_000, 15_250_000), (15_500_000, 2_000_000))
    for text, told in (
        (",a,b\na,2,x\nb,1,1\n", "line 2"),
        (",a,b\na,2,3\n", "expected 2 lines"),
        (",a,b\na,2,3\nc,1,1\n", "line 3: expected 'b'"),
        (",a,b\na,2,3\nb,1,-1\n", "line 3"),
        (",a,a\na,2,3\na,1,1\n", "line 1"),
        ("", "line 1"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError) as caught:
            read_matrix(path)
        assert told in caught.value.detail
        assert str(path) in caught.value.detail


# --- links -------------------------------------------------------------------------------------


def test_the_median_trip_is_the_tables_and_its_tail_that_of_monitors() -> None:
    """One way, Dublin to Sydney: 128 ms, and the 90th percentile 2.5 ms over."""
    links = make_links(Latency(regions={"dublin": 1, "sydney": 1}), Access(links={"fast": 1}), 40)
    names = list(links.regions)
    one = links.region.index(names.index("dublin"))
    other = links.region.index(names.index("sydney"))
    links._free_ns = [0] * 40
    trips = []
    for _ in range(4_001):
        links._free_ns[one] = 0
        trips.append(links.trip_ns(one, other, 0))
    trips.sort()
    assert trips[2_000] == pytest.approx(128 * NS_PER_MS, rel=0.005)
    assert trips[3_600] - trips[2_000] == pytest.approx(2.5 * NS_PER_MS, rel=0.15)


def test_an_uplink_sends_one_thing_after_the_other() -> None:
    """Ten copies of 100 kB over 5 Mbit/s: the last arrives 1.6 s after the first, or so."""
    latency = Latency(jitter_permille=0, regions={"dublin": 1})
    links = make_links(latency, Access(links={"constrained": 1}), 11)
    came: list[int] = []
    clock = links._clock
    links.spread(0, range(1, 11), 100_000, 1, lambda *_: came.append(clock.now_ns))
    clock.run(10 * NS_PER_S)
    assert len(came) == 10
    gaps = [after - before for before, after in itertools.pairwise(came)]
    assert all(gap == pytest.approx(160 * NS_PER_MS, rel=0.01) for gap in gaps)


def test_a_dial_waits_once_for_a_busy_processor_and_holds_up_nothing() -> None:
    """600 ms of work before it make a dial 600 ms longer, not three times that for three trips;
    and what leaves while it goes on doesn't wait for its end."""
    latency = Latency(jitter_permille=0, regions={"dublin": 1, "sydney": 1})
    idle = make_links(latency, Access(links={"fast": 1}), 40)
    names = list(idle.regions)
    one, other = (
        Peer(
            idle.region.index(names.index(name)),
            crypto.Signer(bytes(32)),
            None,
            Entropy(1, "peers"),
            "",
        )
        for name in ("dublin", "sydney")
    )
    up_ns, answered_ns = idle.dial_ns(one, other)
    assert up_ns == pytest.approx(5 * 128 * NS_PER_MS, rel=0.02)
    assert answered_ns == pytest.approx(6 * 128 * NS_PER_MS, rel=0.02)
    assert idle.delay_ns(one, other, 0) == pytest.approx(128 * NS_PER_MS, rel=0.02)
    busy = make_links(latency, Access(links={"fast": 1}), 40)
    busy._cpu.take(one.index, 0, 600 * NS_PER_MS)
    assert busy.dial_ns(one, other) == (up_ns + 600 * NS_PER_MS, answered_ns + 600 * NS_PER_MS)


def test_gossip_copies_are_lost_and_streams_wait_instead() -> None:
    """At 20 % loss at both ends, 36 % of copies are lost; a stream loses nothing, but time."""
    links = make_links(Latency(), Access(links={"bad": 1}))
    came: list[int] = []
    for n in range(2_000):
        links.spread(0, (1,), 100, n, lambda *_: came.append(1))
    links._clock.run(60 * NS_PER_S)
    assert len(came) / 2_000 == pytest.approx(0.64, abs=0.03)
    assert links.copies_lost == 2_000 - len(came)
    links._free_ns = [0, 0]
    least_ns = 2 * ACCESS_LINKS["bad"].extra_ns
    waits = []
    for _ in range(500):
        links._free_ns[0] = 0
        waits.append(links.trip_ns(0, 1, 100) - least_ns)
    assert sum(wait > 200 * NS_PER_MS for wait in waits) / 500 == pytest.approx(0.4, abs=0.06)


def test_duplicates_and_partitions() -> None:
    """One copy in two comes twice; nothing passes what is blocked."""
    links = make_links(Latency(), Access(links={"fast": 1}, duplicate_ppm=500_000))
    came: list[int] = []
    for n in range(1_000):
        links.spread(0, (1,), 100, n, lambda *_: came.append(1))
    links._clock.run(NS_PER_S)
    assert len(came) == pytest.approx(1_500, rel=0.05)
    links.blocked = lambda source, target: True
    links.spread(0, (1,), 100, 1, lambda *_: came.append(1))
    links._clock.run(2 * NS_PER_S)
    assert len(came) == pytest.approx(1_500, rel=0.05)


# --- graphs ------------------------------------------------------------------------------------


def connected(neighbours: list[tuple[int, ...]]) -> bool:
    """Whether node 0 reaches all."""
    reached, stack = {0}, [0]
    while stack:
        for other in neighbours[stack.pop()]:
            if other not in reached:
                reached.add(other)
                stack.append(other)
    return len(reached) == len(neighbours)


@pytest.mark.parametrize(
    "kind", ["random-regular", "watts-strogatz", "barabasi-albert", "internet", "star", "regions"]
)
@pytest.mark.parametrize("nodes", [2, 3, 10, 101])
@pytest.mark.parametrize("degree", [1, 2, 7, 16])
def test_a_graph_is_whole_symmetric_and_the_seeds(kind: Any, nodes: int, degree: int) -> None:
    """Whatever its size: connected, no loops, links known at both ends, equal for equal seeds."""
    regions = [node % 3 for node in range(nodes)]
    topology = Topology(kind=kind, degree=degree)
    neighbours = build(topology, nodes, 5, regions, Path())
    assert len(neighbours) == nodes
    assert connected(neighbours)
    for node, others in enumerate(neighbours):
        assert list(others) == sorted(set(others))
        assert node not in others
        assert all(node in neighbours[other] for other in others)
    assert build(topology, nodes, 5, regions, Path()) == neighbours


def test_a_graph_comes_from_a_file_too(tmp_path: Path) -> None:
    """Edges or GML; parts that hang on nothing are linked; faults name the line."""
    (tmp_path / "e").write_text("# a\n0 1\n1,2\n\n4 3\n")
    edges = Topology(kind="edges", path="e")
    assert build(edges, 5, 1, [0] * 5, tmp_path) == [(1,), (0, 2), (1, 3), (2, 4), (3,)]
    (tmp_path / "e").write_text("0 1\n1 9\n")
    with pytest.raises(ConfigError, match="line 2: expected two node numbers from 0 to 4"):
        build(edges, 5, 1, [0] * 5, tmp_path)
    gml = "graph [ node [ id 7 ] node [ id 9 ] edge [ source 7 target 9 ] ]"
    (tmp_path / "g").write_text(gml)
    assert build(Topology(kind="gml", path="g"), 2, 1, [0, 0], tmp_path) == [(1,), (0,)]
    (tmp_path / "g").write_text("graph [ node")
    with pytest.raises(ConfigError):
        build(Topology(kind="gml", path="g"), 2, 1, [0, 0], tmp_path)


def test_a_missing_library_is_one_line_that_says_how_to_get_it() -> None:
    """The simulator's libraries are optional."""
    with pytest.raises(ConfigError, match=r"pip install 'peerd\[sim\]'") as caught:
        need("no_such_library")
    assert caught.value.code == "config.missing_library"


def test_nothing_of_the_optional_part_is_loaded_before_it_is_used() -> None:
    """`simnet list` works without networkx, pyarrow and matplotlib."""
    program = (
        "import sys; sys.modules.update(dict.fromkeys(('networkx', 'pyarrow', 'matplotlib')));"
        "from simnet.cli import main; main(['list'])"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "hello" in done.stdout


# --- arrivals ----------------------------------------------------------------------------------


def times(group: Requesters, seconds: int) -> list[int]:
    """When the group's requests come."""
    return [one.at_ns for one in arrivals(group, seconds * NS_PER_S, 1, Path())]


def test_requests_come_at_their_rate_in_their_pattern() -> None:
    """All patterns have the rate on average; bursts come together, days swing."""
    for kind in ("poisson", "bursts", "diurnal"):
        group = Requesters(arrivals=kind, requests_per_s=5.0, burst_size=20, day_s=100)
        came = times(group, 2_000)
        assert came == sorted(came) == times(group, 2_000)
        assert len(came) == pytest.approx(10_000, rel=0.1), kind
        if kind == "bursts":
            assert len(set(came)) * 20 == len(came)
        if kind == "diurnal":
            rising = sum(at_ns // NS_PER_S % 100 < 50 for at_ns in came)
            assert rising > 0.65 * len(came)


def test_requests_come_from_a_trace(tmp_path: Path) -> None:
    """Times, lengths and models as they are; faults name the line."""
    (tmp_path / "t.csv").write_text("at_s,input,output\n0.5\n1.25,10,20\n2,1,2,small\n99\n")
    group = Requesters(arrivals="trace", trace="t.csv")
    came = list(arrivals(group, 10 * NS_PER_S, 1, tmp_path))
    assert [one.at_ns for one in came] == [500_000_000, 1_250_000_000, 2_000_000_000]
    assert (came[1].input_tokens, came[1].output_tokens, came[2].model) == (10, 20, "small")
    for text in ("1\n0\n", "x\n", "1,-1\n"):
        (tmp_path / "t.csv").write_text(text)
        with pytest.raises(ConfigError, match="line "):
            list(arrivals(group, 10 * NS_PER_S, 1, tmp_path))


def test_lengths_have_their_median_and_their_bound() -> None:
    """Log-normal, cut at the longest."""
    draw = Entropy(1, "lengths")
    drawn = sorted(draw_tokens(draw, Tokens(median=100, max=400)) for _ in range(2_001))
    assert drawn[1_000] == pytest.approx(100, rel=0.06)
    assert drawn[-1] == 400
    assert draw_tokens(draw, Tokens(median=9, spread_permille=0, max=20)) == 9


# --- memory ------------------------------------------------------------------------------------


def test_what_is_remembered_is_the_truth() -> None:
    """A signature that a key made holds; any other byte, key or message is checked and refused."""
    verified = VerifiedOnce()
    signer = verified.signer(bytes(32))
    signature = signer.sign(b"text")
    assert signature == crypto.Signer(bytes(32)).sign(b"text")
    stranger = crypto.Signer(bytes([1]) * 32)
    for _ in range(2):  # the second time from memory
        assert verified(signer.public_key, b"text", signature)
        assert not verified(signer.public_key, b"next", signature)
        assert not verified(stranger.public_key, b"text", signature)
        assert not verified(signer.public_key, b"text", bytes(64))
        assert verified(stranger.public_key, b"text", stranger.sign(b"text"))


def test_a_memory_is_bounded() -> None:
    """The newest half is always there."""
    recent = Recent(10)
    for number in range(1_000):
        recent.put(number, number + 1)
        assert recent.get(number) == number + 1
        assert recent.get(max(0, number - 9)) is not None
    assert len(recent._new) + len(recent._old) <= 20
