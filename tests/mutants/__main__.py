"""Breaks the code one line at a time, and sees whether the tests notice.

    python -m tests.mutants [--only NAME] [--json]

Works on a copy of the tree. First the tests have to pass as they are; then each mutant has to
make one of its own fail. Exit status 1 if one survives.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.mutants.catalogue import MUTANTS, Mutant

ROOT: Final = Path(__file__).parents[2]
PASSED, FAILED = 0, 1  # pytest's exit statuses; all others mean that it could not test
TIMEOUT_S: Final = 900


def copy_tree(target: Path) -> None:
    """What git tracks, as it is on the disk now."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def run_tests(tree: Path, tests: tuple[str, ...]) -> tuple[int, str]:
    """Pytest's exit status, and the first test that failed."""
    command = [
        sys.executable,
        "-B",
        "-m",
        "pytest",
        "-x",
        "-q",
        "-n",
        "0",
        "-p",
        "no:cacheprovider",
    ]
    environment = os.environ | {"PYTHONPATH": str(tree), "HYPOTHESIS_PROFILE": "mutants"}
    try:
        done = subprocess.run(
            [*command, *tests],
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return FAILED, "hangs"
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    by = failed[0].split(" - ")[0].partition(" ")[2] if failed else done.stdout[-500:]
    return done.returncode, by


def try_mutant(tree: Path, mutant: Mutant) -> dict[str, str]:
    """What became of it: `caught` by a test, `survived`, or `broken` where nothing ran."""
    path = tree / mutant.file
    source = path.read_text()
    assert source.count(mutant.old) == 1, f"{mutant.name}: its text is not there once"
    path.write_text(source.replace(mutant.old, mutant.new))
    try:
        status, by = run_tests(tree, mutant.tests)
    finally:
        path.write_text(source)
    result = {PASSED: "survived", FAILED: "caught"}.get(status, "broken")
    return {"name": mutant.name, "result": result, "by": by if result != "survived" else ""}


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", metavar="NAME", help="one mutant")
    parser.add_argument("--json", action="store_true", help="one JSON object, at the end")
    arguments = parser.parse_args()
    chosen = [m for m in MUTANTS if arguments.only in (None, m.name)]
    if not chosen:
        parser.error(f"no such mutant; there are: {', '.join(m.name for m in MUTANTS)}")
    results = []
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        tree = Path(name)
        copy_tree(tree)
        every = tuple(dict.fromkeys(test for mutant in chosen for test in mutant.tests))
        status, by = run_tests(tree, every)
        if status != PASSED:
            print(f"the tests do not pass without a mutant: {by}", file=sys.stderr)
            return 1
        for mutant in chosen:
            results.append(try_mutant(tree, mutant))
            print("{result:9} {name:40} {by}".format(**results[-1]), file=sys.stderr)
    caught = sum(result["result"] == "caught" for result in results)
    if arguments.json:
        print(json.dumps({"caught": caught, "of": len(results), "mutants": results}))
    else:
        print(f"{caught} of {len(results)} caught")
    return 0 if caught == len(results) else 1


if __name__ == "__main__":
    sys.exit(main())
