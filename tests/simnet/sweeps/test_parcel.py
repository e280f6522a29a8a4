"""A run that travels as bytes is the same run; what differs or is no result is refused.

Source: simnet/README.md, "Sweeps".
"""

import os
from pathlib import Path

import msgspec
import pytest

from protocol.errors import ConfigError, NetworkError
from simnet.scenario import file as scenario_file
from simnet.sweeps import parcel, processes
from simnet.sweeps.work import Place, Work, reach

TINY = b"""
name = "tiny"
nodes = 4
duration_s = 3
topology = { kind = "edges", path = "near/ring.csv" }
[[providers]]
count = 2
[[requesters]]
count = 2
arrivals = "trace"
trace = "asks.csv"
"""
MEASURED = ("cpu_s", "build_cpu_s", "events_per_cpu_s", "rss_mib")


@pytest.fixture
def item(tmp_path: Path) -> Work:
    """A run that reads two files."""
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "ring.csv").write_text("0 1\n1 2\n2 3\n3 0\n")
    (tmp_path / "asks.csv").write_text("at_s\n0.5\n1.5\n")
    (tmp_path / "there").mkdir()
    resolved = scenario_file.write(scenario_file.parse(TINY), comments=False).encode()
    return Work(0, 7, resolved, str(tmp_path), str(tmp_path / "there"), True, "every")


def test_a_run_is_the_same_when_it_travels(item: Work, tmp_path: Path) -> None:
    """Summary and tables, also where its files are not: nothing of it stays there."""
    summary = processes.work(item)
    tables = {path.name: path.read_bytes() for path in Path(item.directory).iterdir()}
    parcels = tmp_path / "elsewhere"
    parcels.mkdir()
    packed = parcel.pack(item, str(parcels))
    for path in (*Path(item.directory).iterdir(), tmp_path / "asks.csv"):
        path.unlink()
    travelled = parcel.unpack(item, parcel.run(packed))
    assert {name: travelled[name] for name in summary if name not in MEASURED} == {
        name: value for name, value in summary.items() if name not in MEASURED
    }
    assert summary["requests"] == 2
    assert {path.name: path.read_bytes() for path in Path(item.directory).iterdir()} == tables
    assert not [*parcels.iterdir()]


def test_what_is_wrong_with_a_file_is_said_by_its_own_name(item: Work, tmp_path: Path) -> None:
    """Whether it is missing here or its content is found wrong there."""
    (tmp_path / "near" / "ring.csv").write_text("0 1\n1 9\n")
    with pytest.raises(ConfigError, match=r"near/ring\.csv.*line 2") as caught:
        parcel.unpack(item, parcel.run(parcel.pack(item)))
    assert caught.value.code == "config.bad_value"
    (tmp_path / "asks.csv").unlink()
    with pytest.raises(ConfigError, match=r"asks\.csv: No such file"):
        parcel.pack(item)


def test_a_worker_with_another_install_does_not_run(
    item: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what it has otherwise is named."""
    packed, ours = parcel.pack(item), parcel.install()
    monkeypatch.setattr(parcel, "install", lambda: ours | {"code": "0", "pyarrow": "1.0"})
    result = parcel.run(packed)
    assert not msgspec.msgpack.decode(result)["summary"]
    monkeypatch.undo()
    with pytest.raises(ConfigError, match=r"other code of peerd, pyarrow 1\.0, here ") as caught:
        parcel.unpack(item, result)
    assert caught.value.code == "sweep.other_code"


def test_what_is_no_result_is_refused(item: Work) -> None:
    """Other bytes, another shape, another run, a table's name that leads elsewhere."""
    ours = parcel.install()
    summary = b'{"seed": 7}'
    bad = [
        None,
        b"",
        b"\x80",
        msgspec.msgpack.encode({"install": ours, "more": 1}),
        msgspec.msgpack.encode(parcel.Result(ours, [], summary, {"../run": b""})),
        msgspec.msgpack.encode(parcel.Result(ours, [], summary)),
        msgspec.msgpack.encode(parcel.Result(ours, [], b"[]")),
        msgspec.msgpack.encode(parcel.Result(ours, [], b'{"seed": 8}')),
    ]
    for data in bad:
        with pytest.raises(NetworkError) as caught:
            parcel.unpack(item, data)
        assert caught.value.code == "sweep.worker_lost"
    assert not [*Path(item.directory).iterdir()]


def test_a_process_that_dies_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool's, as when the system runs out of memory."""
    monkeypatch.setattr(processes, "work", os._exit)
    with pytest.raises(NetworkError) as caught:
        next(processes.pool([9], Place(1)))  # type: ignore[list-item]
    assert caught.value.code == "sweep.worker_lost"


@pytest.mark.parametrize("address", ["", "nowhere", "tcp://127.0.0.1", "127.0.0.1:port", "[::1"])
def test_an_address_names_a_port(address: str) -> None:
    """One line says what was expected."""
    with pytest.raises(ConfigError, match="expected HOST:PORT"):
        reach(address)
