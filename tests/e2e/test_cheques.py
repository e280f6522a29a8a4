"""Who has a key and no node pays a provider's gateway by cheque: with OpenAI's client, and with
plain HTTP, also when several race and when the provider is killed.

Source: README, "Without a node"; peer/gateway/README.md, "Cheques".
"""

import json
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from peer.cheque_reports import read_cheques
from peer.cli.identity import initialize
from peer.client import Cheques
from peer.client.cheques import receipt_path
from protocol.errors import RemoteError
from protocol.units import format_credits
from tests.e2e.support import (
    LONG_PROMPT,
    NETWORK,
    PROMPT,
    Daemon,
    Json,
    provider_flags,
    run,
    run_json,
    until,
)

ROOT = Path(__file__).parent.parent.parent
TOKEN = "the operator's own"
LIMIT_UCR = 60_000


class Shop:
    """A provider with a token and a cheque desk, and a user that it knows."""

    def __init__(self, home: Path, steps_per_s_max: int = 0, limit: str = "0.06") -> None:
        self.user = home / "user"
        self.user_id = initialize(self.user)
        flags = provider_flags(steps_per_s_max=steps_per_s_max)
        self.daemon = Daemon(home / "shop", *flags, "--api", "127.0.0.1:0")
        self.daemon.settings = {"PEERD_API_TOKEN": TOKEN}
        config = self.daemon.directory / "config.toml"
        users = f'[cheques.users]\n"{self.user_id}" = "{limit}"\n'
        config.write_text(f'[cheques]\ntotal = "100"\n{users}')
        self.open()

    def open(self) -> None:
        """Start it, again if need be."""
        self.daemon.start()
        self.url = str(self.daemon.ready["api"])
        self.cheques = Cheques(self.daemon.peer_id, self.user, network=NETWORK)

    def post(
        self, headers: dict[str, str], path: str = "/chat/completions", **body: Any
    ) -> httpx.Response:
        """A request that is paid by these headers."""
        return httpx.post(self.url + path, json=chat(**body), headers=headers, timeout=60)

    def account(self) -> Json:
        """What the user owes."""
        users = {one["user"]: one for one in self.daemon.call("cheques")[0]["users"]}
        return dict(users.get(self.user_id) or {"owed_ucr": 0, "answers": 0})


def chat(**changes: Any) -> Json:
    messages = [{"role": "user", "content": PROMPT}]
    body = {"model": "embedded", "messages": messages, "max_tokens": 40, "temperature": 0}
    return {name: value for name, value in {**body, **changes}.items() if value is not None}


