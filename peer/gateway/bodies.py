"""Request bodies of OpenAI's API, checked: types, ranges, bounds, and what is not supported.

A field that no client sends by accident is refused when it is unknown: a typo in `max_tokens`
would cost money. Rule: peer/gateway/README.md, "Parameters".
"""

import difflib
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from peer.config import EarlyClose
from peer.gateway.failures import ApiError
from protocol import limits

T = TypeVar("T", bound=Struct)

# Sent by clients for their own or the server's book-keeping: nothing here depends on them.
IGNORED: Final = frozenset({"user", "metadata", "store", "service_tier", "safety_identifier"})
# Hints that the market's models have no setting for.
IGNORED_TOO: Final = frozenset(
    {"parallel_tool_calls", "prompt_cache_key", "verbosity", "reasoning_effort"}
)

Fraction = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Text = Annotated[str, Meta(max_length=limits.MESSAGE_TEXT_CHARS_MAX)]
StopText = Annotated[str, Meta(min_length=1, max_length=limits.STOP_STRING_CHARS_MAX)]
StopTexts = Annotated[list[StopText], Meta(max_length=limits.STOP_STRINGS_MAX)]
Count = Annotated[int, Meta(ge=1, le=limits.OUTPUT_TOKENS_MAX)]
Amount = Annotated[str, Meta(max_length=20)] | Annotated[float, Meta(ge=0)]


class StreamOptions(Struct, forbid_unknown_fields=True):
    """`include_usage` adds a last chunk with the counts and no choice."""

    include_usage: bool = False
    include_obfuscation: bool = False


class Routing(Struct, forbid_unknown_fields=True):
    """OpenRouter's `provider` object: whom to ask and what to weigh; peer ids for names.

    Those in `order` are tried before all others. `max_price` is credits per 1,000,000 tokens, one
    side or both: {"prompt": "15", "completion": "60"}. `race` and `hedge_percent` are ours.
    """

    order: Annotated[list[str], Meta(max_length=limits.PROVIDERS_FILTER_MAX)] = []
    only: Annotated[list[str], Meta(max_length=limits.PROVIDERS_FILTER_MAX)] = []
    ignore: Annotated[list[str], Meta(max_length=limits.PROVIDERS_FILTER_MAX)] = []
    sort: Literal["price", "latency", "throughput", "reputation"] | None = None
    max_price: dict[Literal["prompt", "completion"], Amount] = {}
    allow_fallbacks: bool | None = None
    quantizations: Annotated[list[str], Meta(max_length=limits.QUANTIZATIONS_FILTER_MAX)] = []
    race: Annotated[int, Meta(ge=1, le=limits.RACE_MAX)] | None = None
    hedge_percent: Annotated[int, Meta(ge=0, le=10_000)] | None = None


class Limits(Struct, forbid_unknown_fields=True):
    """The extension `peerd`: what this request may cost, in credits, and how long it may take;
    what counts in the choice, in 1/1000."""

    max_price: Amount | None = None
    timeout_s: Annotated[int, Meta(ge=1, le=3_600)] | None = None
    window_ms: Annotated[int, Meta(ge=10, le=10_000)] | None = None
    early_close_bids: EarlyClose | None = None
    reputation_min: Annotated[int, Meta(ge=0, le=1_000)] | None = None
    completed_min: Annotated[int, Meta(ge=0, le=limits.U32_MAX)] | None = None
    price_weight: Annotated[int, Meta(ge=0, le=1_000)] | None = None
    reputation_weight: Annotated[int, Meta(ge=0, le=1_000)] | None = None


