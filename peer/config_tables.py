"""Settings that are lists of tables: in the configuration file only, as many as there are."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Final

from msgspec import Meta

from protocol import limits
from protocol.fields import Quantization


@dataclass(frozen=True, slots=True)
class RemoteConfig:
    """A model of an OpenAI-compatible server: a table [[provider.remote]] each.

    `url` is the base that ends in /v1; `model` what the server calls it, `name` what requests
    ask for (the same, in lower case, if unset). The key is in the variable `key_env` or the file
    `key_file` (mode 0600). A local model of the same name stands in when the server fails.
    `embeddings` says that it has /embeddings for this model; `quantization` (fp8, int4, q4_k_m)
    what the server keeps it in, where that is known: requesters may ask for it.
    """

    url: Annotated[str, Meta(max_length=limits.REMOTE_URL_CHARS_MAX)]
    model: Annotated[str, Meta(min_length=1, max_length=limits.MODEL_NAME_CHARS_MAX)]
    name: Annotated[str, Meta(max_length=limits.MODEL_NAME_CHARS_MAX)] = ""
    key_env: str = ""
    key_file: str = ""
    places: Annotated[int, Meta(ge=1, le=64)] = 4
    context_tokens: Annotated[int, Meta(ge=16, le=limits.INPUT_TOKENS_MAX)] = 4_096
    embeddings: bool = False
    quantization: Quantization = ""


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """A LoRA adapter of a local model: a table [[provider.adapter]] each.

    The GGUF file at `path` is offered as MODEL+NAME, beside `model` itself, which is what
    `peerd models` calls it. `scale` is how strongly it works.
    """

    model: Annotated[str, Meta(min_length=1, max_length=limits.MODEL_NAME_CHARS_MAX)]
    name: Annotated[str, Meta(min_length=1, max_length=limits.MODEL_NAME_CHARS_MAX)]
    path: Annotated[str, Meta(min_length=1, max_length=4_096)]
    scale: Annotated[float, Meta(ge=0.001, le=limits.ADAPTER_SCALE_MILLI_MAX / 1_000)] = 1.0


TABLES: Final[dict[str, Any]] = {"remote": RemoteConfig, "adapter": AdapterConfig}
_EXAMPLES: Final = {
    "remote": """[[provider.remote]]
url = "http://127.0.0.1:8000/v1"
model = "Qwen/Qwen2.5-7B-Instruct"
key_env = "MY_SERVER_KEY"
""",
    "adapter": """[[provider.adapter]]
model = "llama-3.2-1b-instruct"
name = "brief"
path = "/models/brief-lora.gguf"
scale = 1.0
""",
}


def about_tables() -> Iterator[str]:
    """What each is for, and an example of it."""
    for name, example in _EXAMPLES.items():
        yield f"{TABLES[name].__doc__}\n\n"
        yield f"{example}\n\n"
