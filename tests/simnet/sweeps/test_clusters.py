"""Ray and Dask, each on a cluster of this machine: the bytes of the pool, and nothing left behind.

Source: simnet/README.md, "Sweeps". Each engine's cluster is begun once, as it takes seconds.
"""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from click.testing import CliRunner

from simnet.cli import main
from tests.e2e.support import hear_interrupts

MEASURED = ("cpu_s", "build_cpu_s", "events_per_cpu_s", "rss_mib", "run_dir")
TINY = """
nodes = 10
duration_s = 6
[[providers]]
name = "one"
count = 2
[[requesters]]
count = 3
"""
# The second takes minutes: it is what a stop breaks off.
LENGTHS = "duration_s=6,40000"
MAIN = "from simnet.cli import main; main()"
MARK = "SWEEP_OF_TEST"
LISTENS = "0A"  # a socket's state in /proc/net/tcp
NAMES = {"ray": "ray", "dask": "distributed"}

engines = pytest.mark.parametrize(
    "engine",
    [
        pytest.param(
            engine,
            marks=pytest.mark.skipif(
                find_spec(module) is None, reason=f"pip install 'peerd[{engine}]'"
            ),
        )
        for engine, module in NAMES.items()
    ],
)


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A directory with a short name: sockets are in it."""
    with TemporaryDirectory(prefix="s", dir="/tmp") as path:
        yield Path(path)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A small scenario's file."""
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


def simnet(*arguments: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of one call."""
    result = CliRunner().invoke(main, ["sweep", *arguments])
    return result.exit_code, result.stdout, result.stderr


def rows(out: Path) -> list[dict[str, str]]:
    """What every run came to, less what it took here."""
    with (out / "results.csv").open() as file:
        found = list(csv.DictReader(file))
    return [{name: row[name] for name in row if name not in MEASURED} for row in found]


def tables(out: Path) -> dict[str, bytes]:
    """All tables of all runs that ended."""
    ended = [path.parent for path in sorted(out.glob("runs/*/summary.json"))]
    paths = [path for folder in ended for path in sorted(folder.glob("*.parquet"))]
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


def marked(mark: str) -> list[int]:
    """Every process that was begun, by however many others, with that in its environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"{MARK}={mark}".encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:
            continue  # it ended meanwhile
    return found


def listening(processes: list[int]) -> list[str]:
    """The addresses at which they take connections, in hex as the system has them."""
    sockets = set()
    for number in processes:
        for path in Path(f"/proc/{number}/fd").glob("*"):
            try:
                sockets.add(os.readlink(path))
            except OSError:
                continue
    lines = [line.split() for kind in ("tcp", "tcp6") for line in _lines(kind)]
    return [
        line[1].partition(":")[0]
        for line in lines
        if line[3] == LISTENS and f"socket:[{line[9]}]" in sockets
    ]


def _lines(kind: str) -> list[str]:
    return Path(f"/proc/net/{kind}").read_text().splitlines()[1:]


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@engines
def test_the_bytes_are_the_pools_and_a_stop_leaves_no_process(
    engine: str, tiny: Path, tmp_path: Path, scratch: Path
) -> None:
    """Seed 1 is the pool's and is kept; the cluster does 2 and 3, and is stopped in the next."""
    pool, out, home = tmp_path / "pool", tmp_path / "out", tmp_path / "home"
    home.mkdir()
    common = (str(tiny), "--tables", "--jobs", "2")
    assert simnet(*common, "--seeds", "1..3", "--set", "duration_s=6", "--out", str(pool))[0] == 0
    assert simnet(*common, "--seeds", "1", "--set", LENGTHS[:12], "--out", str(out))[0] == 0
    wanted = ("--seeds", "1..3", "--set", LENGTHS, "--engine", engine, "--out", str(out))
    command = [sys.executable, "-c", MAIN, "sweep", *common, *wanted]
    environment = os.environ | {MARK: str(tmp_path), "HOME": str(home), "TMPDIR": str(scratch)}
    with subprocess.Popen(
        command,
        env=environment,
        preexec_fn=hear_interrupts,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as sweep:
        assert sweep.stderr is not None
        told = []
        try:
            while "[2 new of 6]" not in "".join(told[-1:]):
                told.append(sweep.stderr.readline())
                assert told[-1], told
            of_cluster = marked(str(tmp_path))
            places = listening(of_cluster)
            os.killpg(sweep.pid, signal.SIGINT)
            told += sweep.stderr.readlines()
            assert sweep.wait() == 1
        finally:
            for number in (left := marked(str(tmp_path))):
                os.kill(number, signal.SIGKILL)
    assert not left
    words = [line.split()[0] for line in told]
    assert words == ["simnet:", "simnet:", "[1", "[2", "simnet:"]  # where, at what cost, the runs
    assert told[-1] == "simnet: stopped after 2 runs; the same command goes on\n"
    assert len(of_cluster) > 2
    assert places
    assert {place[-8:] for place in places} == {"0100007F"}
    assert not [*home.iterdir(), *scratch.iterdir()]
    # What it did until then is the pool's, and is not done again.
    assert rows(out) == rows(pool)
    assert tables(out) == tables(pool)
    assert not json.loads((out / "sweep.json").read_text())["complete"]
    again = simnet(*common, "--seeds", "1..3", "--set", LENGTHS[:12], *wanted[4:], "--json")
    assert again[0] == 0
    assert json.loads(again[1])["new"] == 0


@engines
def test_a_cluster_that_is_not_there_is_one_line(engine: str, tiny: Path, tmp_path: Path) -> None:
    """Nothing listens there, so nothing is written."""
    out = tmp_path / "out"
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
    status, told, error = simnet(
        str(tiny), "--engine", engine, "--cluster", address, "--out", str(out)
    )
    assert (status, told) == (2, "")
    assert error.startswith(f"simnet: sweep.unreachable: --cluster {address}: ")
    assert error.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize("engine", [*NAMES])
def test_an_engine_that_is_not_installed_is_one_line(
    engine: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the command that installs it."""
    monkeypatch.setitem(sys.modules, NAMES[engine], None)
    status, told, error = simnet(str(tiny), "--engine", engine, "--out", str(tmp_path / "out"))
    assert (status, told) == (2, "")
    assert error == (
        f"simnet: config.missing_library: {NAMES[engine]} is not installed; "
        f"install it with: pip install 'peerd[{engine}]'\n"
    )
    assert not (tmp_path / "out").exists()


def test_a_cluster_is_for_an_engine_that_has_one(tiny: Path, tmp_path: Path) -> None:
    """The pool has none."""
    status, _, error = simnet(str(tiny), "--cluster", "h:1", "--out", str(tmp_path / "out"))
    assert status == 2
    assert error == "simnet: config.bad_value: --cluster is for --engine ray or dask\n"
