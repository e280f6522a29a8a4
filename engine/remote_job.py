"""One job that a server does: from the answer as it comes to the caller's events.

Knows nothing of sockets. Rule: engine/README.md, "Remote".
"""

from collections.abc import Callable

from engine.completions import Answer, estimated_tokens
from engine.interface import EngineEvent, Finished, JobSpec, Started, Tokens
from engine.job import now_ns
from protocol import limits

ENGINE_NAME = "remote openai-compatible"


class RemoteJob:
    """One job's events, from the answer as it comes to the caller's."""

    def __init__(self, spec: JobSpec, emit: Callable[[EngineEvent], None]) -> None:
        self.begin_ns = self.placed_ns = now_ns()
        self.first_ns = 0
        self.input_tokens = estimated_tokens(spec.prompt)
        self.answer = Answer(spec.parameters, self._tokens)
        self._emit = emit

    def _tokens(self, tokens: Tokens) -> None:
        if not self.first_ns:
            self.first_ns = now_ns()
            self._emit(Started(self.input_tokens))
        self._emit(tokens)

    def finish(self, model: str) -> None:
        """The last event; an answer without a token also has a first."""
        answer = self.answer
        assert answer.reason is not None
        end_ns = now_ns()
        if not self.first_ns:
            self._emit(Started(self.input_tokens))
        settings = f"{answer.settings} input=estimate model={model}"
        self._emit(
            Finished(
                reason=answer.reason,
                input_tokens=answer.input_tokens or self.input_tokens,
                output_tokens=answer.output_tokens,
                ttft_ns=(self.first_ns or end_ns) - self.begin_ns,
                duration_ns=end_ns - self.begin_ns,
                engine=ENGINE_NAME,
                settings=settings[: limits.BUILD_NAME_CHARS_MAX],
                queue_ns=self.placed_ns - self.begin_ns,
            )
        )
