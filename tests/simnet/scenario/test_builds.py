"""What is said to be valid can be built and begun.

Source: simnet/README.md, "Scenarios".
"""

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Meta, Struct
from msgspec.structs import fields

from protocol.errors import ConfigError
from protocol.units import NS_PER_S
from simnet.recording.recorder import Recorder
from simnet.scenario import Scenario
from simnet.scenario.adversaries import AnyAdversary
from simnet.scenario.faults import AnyFault
from simnet.scenario.file import load
from simnet.scenario.market import Gpu, Model, Providers, Requesters
from simnet.simulation import EPOCH_NS, Simulation

EVENTS_MAX = 2_000
EXAMPLES = int(os.environ.get("BUILD_EXAMPLES", "30"))
# What would only make a run long, or needs another file.
MOST = {
    "nodes": 24,
    "count": 4,
    "warmup_s": 2,
    "duration_s": 4,
    "requests_per_s": 20,
    "burst_size": 20,
    "requests": 20,
    "messages_per_s": 200,
}
LEFT_OUT = {"name", "description", "matrix", "path", "trace"}
NAMES = {
    "group": ("", "providers", "requesters", "adversaries"),
    "victims": ("", "providers", "requesters"),
    "gpu": ("laptop", "desktop", "datacenter", "mine"),
}


def values(key: str, hint: Any) -> st.SearchStrategy[Any] | None:
    """The ends of what a key takes, and something small between; None: it keeps its default."""
    if get_origin(hint) is Annotated:
        kind, *metas = get_args(hint)
        if kind not in (int, float):
            return values(key, kind)
        low = next((one.ge for one in metas if isinstance(one, Meta) and one.ge is not None), 1)
        high = next((one.le for one in metas if isinstance(one, Meta) and one.le is not None), 1)
        high = min(high, MOST.get(key, high))
        near = st.integers(int(low), int(min(high, low + 50)))
        return (st.sampled_from([low, high]) | near).map(kind)
    if key in NAMES:
        return st.sampled_from(NAMES[key])
    if get_origin(hint) is Literal:
        return st.sampled_from(get_args(hint))
    if hint is bool:
        return st.booleans()
    return tables(hint) if isinstance(hint, type) and issubclass(hint, Struct) else None


@st.composite
def tables(draw: st.DrawFn, kind: Any) -> dict[str, Any]:
    """A table with a few of its keys, and those that it needs."""
    hints = get_type_hints(kind, include_extras=True)
    found = {key: values(key, hint) for key, hint in hints.items() if key not in LEFT_OUT}
    known = {key: one for key, one in found.items() if one is not None}
    needed = {field.name for field in fields(kind) if field.required} & known.keys()
    few = draw(st.lists(st.sampled_from([*known]), max_size=4)) if known else []
    tag = {kind.__struct_config__.tag_field: kind.__struct_config__.tag}
    return {key: draw(known[key]) for key in known if key in {*needed, *few}} | (
        tag if kind.__struct_config__.tag else {}
    )


@st.composite
def scenarios(draw: st.DrawFn) -> dict[str, Any]:
    """All of a file, as TOML gives it."""
    some = st.lists(st.sampled_from(get_args(AnyFault)).flatmap(tables), max_size=2)
    others = st.lists(st.sampled_from(get_args(AnyAdversary)).flatmap(tables), max_size=2)
    content = {"nodes": draw(st.integers(6, 24)), "warmup_s": 0, "duration_s": 3}
    content |= draw(tables(Scenario))
    content["models"] = [draw(tables(Model))]
    content["gpus"] = [draw(tables(Gpu)) | {"name": "mine"}]
    groups = draw(st.lists(tables(Providers), min_size=1, max_size=2))
    content["providers"] = [
        {"count": 2} | one | {"name": name}
        for name, one in zip(("providers", "adversaries"), groups, strict=False)
    ]
    content["requesters"] = [{"count": 2} | draw(tables(Requesters))]
    return content | {"faults": draw(some), "adversaries": draw(others)}


def test_what_is_valid_is_built_and_runs() -> None:
    """Any accepted scenario: no error but one with a code. Some of those drawn are accepted."""
    seen = {True: 0, False: 0}

    @settings(max_examples=EXAMPLES)
    @given(content=scenarios(), seed=st.integers(0, 9))
    def holds(content: dict[str, Any], seed: int) -> None:
        try:
            scenario = load(empty, content)
        except ConfigError:
            seen[False] += 1
            return
        seen[True] += 1
        with suppress(ConfigError):
            simulation = Simulation(scenario, seed, Recorder(None), empty.parent)
            simulation.begin()
            end_ns = EPOCH_NS + (scenario.warmup_s + 1) * NS_PER_S
            simulation.clock.run_some(end_ns, EVENTS_MAX)

    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder, "empty.toml")
        empty.touch()
        holds()
    assert seen[True] > EXAMPLES // 10, seen
