"""Runs on Ray: a cluster that is there, or one of this machine that is begun and ended here.

That one listens on loopback only, behind a token that nobody else has; its files lie in a
directory that goes with it. Nothing tells its makers that it was used.
"""

import os
import secrets
import signal
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Final

from protocol.errors import ConfigError, NetworkError
from simnet.extra import need
from simnet.sweeps import parcel
from simnet.sweeps.work import Ended, Place, Work, by_turns, reach, unreachable

ALWAYS: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # workers have their own install
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # they are told once, by us
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
# The switch's name is of other systems; off, it keeps every socket on loopback on Linux, too.
LOCAL: Final = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}
END_S: Final = 3.0
TEMPORARY_CHARS_MAX: Final = 24
STORE_BYTES: Final = 256 << 20  # results in transit; what is more goes to disk
# Ray speaks gRPC and would wait minutes for an answer: the beginning of HTTP/2, and the type of
# the frame that it answers with.
HELLO: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
SETTINGS: Final = b"\4"
NO_CODE: Final = "failed to import on the worker"


def on_ray(items: Sequence[Work], place: Place) -> Ended:
    """All of it, in the order in which the runs end.

    ConfigError: Ray is not installed, `sweep.unreachable`, `sweep.other_code`; NetworkError:
    `sweep.worker_lost`.
    """
    token = {} if place.cluster else {**LOCAL, "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with ExitStack() as after:
        after.enter_context(_environment({**ALWAYS, **token}))
        ray = need("ray", "ray")
        folder = ""
        if place.cluster:
            after.callback(ray.shutdown)
            _join(ray, place.cluster)
        else:
            folder = after.enter_context(_folder())
            after.enter_context(_ended(ray))
            _begin(ray, place.jobs or os.cpu_count() or 1, folder)
        jobs = place.jobs or int(ray.cluster_resources().get("CPU", 0))
        if not jobs:
            raise unreachable(place.cluster, "the cluster has no processors for us")
        place.hear(f"ray: {jobs} runs at a time on {place.cluster or 'this machine'}")
        run = ray.remote(num_cpus=1)(parcel.run)

        def begin(item: Work) -> Any:
            return run.remote(parcel.pack(item, folder))

        def ended(waiting: list[Any]) -> Sequence[Any]:
            return [*ray.wait(waiting)[0]]

        for item, handle in by_turns(items, place, jobs, begin, ended):
            yield item, parcel.unpack(item, _result(ray, handle))


def _begin(ray: Any, jobs: int, folder: str) -> None:
    try:
        with _own_signals():
            ray.init(
                address="local",
                num_cpus=jobs,
                num_gpus=0,
                include_dashboard=False,
                object_store_memory=STORE_BYTES,
                log_to_driver=False,
                logging_level="error",
                _temp_dir=folder,
            )
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        detail = f"ray can't begin here: {str(error).strip().partition(chr(10))[0][:200]}"
        raise NetworkError("sweep.worker_lost", detail) from error


def _join(ray: Any, address: str) -> None:
    here = "" if address.startswith("ray:") else ray.util.get_node_ip_address()
    hello = b"" if "RAY_USE_TLS" in os.environ else HELLO
    if reach(address, hello, here)[3:4] != (SETTINGS if hello else b""):
        raise unreachable(address, "what listens there is not Ray")
    try:
        with _own_signals():
            ray.init(address=address, log_to_driver=False, logging_level="error")
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise unreachable(address, error) from error


def _result(ray: Any, handle: Any) -> object:
    """What a worker gave back. An error of the run itself is raised as it is."""
    try:
        found: object = ray.get(handle)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error, ImportError) or NO_CODE in str(error):
            raise ConfigError("sweep.other_code", "a worker has no peerd") from error
        raise
    except ray.exceptions.RayError as error:
        detail = str(error).strip().partition("\n")[0][:200]
        raise NetworkError("sweep.worker_lost", f"ray: {detail}") from error
    return found


@contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    """Variables that Ray and its daemons read, put back afterwards."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ |= settings
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray takes SIGTERM for itself when it begins: then it means again what it did."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _ended(ray: Any) -> Iterator[None]:
    """Afterwards the cluster is shut down, and none of its processes is left.

    Those that its daemons began may outlive them by a minute, in which they tell of it in vain.
    """
    psutil = need("psutil", "ray")
    before = set(psutil.Process().children(recursive=True))
    try:
        yield
    finally:
        begun = set(psutil.Process().children(recursive=True)) - before
        ray.shutdown()
        for process in psutil.wait_procs(begun, END_S)[1]:
            with suppress(psutil.NoSuchProcess):
                process.kill()


@contextmanager
def _folder() -> Iterator[str]:
    """A directory for its sockets and logs; short, as a socket's path has 103 bytes at most."""
    usual = tempfile.gettempdir()
    above = usual if len(usual) <= TEMPORARY_CHARS_MAX else "/tmp"
    with tempfile.TemporaryDirectory(
        prefix="ray-", dir=above, ignore_cleanup_errors=True
    ) as folder:
        yield folder
