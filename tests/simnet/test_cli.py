"""The `simnet` command: real runs, repeatable by seed."""

import json

from click.testing import CliRunner

from simnet.cli import main


def run(*arguments: str) -> tuple[int, str]:
    """Exit status and output of one call."""
    result = CliRunner().invoke(main, ["run", *arguments])
    return result.exit_code, result.output


def test_a_run_balances_and_repeats() -> None:
    """Every request ends, the books balance, and the same seed gives the same trace."""
    arguments = ("--nodes", "8", "--providers", "4", "--requests", "4", "--seed", "7", "--json")
    status, first = run(*arguments)
    assert status == 0
    summary = json.loads(first)
    assert summary["done"] + summary["failed"] == 4
    assert summary["done"] > 0
    assert summary["checks_ok"] is True
    again = json.loads(run(*arguments)[1])
    assert again["trace_hash"] == summary["trace_hash"]
    other = json.loads(run(*arguments[:-3], "--seed", "8", "--json")[1])
    assert other["trace_hash"] != summary["trace_hash"]


def test_wrong_use_is_one_line_and_status_two() -> None:
    """Somebody has to ask."""
    status, output = run("--nodes", "4", "--providers", "4")
    assert status == 2
    assert "--providers must be fewer" in output
