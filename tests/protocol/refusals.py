"""How tests ask whether bytes are refused, and with which code."""

from typing import Any

import pytest

from protocol import wire
from protocol.errors import RemoteError

WIRE_CODES = {
    "wire.truncated",
    "wire.oversized",
    "wire.malformed",
    "wire.unknown_type",
    "wire.bad_field",
    "wire.not_canonical",
}


def refusal(data: bytes) -> str:
    """The code that `decode` refuses `data` with; any other exception goes up."""
    with pytest.raises(RemoteError) as caught:
        wire.decode(data)
    newer = caught.value.code == "wire.unknown_type"
    assert caught.value.penalize is not newer, "an offence, but for a newer version's message"
    return caught.value.code


def decoded(data: bytes) -> Any:
    """The message, or None for a refusal by a code of the wire; other exceptions go up."""
    try:
        value = wire.decode(data)
    except RemoteError as error:
        code = error.code
    else:
        return value
    assert code in WIRE_CODES
    return None
