"""What a run leaves behind: its resolved scenario, where it came from, tables, summary."""

import hashlib
import json
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from protocol.errors import ConfigError
from simnet.scenario import Scenario, files_of
from simnet.scenario.file import write

SCENARIO_FILE: Final = "scenario.toml"
RUN_FILE: Final = "run.json"
SUMMARY_FILE: Final = "summary.json"
LIBRARIES: Final = ("peerd", "msgspec", "msgpack", "pynacl", "networkx", "pyarrow")


def choose(out: str | None, scenario: str, seed: int) -> Path:
    """The directory of a run, made. A new one beside older runs unless `out` names it.

    ConfigError when `out` already holds a run, or can't be made.
    """
    path = Path(out) if out else Path("simnet-runs") / f"{scenario}-{seed}"
    if out is None:
        number = 1
        while path.exists():
            number += 1
            path = Path("simnet-runs") / f"{scenario}-{seed}-{number}"
    elif (path / RUN_FILE).exists():
        raise ConfigError("config.exists", f"{path} already holds a run; choose another --out")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError("config.unreadable", f"{path}: {error}") from error
    return path


def commit() -> str:
    """The commit of this checkout, with + when files differ from it; empty when it is none."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def versions() -> dict[str, str]:
    """What a run's bytes may depend on."""
    found = {"python": platform.python_version(), "platform": sys.platform}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = ""
    return found


def digests(scenario: Scenario, beside: Path) -> dict[str, str]:
    """SHA-256 of the files that a scenario names; empty for one that can't be read."""
    found = {}
    for name in files_of(scenario):
        try:
            found[name] = hashlib.sha256((beside / name).read_bytes()).hexdigest()
        except OSError:
            found[name] = ""
    return found


def begin(path: Path, scenario: Scenario, seed: int, source: Path, tier: str = "des") -> None:
    """Write what is known before the run."""
    (path / SCENARIO_FILE).write_text(write(scenario, comments=False), "utf-8")
    told = {
        "scenario": scenario.name,
        "source": str(source),
        "files": digests(scenario, source.parent),
        "seed": seed,
        "tier": tier,
        "commit": commit(),
        "versions": versions(),
    }
    (path / RUN_FILE).write_text(json.dumps(told, indent=2) + "\n", "utf-8")


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a run's directory says of its beginning and of its end.

    ConfigError when it holds no run that ended.
    """
    try:
        began = json.loads((path / RUN_FILE).read_text("utf-8"))
        ended = json.loads((path / SUMMARY_FILE).read_text("utf-8"))
    except (OSError, ValueError) as error:
        detail = f"{path} holds no run that ended: {error}"
        raise ConfigError("config.unreadable", detail) from error
    return began, ended


def end(path: Path, summary: dict[str, Any]) -> None:
    """Write what came out."""
    (path / SUMMARY_FILE).write_text(json.dumps(summary, indent=2) + "\n", "utf-8")