def code_of(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of an error, which was not charged and must not be tried again."""
    assert answer.headers["x-should-retry"] == "false"
    assert "x-peerd-cost-ucr" not in answer.headers
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return answer.status_code, error["code"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    shop = Shop(tmp_path_factory.mktemp("cheques"))
    yield shop
    shop.daemon.end()


def test_the_example_of_the_readme(shop: Shop) -> None:
    page = (ROOT / "README.md").read_text().partition("## Without a node")[2]
    source = page.partition("```python\n")[2].partition("```")[0]
    replaced = {
        '"12D3KooW..."': f'"{shop.daemon.peer_id}"',
        '"~/.peerd"': f'"{shop.user}", network="{NETWORK}"',
        "http://203.0.113.7:4180/v1": shop.url,
    }
    for written, real in replaced.items():
        assert source.count(written) == 1
        source = source.replace(written, real)
    with redirect_stdout(StringIO()) as printed:
        exec(compile(source, "README", "exec"), {})
    assert re.search(r"Paris.* \d+ ucr$", printed.getvalue().strip(), re.S)


def test_openai_s_client_pays_by_cheque(shop: Shop) -> None:
    """Whole and streamed, embeddings and raw completions; each at its actual price, which the
    receipt proves; without the token that all else needs."""
    before_ucr = shop.account()["owed_ucr"]
    costs = []
    with openai.OpenAI(base_url=shop.url, api_key="none", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            client.models.list()
        assert caught.value.code == "api.bad_token"
        assert "[api] token_file" in caught.value.message
        ask: Any = chat()
        raw = client.chat.completions.with_raw_response.create(
            **ask, extra_headers=shop.cheques.headers("0.01")
        )
        answer: Any = raw.parse()
        assert "Paris" in answer.choices[0].message.content
        used = answer.usage
        assert int(raw.headers["x-peerd-cost-ucr"]) == (
            15 * used.prompt_tokens + 60 * used.completion_tokens
        )
        assert raw.headers["x-peerd-provider"] == shop.daemon.peer_id
        costs.append(shop.cheques.check_receipt(answer.peerd[0]))
        assert answer.peerd[0]["cost_ucr"] == costs[0]
        assert raw.headers["x-peerd-receipt"] == answer.peerd[0]["receipt_id"]
        parts: list[Any] = list(
            client.chat.completions.create(
                **ask, stream=True, extra_headers=shop.cheques.headers("0.01")
            )
        )
        text = "".join(part.choices[0].delta.content or "" for part in parts)
        assert text == answer.choices[0].message.content
        costs.append(shop.cheques.check_receipt(parts[-1].peerd[0]))
        vectors: Any = client.embeddings.create(
            model="embedded", input=["a", "b"], extra_headers=shop.cheques.headers("0.01")
        )
        assert len(vectors.data) == 2
        costs.append(shop.cheques.check_receipt(vectors.peerd[0]))
        raw_text: Any = client.completions.create(
            model="embedded", prompt="a", max_tokens=5, extra_headers=shop.cheques.headers("0.01")
        )
        costs.append(shop.cheques.check_receipt(raw_text.peerd[0]))
    assert shop.account()["owed_ucr"] == before_ucr + sum(costs)
    forged = {**answer.peerd[0], "signature": parts[-1].peerd[0]["signature"]}
    with pytest.raises(RemoteError, match=r"receipt.bad_signature"):
        shop.cheques.check_receipt(forged)
    balance = shop.daemon.call("channels")[0]["balance"]
    assert balance["cheques_ucr"] == balance["earned_ucr"] == shop.account()["earned_ucr"]


def test_a_bound_cheque_pays_for_its_question_alone(shop: Shop) -> None:
    """Every call of a client with one of its own; who took its headers gets nothing for them."""
    seen: list[httpx.Request] = []
    auth = shop.cheques.auth("0.01")
    with (
        httpx.Client(auth=auth, event_hooks={"request": [seen.append]}) as http,
        openai.OpenAI(
            base_url=shop.url, api_key="none", max_retries=0, http_client=http
        ) as client,
    ):
        answers: list[Any] = [client.chat.completions.create(**chat()) for _ in range(2)]
    assert {shop.cheques.check_receipt(answer.peerd[0]) for answer in answers}
    body = b'{"model": "embedded", "prompt": "a", "max_tokens": 1}'
    headers = {**shop.cheques.headers("0.01", body), "content-type": "application/json"}
    url = shop.url + "/completions"
    stolen = httpx.post(url, content=body.replace(b'"a"', b'"b"'), headers=headers)
    assert code_of(stolen) == (400, "cheque.wrong_body")
    unbound = {name: value for name, value in headers.items() if name != "X-Peerd-Body"}
    assert code_of(httpx.post(url, content=body, headers=unbound)) == (401, "cheque.bad_signature")
    assert httpx.post(url, content=body, headers=headers).status_code == 200
    nonces = {request.headers["x-peerd-nonce"] for request in seen}
    assert len(nonces) == len(seen) == 2


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_takes_a_cheque_from_a_pipe(shop: Shop) -> None:
    """As the README has it: the command writes the headers, curl reads them."""
    where = ("--data", str(shop.user), "--network", NETWORK)
    written = run("cheques", "write", shop.daemon.peer_id, "0.01", *where)
    assert written.returncode == 0, written.stderr
    command = ["curl", "-sS", "-m", "60", "-H", "@-", "-H", "content-type: application/json"]
    done = subprocess.run(
        [*command, "-d", json.dumps(chat()), f"{shop.url}/chat/completions"],
        input=written.stdout,
        capture_output=True,
        text=True,
        check=True,
    )
    assert shop.cheques.check_receipt(json.loads(done.stdout)["peerd"][0]) > 0


REFUSED: dict[str, tuple[int, str, Callable[[Shop], dict[str, str]]]] = {
    "short": (402, "cheque.short", lambda shop: shop.cheques.headers("0.001")),
    "forged": (
        401,
        "cheque.bad_signature",
        lambda shop: {**shop.cheques.headers("0.01"), "X-Peerd-Amount": "10001"},
    ),
    "another node": (
        400,
        "cheque.wrong_node",
        lambda shop: Cheques(shop.user_id, shop.user, network=NETWORK).headers("0.01"),
    ),
    "another network": (
        401,
        "cheque.bad_signature",
        lambda shop: Cheques(shop.daemon.peer_id, shop.user).headers("0.01"),
    ),
    "unknown": (
        403,
        "cheque.unknown_user",
        lambda shop: Cheques(shop.daemon.peer_id, shop.daemon.directory, network=NETWORK).headers(
            "0.01"
        ),
    ),
    "half a cheque": (400, "cheque.malformed", lambda shop: {"X-Peerd-User": shop.user_id}),
    "old": (
        400,
        "cheque.expired",
        lambda shop: {**shop.cheques.headers("0.01"), "X-Peerd-Nonce": "1"},
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_cheque_has_its_status_and_costs_nothing(shop: Shop, case: str) -> None:
    """In OpenAI's shape, whatever the body; and the token does not help."""
    before = shop.account()
    status, code, write = REFUSED[case]
    headers = {**write(shop), "Authorization": f"Bearer {TOKEN}"}
    assert code_of(shop.post(headers)) == (status, code)
    assert shop.account() == before


def test_the_price_can_be_known_before(shop: Shop) -> None:
    """A quote says to the ucr what is short, and uses nothing up."""
    headers = shop.cheques.headers("0")
    quote = shop.post(headers, "/quote").json()
    short = shop.post(headers)
    most_ucr = quote["cost_max_ucr"]
    assert code_of(short) == (402, "cheque.short")
    said, most = short.json()["error"]["message"], quote["cost_max"]
    assert said.startswith(f"0 of {most} credits, {most} short: ")
    assert short.headers["x-peerd-short-ucr"] == str(most_ucr)
    assert code_of(shop.post(shop.cheques.headers(f"{(most_ucr - 1) / 1e6:.6f}")))[0] == 402
    exact = shop.cheques.headers(f"{most_ucr / 1e6:.6f}")
    assert shop.post(exact).status_code == 200
    terms = httpx.get(shop.url + "/cheques").json()
    assert (terms["node"], terms["network"]) == (shop.daemon.peer_id, NETWORK)
    assert terms["models"][0]["pricing"] == {
        "prompt_ucr_per_million": 15_000_000,
        "completion_ucr_per_million": 60_000_000,
    }
    known = httpx.get(shop.url + "/cheques", headers=shop.cheques.headers("0")).json()
    owed_ucr = shop.account()["owed_ucr"]
    assert known["account"] == {"owed_ucr": owed_ucr, "running_ucr": 0, "limit_ucr": LIMIT_UCR}


def test_a_lost_receipt_is_told_again_to_its_user_alone(shop: Shop) -> None:
    """By a cheque that is bound to the path and pays for nothing; what was seen on the way is
    good for no other."""
    paid = shop.cheques.headers("0.01")
    cost_ucr = int(shop.post(paid).headers["x-peerd-cost-ucr"])
    nonce = int(paid["X-Peerd-Nonce"])
    owed_ucr = shop.account()["owed_ucr"]

    def fetch(headers: dict[str, str], of: int = nonce) -> httpx.Response:
        return httpx.get(shop.url.removesuffix("/v1") + receipt_path(of), headers=headers)

    asked = shop.cheques.receipt_headers(nonce)
    told = fetch(asked).json()
    assert shop.cheques.check_receipt(told) == told["cost_ucr"] == cost_ucr
    assert fetch(asked).json() == told
    assert code_of(fetch(asked, nonce + 1)) == (400, "cheque.wrong_body")
    assert code_of(shop.post(asked)) == (400, "cheque.wrong_body")
    assert code_of(fetch(shop.cheques.headers("1"))) == (400, "cheque.wrong_body")
    assert code_of(fetch(paid)) == (409, "cheque.replayed")
    assert fetch({}).status_code == 401  # without a cheque it is no path of the desk
    other = shop.cheques.receipt_headers(nonce + 1)
    assert code_of(fetch(other, nonce + 1)) == (404, "cheque.unknown")
    options = ("--network", NETWORK, "--data", str(shop.user))
    line = ("cheques", "receipt", shop.daemon.peer_id, shop.url, str(nonce), *options)
    assert run_json(*line) == told
    assert shop.account()["owed_ucr"] == owed_ucr


def test_of_several_with_one_nonce_one_is_served(shop: Shop) -> None:
    """However they race, and as often as they come."""
    before = shop.account()
    headers = shop.cheques.headers("0.01")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: shop.post(headers, seed=number), range(8)))
    assert Counter(answer.status_code for answer in answers) == {200: 1, 409: 7}
    replayed = {code_of(answer) for answer in answers if answer.status_code == 409}
    assert replayed == {(409, "cheque.replayed")}
    (served,) = [answer for answer in answers if answer.status_code == 200]
    after = shop.account()
    cost_ucr = int(served.headers["x-peerd-cost-ucr"])
    assert after["owed_ucr"] - before["owed_ucr"] == cost_ucr
    assert after["answers"] - before["answers"] == 1