class Sampling(Struct, forbid_unknown_fields=True, kw_only=True):
    """What chat and completion requests have in common."""

    model: Annotated[str, Meta(min_length=1, max_length=limits.MODEL_NAME_CHARS_MAX)]
    max_tokens: Count | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Fraction | None = None
    top_k: Annotated[int, Meta(ge=0, le=1_000)] | None = None
    min_p: Fraction | None = None
    n: Annotated[int, Meta(ge=1, le=limits.API_CHOICES_MAX)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=limits.U63_MAX)] | None = None
    stop: StopText | StopTexts | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: Annotated[dict[str, float], Meta(max_length=limits.LOGIT_BIAS_MAX)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    provider: Routing | None = None
    peerd: Limits | None = None


class ContentPart(Struct):
    """A part of a message's content; only text is taken."""

    type: str
    text: Text = ""


class FunctionCall(Struct):
    """A call that the model made, as clients send it back."""

    name: Annotated[str, Meta(max_length=64)]
    arguments: Text


class ToolCall(Struct):
    """One of an assistant message's calls."""

    id: Annotated[str, Meta(max_length=64)]
    function: FunctionCall
    type: Literal["function"] = "function"


class Message(Struct):
    """A turn of a chat."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | Annotated[list[ContentPart], Meta(max_length=64)] | None = None
    name: Annotated[str, Meta(max_length=64)] | None = None
    tool_calls: Annotated[list[ToolCall], Meta(max_length=limits.TOOLS_MAX)] | None = None
    tool_call_id: Annotated[str, Meta(max_length=64)] | None = None


class JsonSchema(Struct):
    """A schema that the answer has to satisfy."""

    name: Annotated[str, Meta(max_length=64)] = ""
    description: Text = ""
    schema: dict[str, Any] = {}
    strict: bool | None = None


class ResponseFormat(Struct, forbid_unknown_fields=True):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class Function(Struct):
    """A function that the model may call."""

    name: Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{1,64}$")]
    description: Text = ""
    parameters: dict[str, Any] = {}
    strict: bool | None = None


class Tool(Struct):
    """A tool; functions are the only kind."""

    function: Function
    type: Literal["function"] = "function"


class NamedFunction(Struct):
    """A function by its name."""

    name: str


class NamedTool(Struct):
    """`tool_choice` of one function."""

    function: NamedFunction
    type: Literal["function"] = "function"


class ChatBody(Sampling, forbid_unknown_fields=True, kw_only=True):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Meta(min_length=1, max_length=limits.CHAT_MESSAGES_MAX)]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=limits.LOGPROBS_MAX)] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], Meta(max_length=limits.TOOLS_MAX)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None


class CompletionBody(Sampling, forbid_unknown_fields=True, kw_only=True):
    """POST /v1/completions: raw text, no chat template."""

    prompt: Text | Annotated[list[Text], Meta(min_length=1, max_length=1)]
    logprobs: Annotated[int, Meta(ge=0, le=limits.LOGPROBS_MAX)] | None = None
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = None


class EmbeddingBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """POST /v1/embeddings: a vector for each text."""

    model: Annotated[str, Meta(min_length=1, max_length=limits.MODEL_NAME_CHARS_MAX)]
    input: Text | Annotated[list[Text], Meta(min_length=1, max_length=limits.API_TEXTS_MAX)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    provider: Routing | None = None
    peerd: Limits | None = None


def read_json(data: bytes) -> Any:
    """A body as a value: real JSON, without NaN, and text that UTF-8 can hold. ApiError
    `api.bad_request`."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ApiError("api.bad_request", f"the body is not JSON: {error}"[:200]) from error


def parse_body(data: bytes, kind: type[T]) -> T:
    """A body as its type. ApiError `api.bad_request` with the field in `param`."""
    value = read_json(data)
    if not isinstance(value, dict):
        raise ApiError("api.bad_request", "the body is not a JSON object")
    for name in (IGNORED | IGNORED_TOO) & value.keys():
        del value[name]
    _check_names(value, kind)
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        said, _, path = str(error).partition(" - at `$")
        param = path.strip("`.") or None
        where = f"{param}: " if param else ""
        raise ApiError("api.bad_request", f"{where}{said}", param=param) from error


@cache
def _names(kind: type[Struct]) -> tuple[str, ...]:
    """A body's fields. msgspec reads all annotations anew at each call."""
    return tuple(item.encode_name for item in msgspec.structs.fields(kind))


def _check_names(value: Mapping[str, Any], kind: type[Struct]) -> None:
    known = _names(kind)
    for name in sorted(value.keys() - set(known)):
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        shown = name[:40]
        raise ApiError("api.bad_request", f"unknown parameter {shown!r}{hint}", param=shown)
