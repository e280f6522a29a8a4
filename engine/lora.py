"""LoRA adapters as files: what an operator names, and what such a file says of itself.

Whether the numbers fit the model, only the worker finds out. Blocking: call it from a thread.
Must not know llama.cpp. Rule: engine/README.md, "Adapters".
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.catalogue import Fingerprint, bad_model, fingerprint
from engine.header import read_header
from engine.interface import ModelInfo
from protocol import limits
from protocol.errors import EngineError

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
# Between a model's name and an adapter's, and in no name of a model.
JOINT = "+"


@dataclass(frozen=True, slots=True)
class AdapterSource:
    """An adapter to offer: `model` is the name of the one that it changes, `scale_milli` how much.

    EngineError `engine.bad_model` for a name or scale that can't be.
    """

    model: str
    name: str
    path: Path
    scale_milli: int = 1_000

    def __post_init__(self) -> None:
        """Refuse what can't be offered."""
        if not _NAME.fullmatch(self.name) or len(self.offered) > limits.MODEL_NAME_CHARS_MAX:
            raise bad_model(self.path, f"an adapter can't be named {self.name!r}")
        if not 0 < self.scale_milli <= limits.ADAPTER_SCALE_MILLI_MAX:
            most = limits.ADAPTER_SCALE_MILLI_MAX / 1_000
            raise bad_model(self.path, f"an adapter's scale is over 0 and at most {most:g}")

    @property
    def offered(self) -> str:
        """What requests ask for: MODEL+NAME."""
        return f"{self.model}{JOINT}{self.name}"


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """A file that looks like an adapter; `digest` is its SHA-256."""

    source: AdapterSource
    fingerprint: Fingerprint
    digest: bytes

    def info(self, base: ModelInfo) -> ModelInfo:
        """The base model with this adapter, as it is offered.

        Its digest is SHA-256 of both files' digests and the scale: another one of the three is
        another model.
        """
        scale = self.source.scale_milli.to_bytes(4, "big")
        whole = hashlib.sha256(b"peerd adapter" + base.digest + self.digest + scale)
        return ModelInfo(
            name=self.source.offered,
            digest=whole.digest(),
            context_tokens=base.context_tokens,
            quantization=base.quantization,
            size_bytes=base.size_bytes + self.fingerprint[2],
            embeds=base.embeds,
        )


def read_adapter(
    source: AdapterSource, digest: Callable[[Path, Fingerprint], bytes]
) -> AdapterFile:
    """Check and describe an adapter's file. EngineError `engine.bad_model`."""
    path = source.path
    mark = fingerprint(path)
    try:
        fields = read_header(path).fields
        kind = fields.get("general.type"), fields.get("adapter.type")
        if kind != (b"adapter", b"lora"):
            raise bad_model(path, "no LoRA adapter: general.type and adapter.type say otherwise")
        return AdapterFile(source, mark, digest(path, mark))
    except OSError as error:
        raise bad_model(path, error.strerror or "unreadable") from None
    except EngineError:
        raise
    # As a model's header: it fails in every way that parsing can.
    except (ValueError, KeyError, IndexError, TypeError, OverflowError, MemoryError) as error:
        raise bad_model(path, str(error) or type(error).__name__) from None
