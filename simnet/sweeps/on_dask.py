"""Runs on Dask: a cluster that is there, or one of this machine that is begun and ended here.

That one listens on loopback only, and lets in who has its certificate, made for this sweep and
kept in memory.
"""

import logging
import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing import resource_tracker
from typing import Any, Final

from protocol.errors import ConfigError, NetworkError
from simnet.extra import need
from simnet.sweeps import parcel
from simnet.sweeps.work import REACH_S, Ended, Place, Work, by_turns, reach, unreachable

# No page about the cluster, nor anything else by HTTP.
QUIET: Final = {
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.diagnostics.nvml": False,
}


def on_dask(items: Sequence[Work], place: Place) -> Ended:
    """All of it, in the order in which the runs end.

    ConfigError: Dask is not installed, `sweep.unreachable`, `sweep.other_code`; NetworkError:
    `sweep.worker_lost`.
    """
    distributed = need("distributed", "dask")
    with ExitStack() as after:
        settings = need("dask", "dask").config
        after.enter_context(settings.set(QUIET))
        folder = ""
        if place.cluster:
            client = after.enter_context(_join(distributed, place.cluster))
        else:
            folder = after.enter_context(tempfile.TemporaryDirectory(prefix="dask-"))
            after.enter_context(settings.set(temporary_directory=folder))
            jobs = place.jobs or os.cpu_count() or 1
            cluster = after.enter_context(_begin(distributed, jobs))
            client = after.enter_context(distributed.Client(cluster))
        # A run has a worker for itself, whatever number of threads that has.
        jobs = place.jobs or len(client.nthreads())
        if not jobs:
            raise unreachable(place.cluster, "the cluster has no workers")
        place.hear(f"dask: {jobs} runs at a time on {place.cluster or 'this machine'}")
        open_runs: dict[Any, None] = {}
        after.callback(lambda: client.cancel([*open_runs], force=True))

        def begin(item: Work) -> Any:
            future = client.submit(parcel.run, parcel.pack(item, folder), pure=False)
            open_runs[future] = None
            return future

        def ended(waiting: list[Any]) -> Sequence[Any]:
            with _told_when_lost(distributed):
                return [*distributed.wait(waiting, return_when="FIRST_COMPLETED").done]

        for item, future in by_turns(items, place, jobs, begin, ended):
            del open_runs[future]
            yield item, parcel.unpack(item, _result(distributed, future))


def _begin(distributed: Any, jobs: int) -> Any:
    # Ctrl-C reaches a whole group of processes. What is begun here inherits that it is not heard;
    # if it comes meanwhile, we hear it afterwards.
    resource_tracker.ensure_running()  # else begun meanwhile, and lets signals in again
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return distributed.LocalCluster(
            n_workers=jobs,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            protocol="tls://",
            security=distributed.Security.temporary(),
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
            memory_limit=0,
            silence_logs=logging.CRITICAL,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, heard)


def _join(distributed: Any, address: str) -> Any:
    reach(address)
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # an error is told once, by us
    try:
        return distributed.Client(address, timeout=2 * REACH_S)
    except MemoryError as error:  # another protocol's bytes, taken for a length
        raise unreachable(address, "what listens there is not Dask") from error
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise unreachable(address, error) from error


def _result(distributed: Any, future: Any) -> object:
    """What a worker gave back. An error of the run itself is raised as it is."""
    try:
        with _told_when_lost(distributed):
            found: object = future.result()
    except (ImportError, RuntimeError) as error:
        if isinstance(error, ImportError) or isinstance(error.__cause__, ImportError):
            raise ConfigError("sweep.other_code", "a worker has no peerd") from error
        raise
    return found


@contextmanager
def _told_when_lost(distributed: Any) -> Iterator[None]:
    try:
        yield
    except (distributed.KilledWorker, distributed.CancelledError, OSError) as error:
        detail = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        raise NetworkError("sweep.worker_lost", f"dask: {detail}") from error
