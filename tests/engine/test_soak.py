"""A short soak in every test run; the real one: `python -m tests.engine.soak`."""

import dataclasses
import json

import pytest
import trio

from tests.engine import soak


async def test_mixed_jobs_end_well_and_are_the_same_alone(monkeypatch):
    """Too short for memory to say anything: that check is the command's."""
    monkeypatch.setattr(soak, "GROWTH_KIB_MAX", 10**6)
    with trio.fail_after(120):
        report = await soak.soak(36, 8, 2)
    assert report.faults == []
    assert report.compared == 8
    assert {"finished", "cancelled"} == set(report.outcomes)
    assert json.loads(json.dumps(soak.to_json(report)))["outcomes"] == report.outcomes
    soak.show(report)


async def test_another_output_is_a_fault(monkeypatch):
    monkeypatch.setattr(soak, "GROWTH_KIB_MAX", 10**6)
    load = soak.load

    async def lie(*arguments):
        found = await load(*arguments)
        return [dataclasses.replace(done, ids=(*done.ids[:-1], 5)) for done in found]

    monkeypatch.setattr(soak, "load", lie)
    with trio.fail_after(120):
        report = await soak.soak(12, 3, 2)
    assert report.different == 3
    assert all("another output alone" in fault for fault in report.faults)


def test_growth_is_the_slope_over_the_whole():
    assert soak.growth_kib([(0, 10), (10, 20), (20, 30)]) == pytest.approx(20)
    assert soak.growth_kib([(0, 10), (10, 12), (20, 10)]) == pytest.approx(0)
    assert soak.growth_kib([(0, 10)]) == 0
