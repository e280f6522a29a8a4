"""A cheque in headers: what is written is read, and what is none is refused by name.

Source: protocol/README.md, "Cheques".
"""

import pytest
from hypothesis import given

from peer.cheque_headers import BODY, NAMES, has_cheque, read_headers, write_headers
from protocol.errors import RemoteError
from protocol.fields import Cheque
from tests.protocol.strategies import values
from tests.vectors.samples import BOUND_CHEQUE

GOOD = {name.lower(): value for name, value in write_headers(BOUND_CHEQUE).items()}


@given(values(Cheque))
def test_what_is_written_is_read(cheque: Cheque) -> None:
    headers = {name.lower(): value for name, value in write_headers(cheque).items()}
    assert read_headers(headers) == cheque
    assert all(value.isascii() and len(value) <= 128 for value in headers.values())


WRONG = ["", " ", "x", "-1", "1.5", "é", "0x1f", "1" * 129]
CASES = [(name, value) for name in (*NAMES, BODY) for value in WRONG]
CASES += [(name, value) for name in NAMES for value in (None, "9" * 20)]


@pytest.mark.parametrize(("name", "value"), CASES)
def test_what_is_no_cheque_is_malformed(name: str, value: str | None) -> None:
    """Each header alone, missing or of a wrong form; one of them is enough to mean a cheque."""
    headers = {**GOOD, name.lower(): value}
    said = {key: text for key, text in headers.items() if text is not None}
    assert has_cheque(said)
    with pytest.raises(RemoteError) as caught:
        read_headers(said)
    assert caught.value.code == "cheque.malformed"
    assert not has_cheque({"host": "127.0.0.1"})
