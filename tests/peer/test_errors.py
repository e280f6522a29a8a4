"""One error of a group, the most telling. Source: peer/errors.py."""

import pytest

from peer.errors import first_error
from protocol.errors import NetworkError, StorageError

OTHER, CODED = ValueError("x"), NetworkError("network.listen")
DISK, INTERRUPT = StorageError("storage.io"), KeyboardInterrupt()


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([OTHER], OTHER),
        ([OTHER, CODED], CODED),
        ([CODED, BaseExceptionGroup("", [BaseExceptionGroup("", [DISK])])], DISK),
        ([OTHER, INTERRUPT], INTERRUPT),
        ([OTHER, BaseExceptionGroup("", [CODED, INTERRUPT])], CODED),
    ],
)
def test_the_log_s_error_then_a_coded_one_then_any(
    errors: list[BaseException], expected: BaseException
) -> None:
    assert first_error(BaseExceptionGroup("", errors)) is expected
    assert first_error(expected) is expected
