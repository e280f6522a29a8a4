"""Between the node and the engine: starts and cancels jobs, turns their events into inputs."""

from collections import Counter
from collections.abc import Callable

import structlog
import trio

from engine.interface import Engine, EngineEvent, Finished, JobSpec, Started, Tokens
from protocol.errors import EngineError
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
    ) -> None:
        self._engine = engine
        self._feed = feed
        self._input_price_ucr = input_price_ucr
        self._output_price_ucr = output_price_ucr
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
        job_id = action.job_id

        def emit(event: EngineEvent) -> None:
            match event:
                case Tokens():
                    pieces = ((event.text, event.count),)
                    self._feed(JobTokens(job_id, pieces, event.logprobs))
                case Started():
                    self._feed(JobStarted(job_id, event.input_tokens))
                case Finished():
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

        self._running[action.model] += 1
        try:
            with scope:
                spec = JobSpec(
                    job_id, action.model, action.prompt, action.parameters, action.payer
                )
                await self._engine.run_job(spec, emit)
        except EngineError as error:
            log.warning("engine.job_failed", code=error.code, detail=error.detail)
            self._feed(JobBroke(job_id, error.code))
        finally:
            self._running[action.model] -= 1
            del self._scopes[job_id]
            self._stirred.set()
            if not self._scopes:
                self._idle.set()

    def offers(self) -> tuple[ModelOffer, ...]:
        """What the engine would promise now, priced."""
        offers = []
        for model in self._engine.models():
            none = self._engine.estimate(model.name, 0)
            probe = self._engine.estimate(model.name, _PROBE_TOKENS)
            per_token_ns = max(0, probe.ttft_ns - none.ttft_ns) // _PROBE_TOKENS
            offers.append(
                ModelOffer(
                    name=model.name,
                    digest=model.digest,
                    context_tokens=model.context_tokens,
                    input_price_ucr=self._input_price_ucr,
                    output_price_ucr=self._output_price_ucr,
                    ttft_ns=none.ttft_ns,
                    ttft_ns_per_input_token=per_token_ns,
                    tokens_per_s_milli=none.tokens_per_s_milli,
                    # The node takes those that run off again.
                    places=self._engine.free_places(model.name) + self._running[model.name],
                )
            )
        return tuple(offers)

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