def test_what_is_owed_is_bounded_until_it_is_paid(shop: Shop) -> None:
    """Over the user's limit it is 402, until the operator notes a payment."""
    data = ("--data", str(shop.daemon.directory))
    while (answer := shop.post(shop.cheques.headers("1"), max_tokens=700)).status_code == 200:
        assert shop.account()["owed_ucr"] <= LIMIT_UCR
    assert code_of(answer) == (402, "cheque.over_limit")
    owed_ucr = shop.account()["owed_ucr"]
    left = format_credits(LIMIT_UCR - owed_ucr)
    assert f"you have {left} credits left" in answer.json()["error"]["message"]
    slip = run("cheques", "paid", shop.user_id, "100", *data)
    assert slip.returncode == 1
    assert slip.stderr.startswith("peerd: cheque.no_debt (")
    paid = run_json("cheques", "paid", shop.user_id, f"{owed_ucr / 1e6:.6f}", *data)
    assert paid["owed_ucr"] == shop.account()["owed_ucr"] == 0
    assert shop.post(shop.cheques.headers("1"), max_tokens=700).status_code == 200


def test_a_kill_charges_nothing_and_forgets_no_nonce(tmp_path: Path) -> None:
    """Of a stream that a kill -9 broke off, and of one that had ended before; who left one pays
    for what was made until then."""
    shop = Shop(tmp_path, steps_per_s_max=30)
    try:
        ended, running = shop.cheques.headers("0.05"), shop.cheques.headers("0.05")
        done = shop.post(ended, max_tokens=5)
        body = chat(messages=[{"role": "user", "content": LONG_PROMPT}], max_tokens=200)
        with stream(shop, shop.cheques.headers("0.05"), body) as answer:
            next(answer.iter_bytes())
        until(lambda: not shop.account()["running_ucr"], "the answer of who left is charged")
        left_ucr = shop.account()["owed_ucr"] - int(done.headers["x-peerd-cost-ucr"])
        assert 60 < left_ucr < 3_000  # some of the 100 tokens, at 60 each
        with stream(shop, running, body) as answer:
            assert answer.status_code == 200
            parts = answer.iter_bytes()  # let go of, it would close the stream
            next(parts)
            shop.daemon.kill()
        shop.open()
        for headers in (ended, running):
            assert code_of(shop.post(headers)) == (409, "cheque.replayed")
        account = shop.account()
        cost_ucr = int(done.headers["x-peerd-cost-ucr"])
        assert (account["owed_ucr"], account["answers"]) == (cost_ucr + left_ucr, 1)
        assert account["running_ucr"] == 0
        first, left, second = read_cheques(shop.daemon.directory)["cheques"]
        assert first["signature"] == ended["X-Peerd-Signature"]
        assert (
            shop.cheques.check_receipt(
                {"receipt": first["receipt"], "signature": first["receipt_signature"]}
            )
            == cost_ucr
        )
        assert (left["cost_ucr"], left["error"]) == (left_ucr, "request.cancelled")
        assert (second["cost_ucr"], second["error"]) == (0, "cheque.interrupted")
        _drains(shop, body)
    finally:
        shop.daemon.end()


def stream(
    shop: Shop, headers: dict[str, str], body: Json
) -> AbstractContextManager[httpx.Response]:
    """An answer as it comes."""
    url, said = f"{shop.url}/chat/completions", {**body, "stream": True}
    return httpx.stream("POST", url, json=said, headers=headers, timeout=60)


def _drains(shop: Shop, body: Json) -> None:
    """An orderly stop lets an answer end, and its client get all of it."""
    headers = shop.cheques.headers("0.05")
    with stream(shop, headers, {**body, "max_tokens": 60}) as answer:
        parts = answer.iter_bytes()
        text = next(parts)
        shop.daemon.signal(signal.SIGTERM)
        text += b"".join(parts)
    assert text.endswith(b"data: [DONE]\n\n")
    assert b'"receipt_id"' in text
    assert shop.daemon.wait_exit() == 0
