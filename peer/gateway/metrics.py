"""What an operator's Prometheus reads at /metrics, and /readyz. Base units, bounded labels.

Counters count from the process's start, but those of money and records, which the log keeps.
"""

from collections import Counter
from collections.abc import Iterable
from time import perf_counter_ns
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from peer.client import AsyncClient
from peer.gateway.exchange import Market
from protocol.units import NS_PER_S, UCR_PER_CREDIT

Json = dict[str, Any]
Labels = tuple[tuple[str, str], ...]
Sample = tuple[Labels, float]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_OTHER = "other"

# Name after `peerd_`, the kind, help, and the key in the status' part.
_STATUS = (
    ("peers", "gauge", "Peers that are connected.", "peers"),
    ("topic_peers", "gauge", "Peers that listen on the network's topic.", "topic_peers"),
    ("serving_jobs", "gauge", "Jobs that are sold and run now.", "running_jobs"),
    ("open_requests", "gauge", "Requests of this node that run now.", "open_requests"),
    ("log_records_total", "counter", "Records in the log.", "records"),
)
_MONEY = (
    ("spent_credits_total", "counter", "Paid or due to providers.", "spent_ucr"),
    ("earned_credits_total", "counter", "Delivered to payers and users.", "earned_ucr"),
    ("cheques_credits_total", "counter", "Of the earned, by cheques.", "cheques_ucr"),
    ("locked_credits", "gauge", "In open channels, not spent.", "locked_ucr"),
    ("unpaid_credits", "gauge", "Delivered, and no voucher yet.", "unpaid_ucr"),
)
_BIDS = (
    ("sent", "Bids on others' requests."),
    ("withheld", "Bids that could not win and were not sent."),
)
_SERVED = (
    ("served_jobs_total", "Jobs that finished, by model.", "jobs"),
    ("failed_jobs_total", "Jobs that did not, by model.", "failed"),
    ("served_input_tokens_total", "Tokens read for jobs.", "input_tokens"),
    ("served_output_tokens_total", "Tokens made for jobs.", "output_tokens"),
)


class HttpCounts:
    """Requests by path and status, and their nanoseconds by path."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self.spent_ns: Counter[str] = Counter()


class Counted:
    """An application whose requests are counted; paths other than `paths` are one."""

    def __init__(self, app: ASGIApp, paths: Iterable[str], counts: HttpCounts) -> None:
        self._app = app
        self._paths = frozenset(paths)
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI; status 0 is a client that left before there was one."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in self._paths else _OTHER
        status, begin_ns = 0, perf_counter_ns()

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            self._counts.requests[path, status] += 1
            self._counts.spent_ns[path] += perf_counter_ns() - begin_ns


def exposition(status: Json, counts: HttpCounts) -> str:
    """Prometheus' text of a node's status and of what its gateway did."""
    lines: list[str] = []
    for name, kind, about, key in _STATUS:
        value = status[key]
        lines += _family(name, kind, about, [((), len(value) if key == "peers" else value)])
    for name, kind, about, key in _MONEY:
        credits = status["balance"][key] / UCR_PER_CREDIT
        lines += _family(name, kind, about, [((), credits)])
    for key, about in _BIDS:
        lines += _family(f"bids_{key}_total", "counter", about, [((), status["bids"][key])])
    silent = [((("code", code),), count) for code, count in status["bids"]["not_made"].items()]
    lines += _family(
        "bids_not_made_total", "counter", "Requests without a bid, by reason.", silent
    )
    for name, about, key in _SERVED:
        served = status["served"].items()
        samples = [((("model", model),), meter[key]) for model, meter in served]
        lines += _family(name, "counter", about, samples)
    requests: list[Sample] = [
        ((("path", path), ("status", str(code))), count)
        for (path, code), count in sorted(counts.requests.items())
    ]
    about = "Requests of HTTP clients; status 0 is a client that left."
    lines += _family("http_requests_total", "counter", about, requests)
    seconds = [
        ((("path", path),), spent_ns / NS_PER_S)
        for path, spent_ns in sorted(counts.spent_ns.items())
    ]
    about = "Time from a request's head to its answer's end."
    lines += _family("http_request_seconds_total", "counter", about, seconds)
    return "\n".join(lines) + "\n"


def _family(name: str, kind: str, about: str, samples: Iterable[Sample]) -> list[str]:
    lines = [f"# HELP peerd_{name} {about}", f"# TYPE peerd_{name} {kind}"]
    for labels, value in samples:
        told = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels)
        lines.append(f"peerd_{name}{{{told}}} {value}" if told else f"peerd_{name} {value}")
    return lines


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def watch_routes(client: AsyncClient, market: Market, counts: HttpCounts) -> list[BaseRoute]:
    """GET /metrics and /readyz."""

    async def metrics(request: Request) -> Response:
        text = exposition(await client.status(), counts)
        return PlainTextResponse(text, media_type=CONTENT_TYPE)

    async def ready(request: Request) -> Response:
        if await market.wait_connected(0):
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "nobody listens on the topic"}, 503)

    return [
        Route("/metrics", metrics, methods=["GET"]),
        Route("/readyz", ready, methods=["GET"]),
    ]
