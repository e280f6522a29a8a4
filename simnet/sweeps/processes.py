"""Runs on a pool of processes of this machine."""

import os
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

from protocol.errors import ConfigError, NetworkError
from simnet.recording.recorder import Recorder
from simnet.runs.runner import Run
from simnet.scenario import file as scenario_file
from simnet.sweeps.work import Ended, Place, Work, by_turns

Summary = dict[str, Any]


def work(item: Work) -> Summary:
    """Do one run; its summary. Runs in a process of its own."""
    scenario = scenario_file.parse(item.scenario)
    recorder = Recorder(Path(item.directory) if item.tables else None)
    check: Any = item.check
    summary = Run(scenario, item.seed, Path(item.beside), recorder, check=check).go()
    recorder.close()
    return summary


def pool(items: Sequence[Work], place: Place) -> Ended:
    """All of it, in the order in which the runs end. NetworkError when a process died."""
    if place.cluster:
        raise ConfigError("config.bad_value", "--cluster is for --engine ray or dask")
    jobs = place.jobs or os.cpu_count() or 1
    executor = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_begun)

    def begin(item: Work) -> Future[Summary]:
        return executor.submit(work, item)

    def ended(waiting: list[Future[Summary]]) -> list[Future[Summary]]:
        return [*wait(waiting, return_when=FIRST_COMPLETED).done]

    whole = False
    try:
        for item, future in by_turns(items, place, jobs, begin, ended):
            yield item, future.result()
        whole = True
    except BrokenProcessPool as error:
        raise NetworkError("sweep.worker_lost", "a process of the pool was killed") from error
    finally:
        processes = [*(executor._processes or {}).values()]
        executor.shutdown(wait=False, cancel_futures=True)
        for process in () if whole else processes:
            process.terminate()


def _begun() -> None:
    """In a new process: Ctrl-C is for who began it, and so is its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_outlived, daemon=True).start()


def _outlived() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
