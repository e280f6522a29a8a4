"""A short run of the fuzz in every test run; thousands: `python -m tests.engine.fuzz`."""

import os
import signal

import trio

from tests.engine import fuzz
from tests.engine import fuzz_headers as fuzz_headers_module
from tests.engine.babbler import BABBLER_NAME
from tests.engine.fuzz_headers import fuzz_headers
from tests.engine.fuzz_tally import Tally


async def test_no_job_ends_the_worker_or_harms_another():
    """And every kind of outcome came up, so the jobs are neither all tame nor all absurd."""
    with trio.fail_after(120):
        tally = await fuzz.fuzz(100, 3)
    assert tally.faults == []
    kinds = {"finished", "cancelled", "engine.bad_spec", "re-checked", "embedded"}
    assert kinds <= tally.outcomes.keys()
    assert tally.outcomes["finished"] > 15


async def test_the_fuzz_notices_a_worker_that_dies(monkeypatch):
    watch = fuzz.watch

    async def kill(engine, texts, tally):
        os.kill(engine.worker_pid(BABBLER_NAME), signal.SIGKILL)
        await watch(engine, texts, tally)

    monkeypatch.setattr(fuzz, "watch", kill)
    with trio.fail_after(120):
        tally = await fuzz.fuzz(2, 3)
    assert any("the worker died" in fault for fault in tally.faults)
    assert any("the witness: engine.crashed" in fault for fault in tally.faults)


async def test_no_header_ends_the_reader_and_what_it_accepts_no_daemon():
    with trio.fail_after(120):
        tally = await fuzz_headers(300, 4, 5)
    assert tally.faults == []
    assert {"header engine.bad_model", "header accepted", "loads"} <= tally.outcomes.keys()
    assert tally.outcomes["loads"] == 4
    assert tally.outcomes["header accepted"] > 50


def test_the_fuzz_notices_a_reader_that_fails(monkeypatch, tmp_path):
    def read(path):
        raise RecursionError

    monkeypatch.setattr(fuzz_headers_module, "read_model", read)
    tally = Tally()
    assert not fuzz_headers_module.read_one(tmp_path, tally)
    assert "RecursionError" in tally.faults[0]
