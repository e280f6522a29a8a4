"""Cheques to a real provider that is killed with kill -9 again and again; none may pay twice.

    python -m tests.cheque_torture --kills 12 [--seed 1] [--users 6] [--json]

Several clients post to one gateway, whole answers and streams, and send three cheques in ten a
second time. At the end, for every whole answer that a client got: the log has its cheque, at the
cost and with the receipt that the client was told; no cheque bought two; and of what the kills
broke off nothing was charged. Exit status 1 if not.
"""

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from peer.cheque_reports import read_cheques
from protocol.crypto import digest
from tests.e2e.support import LONG_PROMPT, Json
from tests.e2e.test_cheques import Shop, chat

# So that an answer of 1 to 60 tokens takes up to 0.3 s: most kills hit some.
STEPS_PER_S = 200
ALIVE_S = (0.3, 1.5)
AGAIN = 0.3
KEPT_MAX = 1_000
# Refusals that the clients provoke: the limit is reached, a cheque comes again, all is busy.
EXPECTED = (200, 402, 409, 503)


class Clients:
    """Threads that pay by cheque, one after the other each; and what they were told."""

    def __init__(self, shop: Shop, users: int, seed: int) -> None:
        self.shop = shop
        self.statuses: Counter[int] = Counter()
        self.answers: list[tuple[str, Json]] = []  # nonce, and who answered at which cost
        self._written: list[dict[str, str]] = []
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._pay, args=(random.Random(seed * 1_000 + user),))
            for user in range(users)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let each finish its call."""
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _headers(self, rng: random.Random) -> dict[str, str]:
        with self._lock:
            if self._written and rng.random() < AGAIN:
                return rng.choice(self._written)
            headers = self.shop.cheques.headers("0.05")
            if len(self._written) < KEPT_MAX:
                self._written.append(headers)
            return headers

    def _pay(self, rng: random.Random) -> None:
        messages = [{"role": "user", "content": LONG_PROMPT}]
        with httpx.Client(timeout=20) as http:
            while not self._stop.is_set():
                headers, stream = self._headers(rng), rng.random() < 0.5
                body = chat(messages=messages, max_tokens=rng.randint(1, 60), stream=stream)
                url = self.shop.url + "/chat/completions"
                try:
                    self._told(headers, http.post(url, json=body, headers=headers))
                except httpx.HTTPError:
                    time.sleep(0.1)  # it is dead for now

    def _told(self, headers: dict[str, str], answer: httpx.Response) -> None:
        report = report_of(answer) if answer.status_code == 200 else None
        with self._lock:
            self.statuses[answer.status_code] += 1
            if report is not None:
                self.answers.append((headers["X-Peerd-Nonce"], report))


def report_of(answer: httpx.Response) -> Json | None:
    """What a whole answer says of its cost; None for a stream that broke off."""
    if answer.headers["content-type"] == "application/json":
        return dict(answer.json()["peerd"][0])
    if not answer.content.endswith(b"data: [DONE]\n\n"):
        return None
    lines = [line for line in answer.text.split("\n\n") if '"peerd"' in line]
    return dict(json.loads(lines[-1].removeprefix("data: "))["peerd"][0])


def judge(logged: list[Json], answers: list[tuple[str, Json]]) -> dict[str, Any]:
    """What the clients were told against the log."""
    by_nonce = {str(cheque["nonce"]): cheque for cheque in logged}
    bought = Counter(nonce for nonce, _ in answers)
    interrupted = [cheque for cheque in logged if cheque["error"] == "cheque.interrupted"]
    return {
        "nothing_twice": len(by_nonce) == len(logged) and set(bought.values()) <= {1},
        "all_kept": all(is_kept(by_nonce.get(nonce), report) for nonce, report in answers),
        "broken_off_free": all(cheque["cost_ucr"] == 0 for cheque in interrupted),
        "none_open": all(cheque["cost_ucr"] is not None for cheque in logged),
    }


def is_kept(cheque: Json | None, report: Json) -> bool:
    """Whether the log has a cheque as its user was told."""
    if cheque is None or not cheque["receipt"]:
        return False
    receipt_id = digest(bytes.fromhex(cheque["receipt"])).hex()
    return (cheque["cost_ucr"], receipt_id) == (report["cost_ucr"], report["receipt_id"])


def run(kills: int, seed: int, users: int) -> Json:
    """The whole torture; what it counted and found."""
    rng, started = random.Random(seed), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="peerd-cheques-") as home:
        shop = Shop(Path(home), steps_per_s_max=STEPS_PER_S, limit="50")
        clients = Clients(shop, users, seed)
        try:
            for number in range(1, kills + 1):
                time.sleep(rng.uniform(*ALIVE_S))
                shop.daemon.kill()
                shop.open()
                print(f"\r{number} of {kills} kills", end="", file=sys.stderr, flush=True)
            time.sleep(ALIVE_S[1])
        finally:
            print(file=sys.stderr)
            clients.stop()
            shop.daemon.end()
        logged = read_cheques(shop.daemon.directory)["cheques"]
    findings = judge(logged, clients.answers)
    wrong = sorted(clients.statuses.keys() - set(EXPECTED))
    return {
        "kills": kills,
        "seed": seed,
        "statuses": dict(clients.statuses),
        "answers": len(clients.answers),
        "cheques": len(logged),
        "broken_off": sum(cheque["error"] == "cheque.interrupted" for cheque in logged),
        **findings,
        "wrong_statuses": wrong,
        "seconds": round(time.monotonic() - started, 1),
        "ok": all(findings.values()) and not wrong and bool(clients.answers),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="cheques to a provider that is killed")
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--users", type=int, default=6)
    parser.add_argument("--json", action="store_true", dest="as_json")
    flags = parser.parse_args()
    found = run(flags.kills, flags.seed, flags.users)
    if flags.as_json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:16} {value}")
    sys.exit(0 if found["ok"] else 1)


if __name__ == "__main__":
    main()
