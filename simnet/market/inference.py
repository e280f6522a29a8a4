"""A provider's machine: places, prefills one after the other, decoding that slows with company.

Takes StartJob and CancelJob, gives what an engine gives. Text is filler: what it says is nobody's
business here, how long it is, what it costs and when it comes is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from protocol.fields import FinishReason, Prompt
from protocol.units import NS_PER_MS, NS_PER_S
from router import actions as act
from router.actions import Input, StartJob
from simnet.clock import EventHeap
from simnet.peer import Peer
from simnet.scenario.market import Gpu, Model

# Of a text, in 1/1000; whole words, so that a token is as many as there are spaces.
TOKEN_MILLIBYTES: Final = 4_000
TOKEN_MILLIBYTES_MIN, TOKEN_MILLIBYTES_MAX = 1_000, 16_000
# Tokens after the first come in steps: a chunk a token would simulate nothing but chunks.
STEP_TOKENS: Final = 16


@lru_cache(maxsize=256)
def filler(tokens: int, token_millibytes: int = TOKEN_MILLIBYTES) -> str:
    """Text of so many tokens, in words that are as long as those of its kind."""
    size, more = divmod(tokens * token_millibytes // 1_000, max(1, tokens))
    longer, word = ("abcdefghijklmnop"[:letters] + " " for letters in (size, size - 1))
    return longer * more + word * (tokens - more)


def tokens_of(text: str) -> int:
    """How many tokens of filler a text is."""
    return text.count(" ")


def token_millibytes(text: str) -> int:
    """How long the tokens of a text are: of which kind it is."""
    return len(text) * 1_000 // max(1, tokens_of(text))


def prompt_tokens(prompt: Prompt) -> int:
    """What the simulated tokenizer makes of a prompt."""
    return sum(tokens_of(message.content) for message in prompt.messages) + 4


@dataclass(slots=True)
class RunningJob:
    """A job on the machine. Times in ns."""

    job_id: bytes
    model: Model
    output_tokens: int
    reason: FinishReason
    started_ns: int
    token_millibytes: int = TOKEN_MILLIBYTES
    made: int = 0
    ttft_ns: int = 0


class Machine:
    """One provider's GPU; `speed_permille` is its own speed against the class's."""

    __slots__ = (
        "_clock",
        "_give",
        "_prefill_free_ns",
        "_stirred",
        "busy_ns",
        "gpu",
        "peer",
        "slowdown_permille",
        "speed_permille",
        "tokens_made",
    )

    def __init__(
        self,
        clock: EventHeap,
        peer: Peer,
        gpu: Gpu,
        speed_permille: int,
        give: Callable[[Peer, Input], None],
        stirred: Callable[[Peer], None],
    ) -> None:
        self._clock = clock
        self._give = give
        self._stirred = stirred
        self._prefill_free_ns = 0
        self.peer = peer
        self.gpu = gpu
        self.speed_permille = speed_permille
        self.slowdown_permille = 1_000  # of a fault: time taken, which is not in the promises
        self.tokens_made = 0
        self.busy_ns = 0  # sum over jobs, for utilisation

    # --- promises --------------------------------------------------------------------------

    def _scaled_ns(self, model: Model, per_s: int) -> int:
        """Time a token, at so many a second of a model of work 1000."""
        return max(1, NS_PER_S * model.work_permille // (per_s * self.speed_permille))

    def prefill_ns(self, model: Model) -> int:
        """One prompt token."""
        return self._scaled_ns(model, self.gpu.prefill_tokens_per_s)

    def decode_ns(self, model: Model, jobs: int) -> int:
        """One output token of each of `jobs` at once."""
        alone_ns = self._scaled_ns(model, self.gpu.decode_tokens_per_s)
        return alone_ns + alone_ns * self.gpu.slowdown_permille * max(0, jobs - 1) // 1_000

    @property
    def running(self) -> int:
        """Jobs that have not ended."""
        return len(self.peer.jobs)

    def queue_ns(self) -> int:
        """How long prefills that are under way still take."""
        return max(0, self._prefill_free_ns - self._clock.now_ns)

    # --- jobs ------------------------------------------------------------------------------

    def start(self, action: StartJob, model: Model, output_tokens: int) -> None:
        """Take a job that will make `output_tokens`, or as many as it may."""
        peer, now_ns = self.peer, self._clock.now_ns
        limit = action.parameters.output_tokens_max
        reason = FinishReason.LENGTH if output_tokens >= limit else FinishReason.STOP
        job = RunningJob(action.job_id, model, min(limit, output_tokens), reason, now_ns)
        job.token_millibytes = token_millibytes(action.prompt.messages[0].content)
        peer.jobs[action.job_id] = job
        input_tokens = prompt_tokens(action.prompt)
        # Never inside the step that starts it: the rest of that step's actions come first.
        self._clock.at(now_ns, self._started, peer.incarnation, job, input_tokens)
        prefill_ns = self.prefill_ns(model) * input_tokens * self.slowdown_permille // 1_000
        self._prefill_free_ns = max(self._prefill_free_ns, now_ns) + prefill_ns
        first_ns = self._prefill_free_ns + self.gpu.overhead_ms * NS_PER_MS
        self._clock.at(first_ns, self._step, peer.incarnation, job, 1)

    def cancel(self, job_id: bytes) -> None:
        """Stop a job; nothing more is heard of it."""
        job = self.peer.jobs.pop(job_id, None)
        if job is not None:
            self.busy_ns += self._clock.now_ns - job.started_ns
            self._stirred(self.peer)

    def _runs(self, incarnation: int, job: RunningJob) -> bool:
        peer = self.peer
        return peer.incarnation == incarnation and peer.jobs.get(job.job_id) is job

    def _started(self, incarnation: int, job: RunningJob, input_tokens: int) -> None:
        if self._runs(incarnation, job):
            self._give(self.peer, act.JobStarted(job.job_id, input_tokens))

    def _step(self, incarnation: int, job: RunningJob, tokens: int) -> None:
        if not self._runs(incarnation, job):
            return
        now_ns = self._clock.now_ns
        job.ttft_ns = job.ttft_ns or now_ns - job.started_ns
        job.made += tokens
        self.tokens_made += tokens
        pieces = tuple(
            (filler(count, job.token_millibytes), count)
            for count in _pieces(tokens, piece_max=STEP_TOKENS // 2)
        )
        self._give(self.peer, act.JobTokens(job.job_id, pieces))
        left = job.output_tokens - job.made
        if left > 0:
            following = min(STEP_TOKENS, left)
            step_ns = following * self.decode_ns(job.model, self.running)
            step_ns = step_ns * self.slowdown_permille // 1_000
            self._clock.at(now_ns + step_ns, self._step, incarnation, job, following)
            return
        self.cancel(job.job_id)
        duration_ns = now_ns - job.started_ns
        finished = act.JobFinished(
            job.job_id, job.reason, job.made, job.ttft_ns, duration_ns, "sim", self.gpu.name
        )
        self._give(self.peer, finished)


def _pieces(tokens: int, piece_max: int) -> list[int]:
    """`tokens` in pieces that fit any credit window."""
    whole, rest = divmod(tokens, piece_max)
    return [piece_max] * whole + ([rest] if rest else [])
