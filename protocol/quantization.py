"""What a model's weights are kept in: the names that providers state and requesters ask for.

A closed list: the file types of GGUF files by their names there, upper case, in classes of the
names that OpenRouter's clients send, lower case. A provider of something else states a class, or
nothing. Pure. Rule: protocol/README.md, "Quantisation".
"""

from typing import Final

from protocol.errors import LocalError

UNKNOWN: Final = "unknown"

CLASSES: Final[dict[str, tuple[str, ...]]] = {
    "fp32": ("F32",),
    "bf16": ("BF16",),
    "fp16": ("F16",),
    "fp8": (),
    "mxfp8": (),
    "int8": ("Q8_0",),
    "fp6": (),
    "int6": ("Q6_K",),
    "int5": ("Q5_0", "Q5_1", "Q5_K", "Q5_K_S", "Q5_K_M"),
    "fp4": (),
    "mxfp4": ("MXFP4_MOE", "MXFP4"),
    "nvfp4": ("NVFP4",),
    "int4": ("Q4_0", "Q4_1", "Q4_K", "Q4_K_S", "Q4_K_M", "IQ4_NL", "IQ4_XS"),
    "int3": ("Q3_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "IQ3_XXS", "IQ3_XS", "IQ3_S", "IQ3_M"),
    "int2": ("Q2_K", "Q2_K_S", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "TQ2_0"),
    "int1": ("Q1_0", "IQ1_S", "IQ1_M", "TQ1_0"),
}
# Asking for 4-bit floats means all kinds of them.
_WITHIN: Final[dict[str, str]] = {"mxfp4": "fp4", "nvfp4": "fp4", "mxfp8": "fp8"}
_CLASS_OF: Final = {name: kind for kind, names in CLASSES.items() for name in names}


def known(name: str) -> str:
    """A name or class as it was stated; UNKNOWN for nothing, or for what is none of the list."""
    return name if name in _CLASS_OF or name in CLASSES else UNKNOWN


def stated(name: str) -> str:
    """As `known`, in the form that travels: what isn't known is not stated."""
    found = known(name)
    return "" if found == UNKNOWN else found


def wanted(text: str) -> str:
    """A class or name that a person asks for, in any case. LocalError `request.invalid`."""
    kind, name = text.lower(), text.upper()
    if kind in CLASSES or kind == UNKNOWN:
        return kind
    if name in _CLASS_OF:
        return name
    kinds = ", ".join([*CLASSES, UNKNOWN])
    said = f"no quantisation {text[:20]!r}; a GGUF file's (Q4_K_M), or of {kinds}"
    raise LocalError("request.invalid", said)


def matches(told: str, asked: tuple[str, ...]) -> bool:
    """Whether what a provider states is one of those asked for, by name or by class."""
    name = known(told)
    kind = _CLASS_OF.get(name, name)
    return any(one in (name, kind, _WITHIN.get(kind)) for one in asked)
