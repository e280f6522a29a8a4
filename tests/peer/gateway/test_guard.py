"""Who may call the gateway, and where it may listen. Source: peer/gateway/README.md, "Who may
call"."""

from typing import Any

import pytest

from peer import cheque_headers
from peer.gateway.app import Guard
from peer.gateway.server import ApiSettings, parse_listen
from protocol.errors import ConfigError

AT_THE_DESK = 299


async def reached(token: str | None, path: str = "/v1/models", **headers: str) -> int | None:
    """The status that the guard answers with itself; None when it lets the call through."""
    statuses: list[int] = []
    inside: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        inside.append(scope["path"])

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    scope = {"type": "http", "method": "GET", "path": path, "headers": raw, "query_string": b""}

    async def desk(scope: Any, receive: Any, send: Any) -> None:
        statuses.append(AT_THE_DESK)

    await Guard(app, token, desk)(scope, receive, send)
    assert len(statuses) + len(inside) == 1
    return statuses[0] if statuses else None


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:4180", "localhost:1", "LOCALHOST", "[::1]", "[::1]:4180"]
)
async def test_this_machine_s_own_names_are_let_in(host: str) -> None:
    assert await reached(None, host=host) is None


@pytest.mark.parametrize(
    "host",
    ["", "example.org", "example.org:4180", "127.0.0.1.example.org", "localhost.example.org:80"],
)
async def test_a_page_that_was_rebound_to_this_address_is_not(host: str) -> None:
    assert await reached(None, host=host) == 403


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Bearer secret", None),
        ("Bearer secret2", 401),
        ("bearer secret", 401),
        ("Bearer ", 401),
        ("Bearer s\xe9cret", 401),
        ("secret", 401),
    ],
)
async def test_with_a_token_the_token_decides(header: str, status: int | None) -> None:
    assert await reached("secret", host="anywhere", authorization=header) == status


async def test_without_the_header_nobody_is_let_in_but_probes() -> None:
    assert await reached("secret", host="127.0.0.1") == 401
    assert await reached("secret", path="/healthz") is None
    assert await reached("secret", path="/readyz") is None
    assert await reached("secret", path="/metrics") == 401


@pytest.mark.parametrize("token", [None, "secret"])
@pytest.mark.parametrize("name", cheque_headers.NAMES)
async def test_a_cheque_opens_its_own_desk_alone(token: str | None, name: str) -> None:
    """Any of its headers, on any path, from anywhere, and with the token too: what may spend this
    node's credits is not reached."""
    for path in ("/v1/chat/completions", "/rpc", "/mcp", "/metrics"):
        for extra in ({}, {"authorization": "Bearer secret"}):
            headers = {"host": "example.org", name: "x", **extra}
            assert await reached(token, path=path, **headers) == AT_THE_DESK
    assert await reached(token, path="/v1/cheques", host="example.org") == AT_THE_DESK
    assert await reached(token, path="/v1/cheques/", host="example.org") != AT_THE_DESK


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:4180", "127.0.0.1", 4180),
        ("localhost:0", "127.0.0.1", 0),
        ("[::1]:80", "::1", 80),
    ],
)
def test_where_it_may_listen_without_a_token(text: str, host: str, port: int) -> None:
    assert parse_listen(text, None) == ApiSettings(host, port, None)


@pytest.mark.parametrize("text", ["0.0.0.0:80", "192.0.2.1:80", "[::]:80"])
def test_where_others_can_reach_it_a_token_is_needed(text: str) -> None:
    with pytest.raises(ConfigError, match="token"):
        parse_listen(text, None)
    assert parse_listen(text, "secret").token == "secret"


@pytest.mark.parametrize(
    "text", ["", "4180", ":4180", "host", "127.0.0.1:", "1.2.3.4:65536", "a:1"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_listen(text, "secret")
    assert caught.value.code == "config.bad_value"
