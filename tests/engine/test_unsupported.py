"""What the engine can't do is refused, never left out. Source: engine/README.md."""

from dataclasses import replace
from typing import Any

import pytest

from engine.sampling import check_supported
from protocol.errors import EngineError
from protocol.fields import (
    ConstraintKind,
    GenerationParameters,
    LogitBias,
    OutputConstraint,
)

PLAIN = GenerationParameters(16, 700, 40, 950, 7, ("END",))


def test_what_every_request_has_is_supported() -> None:
    """Temperature, top-k, top-p, seed and stop strings."""
    check_supported(PLAIN)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("min_p_milli", 50),
        ("repeat_penalty_milli", 1_100),
        ("presence_penalty_milli", 1),
        ("frequency_penalty_milli", -1),
        ("logit_bias", (LogitBias(1, 1),)),
        ("constraint", OutputConstraint(ConstraintKind.JSON, "")),
        ("logprobs", 1),
    ],
)
def test_the_rest_is_refused_by_name(name: str, value: Any) -> None:
    """`engine.bad_spec`: an answer sampled otherwise than asked would be a lie."""
    asked: dict[str, Any] = {name: value}
    with pytest.raises(EngineError) as caught:
        check_supported(replace(PLAIN, **asked))
    assert caught.value.code == "engine.bad_spec"
    assert name in caught.value.detail
