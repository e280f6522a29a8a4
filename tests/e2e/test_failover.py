"""A provider killed while a client reads its answer: another goes on, the client sees one text.

Source: README, "When a provider dies".
"""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import openai

from peer.insight import explain_from_log
from tests.e2e.support import LONG_PROMPT, Daemon, Json, Market, provider_flags, until

ASKED: Any = [{"role": "user", "content": LONG_PROMPT}]
TOKENS = 80


def ask(client: openai.OpenAI, routing: Json, **changes: Any) -> Any:
    body = {"model": "embedded", "messages": ASKED, "temperature": 0, "max_tokens": TOKENS}
    extra = {"provider": routing, "peerd": {"window_ms": 300}}
    return client.chat.completions.create(**{**body, **changes}, extra_body=extra)


def due_ucr(requester: Daemon) -> int:
    return sum(int(channel["due_ucr"]) for channel in requester.channels())


def awards_of(requester: Daemon, request_id: str) -> list[tuple[str, str, str]]:
    (found,) = requester.call("explain", request_id=request_id)
    return [(award["provider"], award["role"], award["outcome"]) for award in found["awards"]]


def test_one_stream_over_a_kill_and_a_race_before_it(tmp_path: Path) -> None:
    """What the client reads is what it reads when nothing happens; the bill has both parts."""
    with ExitStack() as stack:
        market = Market(tmp_path, stack, "--api", "127.0.0.1:0")
        requester = market.requester
        cheap, other = market.sell(
            provider_flags(steps_per_s_max=30, output_price="20"), provider_flags()
        )
        url = requester.ready["api"]
        client = stack.enter_context(openai.OpenAI(base_url=url, api_key="none", max_retries=0))

        raced = ask(client, {"race": 2})
        whole = raced.choices[0].message.content
        assert raced.usage.completion_tokens >= TOKENS - 8
        (report,) = raced.model_extra["peerd"]
        awards = awards_of(requester, report["request_id"])
        assert sorted(award[:2] for award in awards) == sorted(
            [(cheap.peer_id, "race"), (other.peer_id, "race")]
        )
        assert sorted(award[2] for award in awards) == ["delivered", "withdrawn"]

        before_ucr = due_ucr(requester)
        stream = ask(
            client,
            {"sort": "price", "hedge_percent": 0},
            stream=True,
            stream_options={"include_usage": True},
        )
        assert stream.response.headers["x-peerd-provider"] == cheap.peer_id
        parts = []
        for part in stream:
            parts.append(part)
            if len(parts) == 12:
                cheap.kill()
        texts = [part.choices[0].delta.content or "" for part in parts if part.choices]
        assert "".join(texts) == whole
        assert [part for part in parts if part.choices and part.choices[0].delta.role][1:] == []
        (report,) = parts[-2].model_extra["peerd"]
        assert report["provider"] == other.peer_id
        (part,) = report["parts"]
        assert (part["provider"], part["code"]) == (cheap.peer_id, "provider.vanished")
        assert part["cost_ucr"] > 0
        assert part["receipt_id"] is None
        assert report["cost_ucr"] == due_ucr(requester) - before_ucr
        assert 0 < part["output_tokens"] < parts[-1].usage.completion_tokens <= TOKENS
        assert awards_of(requester, report["request_id"]) == [
            (cheap.peer_id, "first", "failed"),
            (other.peer_id, "continue", "delivered"),
        ]
        logged = explain_from_log(requester.directory, bytes.fromhex(report["request_id"]))
        ends = [(award["role"], award["outcome"]) for award in logged["awards"]]
        assert ends == [("first", "failed"), ("continue", "delivered")]
        assert logged["paid_ucr"] == report["cost_ucr"]
        assert len(logged["continued_by"]) == 1


def test_a_race_and_a_hedge_whose_first_provider_is_killed(tmp_path: Path) -> None:
    """Two whose engines hang, so that they take jobs and say nothing: one in a race, one alone,
    until another is awarded beside it. Then they are killed, in mid-job. One whole answer each
    time, and nothing for who sent nothing."""
    with ExitStack() as stack:
        market = Market(tmp_path, stack, "--api", "127.0.0.1:0")
        requester = market.requester
        racer, late, other = market.sell(
            provider_flags(),
            provider_flags(),
            provider_flags(steps_per_s_max=4),
        )
        url = requester.ready["api"]
        client = stack.enter_context(openai.OpenAI(base_url=url, api_key="none", max_retries=0))
        pool = stack.enter_context(ThreadPoolExecutor(1))

        def killed_while_it_runs(hung: Daemon, routing: Json) -> set[tuple[str, str]]:
            """Who was awarded in which role, by a request of whose job `hung` dies."""
            (model,) = hung.status()["engine"]
            os.kill(model["pid"], signal.SIGSTOP)
            before_ucr = due_ucr(requester)
            both = [hung.peer_id, other.peer_id]
            only = {"order": both, "only": both, **routing}
            asked = pool.submit(ask, client, only, max_tokens=8)
            until(lambda: hung.status()["running_jobs"] or asked.done(), "its turn")
            if "race" not in routing:  # the other is awarded only once the first is late
                until(lambda: other.status()["running_jobs"] or asked.done(), "the other's")
            hung.kill()
            answer = asked.result()
            assert answer.usage.completion_tokens == 8
            (report,) = answer.model_extra["peerd"]
            assert report["provider"] == other.peer_id
            assert report["cost_ucr"] == due_ucr(requester) - before_ucr
            awards = awards_of(requester, report["request_id"])
            assert (other.peer_id, "delivered") in [(who, came) for who, _, came in awards]
            return {(who, role) for who, role, _ in awards}

        assert killed_while_it_runs(racer, {"race": 2, "hedge_percent": 0}) == {
            (racer.peer_id, "race"),
            (other.peer_id, "race"),
        }
        assert killed_while_it_runs(late, {"hedge_percent": 10}) == {
            (late.peer_id, "first"),
            (other.peer_id, "hedge"),
        }
