"""The worker's loop: messages in, a step, events out, for one loaded model.

Runs in the worker's only thread. Must not know trio or the market. Rule: engine/README.md.
"""

import gc
import os
import resource
import time
from pathlib import Path

from engine import native
from engine.batcher import Batcher
from engine.devices import layers_that_fit, list_devices
from engine.frames import Cancel, Embed, JobFailed, Load, Ready, Recheck, Submit
from engine.pipe import Outbox, Pipe
from engine.prompts import PromptReader
from engine.sampling import SAMPLER_VERSION
from engine.selftest import calibrate, try_adapters
from engine.speed import Speedometer, chunk_tokens


class Service:
    """A model, loaded and tested. EngineError `engine.bad_model` when it can't be."""

    def __init__(self, path: Path, load: Load, pipe: Pipe) -> None:
        self._pipe = pipe
        self._outbox = Outbox()
        native.start_backend()
        gpu_layers = 0
        if native.has_gpu_offload():
            gpu_layers = layers_that_fit(
                list_devices(),
                layers=load.layers,
                layer_bytes=load.layer_bytes,
                step_bytes=load.step_bytes,
            )
        else:
            # Not with a GPU: its driver maps much more than anybody uses.
            _limit_memory(load.data_bytes)
        model = native.NativeModel(
            path,
            places=load.places,
            context_tokens=load.context_tokens,
            threads=load.threads,
            adapters=[
                (Path(os.fsdecode(each.path)), each.scale_milli / 1_000) for each in load.adapters
            ],
            gpu_layers=gpu_layers,
        )
        prompts = PromptReader(model.vocabulary, model.chat_template, model.context_tokens)
        self._step_ns_min = load.step_ns_min
        self._next_step_ns = 0
        self._speedometer = Speedometer(load.places, load.step_ns_min)
        read_ns = calibrate(model, prompts, self._speedometer)
        try_adapters(model)
        speed = self._speedometer.speed()
        # A GPU's time is not this thread's.
        chunk = load.chunk_tokens or chunk_tokens(speed.prefill_ns if gpu_layers else read_ns)
        self._batcher = Batcher(
            model,
            prompts,
            self._speedometer,
            self._outbox.add,
            chunk_tokens=chunk,
            queue_jobs=load.queue_jobs,
            prefix_reuse=load.prefix_reuse,
        )
        settings = (
            f"sampler={SAMPLER_VERSION} {model.settings} chunk={chunk}"
            f" threads={load.threads}{f' gpu_layers={gpu_layers}' if gpu_layers else ''}"
        )
        self._ready = Ready(
            model.context_tokens, native.build_name(), settings, speed, model.pooling
        )

    def serve(self) -> None:
        """Until the input ends. EngineError `engine.crashed` when the model can't go on."""
        self._pipe.send(self._ready)
        # What is here now stays: the collector need not look through it again and again.
        gc.collect()
        gc.freeze()
        while not self._pipe.is_closed:
            self.turn()

    def turn(self) -> None:
        """Take what came, compute a step, report; blocks only when there is nothing to do."""
        has_input = self._pipe.wait(self._rest_ns() if self._may_step else None)
        for message in self._pipe.receive() if has_input else ():
            if isinstance(message, Submit | Recheck | Embed):
                self._submit(message)
            elif isinstance(message, Cancel):
                self._batcher.cancel(message.handle)
            if self._outbox.is_late:
                # Templates and grammars of many jobs take their time: still alive.
                self._report()
        if self._may_step and not self._rest_ns():
            self._next_step_ns = time.monotonic_ns() + self._step_ns_min
            self._batcher.step()
        self._report()

    def _submit(self, message: Submit | Recheck | Embed) -> None:
        try:
            self._batcher.submit(message)
        except MemoryError:
            why = "the job needs more memory than the worker may take"
            self._outbox.add(JobFailed(message.handle, "engine.no_room", why))

    def _rest_ns(self) -> int:
        """How long the operator's pace keeps the next step back."""
        if not self._step_ns_min:
            return 0
        return max(0, self._next_step_ns - time.monotonic_ns())

    @property
    def _may_step(self) -> bool:
        return self._batcher.is_busy and not self._outbox.is_full

    def _report(self) -> None:
        """Send what happened, or let it gather while the daemon has not read the last report."""
        self._pipe.flush()
        steps_soon = self._may_step and not self._rest_ns()
        if not self._pipe.is_clear or (steps_soon and not self._pipe.is_drained):
            return
        report = self._outbox.report(self._speedometer.speed())
        if report is not None:
            self._pipe.send(report)


def _limit_memory(data_bytes: int) -> None:
    """Let the process allocate no more than this, beside what it maps from files; 0: no limit."""
    if data_bytes:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        most = data_bytes if hard == resource.RLIM_INFINITY else min(data_bytes, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
