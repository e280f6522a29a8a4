"""The names of what a model's weights are kept in: complete, closed, and in classes.

Source: protocol/README.md, "Quantisation"; the `gguf` package for the names.
"""

import re

import gguf
import pytest

from protocol import limits
from protocol.errors import LocalError
from protocol.quantization import CLASSES, UNKNOWN, known, matches, stated, wanted
from tests.protocol.readme import PAGE

NAMES = {name: kind for kind, names in CLASSES.items() for name in names}
# As OpenRouter's clients send them.
THEIRS = ("int4", "int8", "fp4", "fp6", "fp8", "fp16", "bf16", "fp32", "unknown")


def test_every_file_type_of_gguf_has_a_name_in_one_class() -> None:
    """All that llama.cpp writes; integers by their number of bits."""
    types = {re.sub("^(MOSTLY|ALL)_", "", kind.name) for kind in gguf.LlamaFileType}
    assert types - {"GUESSED"} <= NAMES.keys()
    assert len(NAMES) == sum(map(len, CLASSES.values()))
    for name, kind in NAMES.items():
        bits = re.match(r"(?:I|T)?Q(\d)_", name)
        assert bits is None or kind == f"int{bits[1]}"
    assert max(map(len, [*NAMES, *CLASSES])) <= limits.QUANTIZATION_CHARS_MAX
    assert len(CLASSES) <= limits.QUANTIZATIONS_FILTER_MAX


def test_the_page_has_the_classes() -> None:
    section = PAGE.read_text().partition("### Quantisation\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", section, re.M)
    assert {kind: tuple(re.findall(r"`(\w+)`", names)) for kind, names in rows} == CLASSES


@pytest.mark.parametrize(
    ("told", "asked", "fits"),
    [
        ("Q4_K_M", "q4_k_m", True),
        ("Q4_K_M", "int4", True),
        ("Q4_K_M", "Q4_K_S", False),
        ("Q4_K_M", "int8", False),
        ("int4", "int4", True),
        ("int4", "Q4_K_M", False),  # a class is no file type
        ("BF16", "bf16", True),
        ("bf16", "BF16", True),
        ("F16", "bf16", False),
        ("MXFP4_MOE", "mxfp4", True),
        ("MXFP4_MOE", "fp4", True),
        ("mxfp8", "FP8", True),
        ("fp8", "mxfp8", False),
        ("", "unknown", True),
        ("", "int4", False),
        ("q4_k_m", "int4", False),  # in another case it is none of the list
        ("Q9_NEW", "unknown", True),
        ("F32", "unknown", False),
    ],
)
def test_what_fits(told: str, asked: str, fits: bool) -> None:
    """By name or class; what is not stated, or not known, by `unknown` alone."""
    assert matches(told, (wanted(asked),)) is fits
    assert matches(told, ("Q1_0", wanted(asked))) is fits


def test_what_travels_and_what_may_be_asked_for() -> None:
    """Nothing travels for what isn't known; a person may write in any case, but not anything."""
    assert [stated(name) for name in ("Q8_0", "remote", UNKNOWN, "fp8")] == ["Q8_0", "", "", "fp8"]
    assert [known(name) for name in ("Q8_0", "remote", "")] == ["Q8_0", UNKNOWN, UNKNOWN]
    assert tuple(map(wanted, THEIRS)) == THEIRS
    for text in ("", "int", "q4", "remote", "4bit"):
        with pytest.raises(LocalError) as error:
            wanted(text)
        assert error.value.code == "request.invalid"
