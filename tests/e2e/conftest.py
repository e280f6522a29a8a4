"""Marks these tests as e2e, and shows what the daemons logged when one fails."""

from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.support import Daemon, Market

_HERE = Path(__file__).parent
_TAIL_CHARS = 3_000


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test of this folder is an e2e test."""
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the ends of the daemons' logs to a failure's report."""
    report = yield
    if report.failed and _HERE in item.path.parents:
        for daemon in Daemon.started:
            if daemon.log_path.exists():
                tail = daemon.log_path.read_text(errors="replace")[-_TAIL_CHARS:]
                report.sections.append((f"stderr of {daemon.directory.name}", tail))
    return report


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    """A running requester of this test alone, for providers to join."""
    Daemon.started.clear()
    with ExitStack() as stack:
        yield Market(tmp_path, stack)
