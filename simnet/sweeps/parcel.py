"""A run as it travels to a cluster's worker, and what comes back: bytes both ways, in msgpack.

Out go the scenario, the seed and the files that it reads; back come the summary and the tables. A
worker has the code from its own install, which must be the same to the byte: else it says so and
does not run.
"""

import hashlib
import json
import tempfile
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import msgspec

from protocol.errors import CODES, ConfigError, NetworkError
from simnet.recording.recorder import Recorder
from simnet.recording.tables import TABLES
from simnet.runs import directory as run_directory
from simnet.runs.runner import Run
from simnet.scenario import Scenario, files_of
from simnet.scenario import file as scenario_file
from simnet.sweeps.work import Work

# What a scenario reads, together: an edge list of 100,000 nodes with 32 links each is 40 MB.
FILES_BYTES_MAX: Final = 64 << 20
# A run's tables: those of `tenthousand` are 4 MB.
RESULT_BYTES_MAX: Final = 2 << 30
CODE: Final = ("protocol", "router", "engine", "simnet")

# A run has the process for itself: the memory of checked signatures, the garbage collector.
_ALONE: Final = threading.Lock()


class Parcel(msgspec.Struct, forbid_unknown_fields=True):
    """To a worker."""

    scenario: bytes
    seed: int
    check: str
    tables: bool
    files: dict[str, bytes]
    install: dict[str, str]
    folder: str  # where it may write: of a cluster that ends with the sweep; else its own choice


class Result(msgspec.Struct, forbid_unknown_fields=True):
    """From a worker: of its install, and either an error's code and detail, or a run."""

    install: dict[str, str]
    error: list[str] = []
    summary: bytes = b""
    tables: dict[str, bytes] = {}


@lru_cache(maxsize=1)
def install() -> dict[str, str]:
    """What a run's bytes depend on: the source's digest, versions of Python and libraries."""
    digest = hashlib.sha256()
    root = Path(__file__).parent.parent.parent
    for package in CODE:
        for path in sorted((root / package).rglob("*.py")):
            data = path.read_bytes()
            digest.update(f"{path.relative_to(root)} {len(data)}\n".encode() + data)
    return {"code": digest.hexdigest(), **run_directory.versions()}


def pack(item: Work, folder: str = "") -> bytes:
    """The parcel of a run. ConfigError when a file can't be read, or is too large."""
    files: dict[str, bytes] = {}
    for name in files_of(scenario_file.parse(item.scenario)):
        path = Path(item.beside) / name
        try:
            files[name] = path.read_bytes()
        except OSError as error:
            raise ConfigError("config.unreadable", f"{path}: {error.strerror}") from error
        if sum(map(len, files.values())) > FILES_BYTES_MAX:
            raise ConfigError("config.bad_value", f"{path}: over {FILES_BYTES_MAX} bytes with all")
    return msgspec.msgpack.encode(
        Parcel(item.scenario, item.seed, item.check, item.tables, files, install(), folder)
    )


def run(data: bytes) -> bytes:
    """Do the run of a parcel; its result. This is what a cluster's worker calls."""
    parcel = msgspec.msgpack.decode(data, type=Parcel)
    if parcel.install != install():
        return msgspec.msgpack.encode(Result(install()))
    folder = parcel.folder or None
    with _ALONE, tempfile.TemporaryDirectory(prefix="simnet-", dir=folder) as place:
        return msgspec.msgpack.encode(_run(parcel, Path(place)))


def _run(parcel: Parcel, place: Path) -> Result:
    scenario = scenario_file.parse(parcel.scenario)
    names: dict[str, str] = {}
    for number, (name, data) in enumerate(parcel.files.items()):
        path = place / str(number)
        path.write_bytes(data)
        names[name] = str(path)
    recorder = Recorder(place if parcel.tables else None)
    check: Any = parcel.check
    try:
        summary = Run(_reading(scenario, names), parcel.seed, place, recorder, check=check).go()
    except ConfigError as error:
        detail = error.detail
        for name, moved in names.items():
            detail = detail.replace(moved, name)
        return Result(install(), [error.code, detail])
    recorder.close()
    tables = {path.stem: path.read_bytes() for path in sorted(place.glob("*.parquet"))}
    return Result(install(), [], json.dumps(summary).encode(), tables)


def unpack(item: Work, data: object) -> dict[str, Any]:
    """The summary of a result; its tables are written into the run's directory.

    ConfigError: `sweep.other_code`, and what was wrong with the run. NetworkError: no result.
    """
    try:
        if not isinstance(data, bytes) or len(data) > RESULT_BYTES_MAX:
            raise ValueError(f"{type(data).__name__}, or over {RESULT_BYTES_MAX} bytes")
        result = msgspec.msgpack.decode(data, type=Result)
    except (ValueError, msgspec.MsgspecError) as error:
        raise NetworkError("sweep.worker_lost", f"no result: {error}") from error
    ours = install()
    differs = [
        name for name in ours | result.install if ours.get(name) != result.install.get(name)
    ]
    if differs:
        told = ", ".join(_differs(name, result.install.get(name), ours[name]) for name in differs)
        raise ConfigError("sweep.other_code", f"a worker has {told}")
    if result.error:
        code, detail = [*result.error, "", ""][:2]
        raise ConfigError(code if code in CODES else "config.bad_value", detail)
    try:
        summary: dict[str, Any] = msgspec.json.decode(result.summary, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise NetworkError("sweep.worker_lost", f"no summary: {error}") from error
    tables = set(TABLES) if item.tables else set()
    if summary.get("seed") != item.seed or set(result.tables) != tables:
        raise NetworkError("sweep.worker_lost", "the result is another run's")
    for name, table in result.tables.items():
        (Path(item.directory) / f"{name}.parquet").write_bytes(table)
    return summary


def _differs(name: str, theirs: str | None, ours: str) -> str:
    if name == "code":
        return "other code of peerd"
    return f"{name} {theirs or 'not at all'}, here {ours or 'not at all'}"


def _reading(scenario: Scenario, names: dict[str, str]) -> Scenario:
    """The same scenario, with its files elsewhere."""
    replace = msgspec.structs.replace
    topology, latency = scenario.topology, scenario.latency
    return replace(
        scenario,
        topology=replace(topology, path=names.get(topology.path, topology.path)),
        latency=replace(latency, matrix=names.get(latency.matrix, latency.matrix)),
        requesters=tuple(
            replace(group, trace=names.get(group.trace, group.trace))
            for group in scenario.requesters
        ),
    )
