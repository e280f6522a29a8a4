"""Between the node and the engine: starts and cancels jobs, turns their events into inputs."""

from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

import structlog
import trio

from engine.interface import (
    Engine,
    EngineEvent,
    Estimate,
    Finished,
    JobSpec,
    ModelHealth,
    Started,
    Tokens,
)
from engine.job import now_ns
from engine.queue import Priority
from peer.embedding_jobs import run_embedding
from peer.meter import JobFigures, Meter, Outlook
from protocol.errors import EngineError
from protocol.fields import InferenceType
from protocol.quantization import stated
from router.actions import (
    Input,
    JobBroke,
    JobFinished,
    JobStarted,
    JobTokens,
    ModelOffer,
    OffersChanged,
    StartJob,
)

log = structlog.get_logger()

Json = dict[str, Any]

_PROBE_TOKENS = 1_000
_REFRESH_S = 0.2


class Jobs:
    """The running jobs of one engine, and what it can offer at the operator's prices."""

    def __init__(
        self,
        engine: Engine,
        feed: Callable[[Input], None],
        *,
        input_price_ucr: int,
        output_price_ucr: int,
        preferred: Collection[bytes] = (),
    ) -> None:
        self._engine = engine
        self._feed = feed
        self._input_price_ucr = input_price_ucr
        self._output_price_ucr = output_price_ucr
        self._preferred = frozenset(preferred)
        self._meters: dict[str, Meter] = {}
        self._scopes: dict[bytes, trio.CancelScope] = {}
        # Jobs that the engine has, by model.
        self._running: Counter[str] = Counter()
        self._offered: tuple[ModelOffer, ...] = ()
        self._idle = trio.Event()
        self._idle.set()
        self._stirred = trio.Event()

    def start(self, nursery: trio.Nursery, action: StartJob) -> None:
        """Run a job in `nursery`."""
        scope = self._scopes[action.job_id] = trio.CancelScope()
        self._idle = trio.Event() if self._idle.is_set() else self._idle
        nursery.start_soon(self._run, action, scope)
        self._stirred.set()

    def cancel(self, job_id: bytes) -> None:
        """Stop a job at its next step, if it runs."""
        scope = self._scopes.get(job_id)
        if scope is not None:
            scope.cancel()

    async def wait_idle(self) -> None:
        """Until no job runs."""
        await self._idle.wait()

    async def _run(self, action: StartJob, scope: trio.CancelScope) -> None:
        job_id, model = action.job_id, action.model
        meter, outlook = self._meter(model), self._outlook(model)
        expected = meter.correct(outlook)

        def emit(event: EngineEvent) -> None:
            match event:
                case Tokens():
                    pieces = ((event.text, event.count),)
                    self._feed(JobTokens(job_id, pieces, event.logprobs))
                case Started():
                    self._feed(JobStarted(job_id, event.input_tokens))
                case Finished():
                    told = Estimate(action.ttft_ns, action.tokens_per_s_milli)
                    figures = meter.finished(
                        event, outlook, expected, told if action.ttft_ns else None
                    )
                    _log_finished(action, event, figures)
                    self._feed(
                        JobFinished(
                            job_id,
                            event.reason,
                            event.output_tokens,
                            event.ttft_ns,
                            event.duration_ns,
                            event.engine,
                            event.settings,
                        )
                    )

        preferred = action.payer in self._preferred
        self._running[model] += 1
        try:
            with scope:
                spec = JobSpec(
                    job_id,
                    model,
                    action.prompt,
                    action.parameters,
                    action.payer,
                    Priority.INTERACTIVE if preferred else Priority.NORMAL,
                    action.ttft_ns_max,
                )
                if action.prompt.inference_type is InferenceType.EMBEDDING:
                    await run_embedding(self._engine, spec, emit)
                else:
                    await self._engine.run_job(spec, emit)
        except EngineError as error:
            meter.failed()
            log.warning("engine.job_failed", code=error.code, detail=error.detail)
            self._feed(JobBroke(job_id, error.code))
        finally:
            self._running[model] -= 1
            del self._scopes[job_id]
            self._stirred.set()
            if not self._scopes:
                self._idle.set()

    def health(self) -> tuple[ModelHealth, ...]:
        """How each model does, as the engine says."""
        return self._engine.health()

    def offers(self) -> tuple[ModelOffer, ...]:
        """What the engine would promise now, priced."""
        offers = []
        for model in self._engine.models():
            meter = self._meter(model.name)
            outlook = meter.correct(self._outlook(model.name))
            # The node takes those that run off again.
            places = self._engine.free_places(model.name) + self._running[model.name]
            meter.saw_places(places)
            offers.append(
                ModelOffer(
                    name=model.name,
                    digest=model.digest,
                    context_tokens=model.context_tokens,
                    input_price_ucr=self._input_price_ucr,
                    output_price_ucr=self._output_price_ucr,
                    ttft_ns=outlook.ttft_ns,
                    ttft_ns_per_input_token=outlook.ttft_ns_per_input_token,
                    tokens_per_s_milli=outlook.tokens_per_s_milli,
                    places=places,
                    queue_jobs=self._engine.queue_room(model.name),
                    embeds=model.embeds,
                    quantization=stated(model.quantization),
                )
            )
        return tuple(offers)

    def meters(self) -> Json:
        """By model: what was done since the start, and how promises were kept."""
        now = now_ns()
        return {
            name: {**meter.totals(now), "promises": meter.kept_json()}
            for name, meter in self._meters.items()
        }

    def _meter(self, model: str) -> Meter:
        if model not in self._meters:
            self._meters[model] = Meter(now_ns())
        return self._meters[model]

    def _outlook(self, model: str) -> Outlook:
        """What the engine estimates now; nothing for a model that has just gone."""
        try:
            none = self._engine.estimate(model, 0)
            probe = self._engine.estimate(model, _PROBE_TOKENS)
        except EngineError:
            return Outlook(0, 0, 0, 0)
        each_ns = max(0, probe.ttft_ns - none.ttft_ns) // _PROBE_TOKENS
        return Outlook(none.ttft_ns, each_ns, none.tokens_per_s_milli, none.wait_ns)

    async def keep_offers(self) -> None:
        """Tell the node whenever the engine's models or promises change.

        A job that begins or ends says so at once: it may take another model's memory.
        """
        while True:
            offers = self.offers()
            if offers != self._offered:
                if {offer.name for offer in offers} != {offer.name for offer in self._offered}:
                    log.info("offers.changed", models=[offer.name for offer in offers])
                self._offered = offers
                self._feed(OffersChanged(offers))
            with trio.move_on_after(_REFRESH_S):
                await self._stirred.wait()
            self._stirred = trio.Event()
            # A job that was just started has not reached the engine yet.
            await trio.lowlevel.checkpoint()


def _log_finished(action: StartJob, job: Finished, figures: JobFigures) -> None:
    log.info(
        "job.finished",
        job_id=action.job_id,
        model=action.model,
        peer_id=action.payer,
        reason=job.reason.name.lower(),
        input_tokens=job.input_tokens,
        reused_tokens=job.reused_tokens,
        output_tokens=job.output_tokens,
        queue_ns=figures.queue_ns,
        ttft_ns=figures.ttft_ns,
        promised_ttft_ns=action.ttft_ns,
        tokens_per_s=figures.tokens_per_s_milli / 1_000,
        promised_tokens_per_s=action.tokens_per_s_milli / 1_000,
        promise_kept=figures.kept,
    )
