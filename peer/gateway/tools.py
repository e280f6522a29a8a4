"""Tool calls on models that know nothing of them: instructions in, JSON out.

The tools are described in a system message, which asks for one JSON object a call. A forced
call is held to the function's schema; a free one is taken when the answer is such an object.
Rule: peer/gateway/README.md, "Tools".
"""

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from peer.gateway.bodies import NamedTool, Tool, ToolCall
from peer.gateway.failures import ApiError
from protocol import limits
from protocol.fields import ConstraintKind, OutputConstraint


@dataclass(frozen=True, slots=True)
class Plan:
    """What a request with tools adds to its prompt and to its output's form."""

    instructions: str = ""
    constraint: OutputConstraint | None = None
    names: tuple[str, ...] = ()


def plan(offered: Sequence[Tool], choice: str | NamedTool | None) -> Plan:
    """Instructions and constraint. ApiError `api.bad_request` for a tool that is not there."""
    if choice not in (None, "none", "auto") and not offered:
        raise ApiError("api.bad_request", "tool_choice without tools", param="tool_choice")
    if not offered or choice == "none":
        return Plan()
    chosen = list(offered)
    if isinstance(choice, NamedTool):
        chosen = [tool for tool in offered if tool.function.name == choice.function.name]
        if not chosen:
            raise ApiError("api.bad_request", "no such tool", param="tool_choice")
    forced = choice == "required" or isinstance(choice, NamedTool)
    listed = "\n".join(_described(tool) for tool in chosen)
    rule = (
        "Call one of these functions."
        if forced
        else "You may call one of these functions, when one helps; else answer in words."
    )
    instructions = (
        f"{rule} To call one, answer with nothing but a JSON object "
        f'{{"name": FUNCTION, "arguments": {{...}}}}.\n{listed}'
    )
    names = tuple(tool.function.name for tool in chosen)
    return Plan(instructions, _forced(chosen) if forced else None, names)


def _described(tool: Tool) -> str:
    function = tool.function
    parameters = json.dumps(function.parameters, ensure_ascii=False)
    return f"- {function.name}: {function.description} Parameters: {parameters}"


def _forced(chosen: Sequence[Tool]) -> OutputConstraint:
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"const": tool.function.name},
                "arguments": tool.function.parameters or {"type": "object"},
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for tool in chosen
    ]
    schema: Any = calls[0] if len(calls) == 1 else {"anyOf": calls}
    text = json.dumps(schema, ensure_ascii=False)
    if len(text) > limits.CONSTRAINT_CHARS_MAX:
        raise ApiError("api.bad_request", "the tools' schemas are too long", param="tools")
    return OutputConstraint(ConstraintKind.JSON_SCHEMA, text)


def find_call(text: str, names: Sequence[str]) -> dict[str, Any] | None:
    """The call of one of `names` that an answer makes, in OpenAI's shape; None for words."""
    stripped = text.strip().removeprefix("```json").removeprefix("```").removesuffix("```")
    try:
        value = json.loads(stripped)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or value.get("name") not in names:
        return None
    arguments = value.get("arguments", {})
    if not isinstance(arguments, dict):
        return None
    return {
        "id": f"call_{secrets.token_hex(12)}",
        "type": "function",
        "function": {"name": value["name"], "arguments": json.dumps(arguments)},
    }


def calls_text(text: str, calls: Sequence[ToolCall]) -> str:
    """An assistant's turn that made calls, as the model wrote them."""
    written = []
    for call in calls:
        name = json.dumps(call.function.name)
        written.append(f'{{"name": {name}, "arguments": {call.function.arguments}}}')
    return "\n".join([*([text] if text else []), *written])


def result_text(call_id: str, text: str) -> str:
    """A tool's result as a turn that any chat template knows."""
    return f"Result of the call {call_id}:\n{text}"
