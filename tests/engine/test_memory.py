"""Who makes room for whom, and that the estimate of a model's need is one from above."""

from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from engine.catalogue import read_model
from engine.memory import Occupant, make_room, needed_bytes
from engine.settings import LlamaSettings
from engine.stage import STAGES, Stage
from protocol.machine import diagram
from tests.engine.babbler import babbler_path

occupants = st.lists(
    st.builds(Occupant, st.just(0), st.integers(1, 100), st.integers(0, 9), st.booleans()),
    max_size=8,
).map(lambda found: [Occupant(key, *_rest(one)) for key, one in enumerate(found)])


def _rest(one: Occupant) -> tuple[int, int, bool]:
    return one.bytes, one.last_used_ns, one.stays


@given(st.integers(1, 200), st.integers(1, 300), occupants)
def test_room_is_made_within_the_budget_and_for_nothing_more(need, budget, there):
    """Enough goes, nothing that stays, and none whose room is not needed."""
    gone = make_room(need, budget, there)
    stays = sum(one.bytes for one in there if one.stays)
    if gone is None:
        assert stays + need > budget
        return
    assert not any(there[key].stays for key in gone)
    left = sum(one.bytes for one in there if one.key not in gone)
    assert left + need <= budget
    assert all(left + there[key].bytes + need > budget for key in gone)


@given(st.integers(1, 200), occupants)
def test_no_budget_is_no_end(need, there):
    assert make_room(need, 0, there) == []


def test_the_least_recently_used_goes_first():
    there = [Occupant(0, 10, 5, False), Occupant(1, 10, 3, False), Occupant(2, 10, 4, False)]
    assert make_room(10, 30, there) == [1]
    assert make_room(20, 30, there) == [1, 2]


def test_a_small_one_stays_when_a_large_one_had_to_go():
    there = [Occupant(0, 1, 1, False), Occupant(1, 20, 2, False)]
    assert make_room(20, 30, there) == [1]


@pytest.mark.parametrize("places", [1, 8])
async def test_the_estimate_is_above_what_a_worker_takes(serve, job, places):
    """The kernel's own high-water mark of a worker that has served a job."""
    settings = LlamaSettings(n_threads=1, places=places)
    async with serve(settings) as engine:
        await engine.run_job(job("Hello " * 200, tokens=20), lambda event: None)
        pid = engine.worker_pid("babbler")
        status = await trio.Path(f"/proc/{pid}/status").read_text()
    (peak,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    peak_bytes = int(peak.split()[1]) * 1024
    need = needed_bytes(read_model(babbler_path()), settings)
    assert peak_bytes <= need <= 8 * peak_bytes


def test_places_and_context_cost_what_their_keys_and_values_do():
    """2 layers of 2 key heads, 64 wide, keys and values, 2 bytes: 1,024 bytes a token."""
    file = read_model(babbler_path())
    assert file.kv_token_bytes == 1_024
    one = needed_bytes(file, LlamaSettings(places=1, context_tokens=100))
    more = needed_bytes(file, LlamaSettings(places=3, context_tokens=200))
    assert more - one == 500 * 1_024


def test_the_table_of_a_model_s_life_is_the_one_that_is_drawn():
    page = Path("engine/README.md").read_text()
    assert f"```mermaid\n{diagram(STAGES)}\n```" in page


def test_every_stage_can_be_reached_and_left():
    assert {old for old, _ in STAGES} == set(Stage) == set(STAGES.values())
