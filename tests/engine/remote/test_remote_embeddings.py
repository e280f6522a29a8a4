"""Embeddings of engines without a model: a server's, a script's, a group's.

Source: OpenAI API reference, "Embeddings"; engine/README.md, "Remote".
"""

import json
import math

import pytest
import trio

from engine.group import EngineGroup
from engine.interface import EmbedSpec, Pooling
from engine.remote import RemoteEngine, RemoteSettings
from engine.remote_embeddings import embed_body, read_embeddings
from engine.scripted import SCRIPTED_DIMENSIONS, Script, ScriptedEngine
from protocol import limits
from protocol.errors import EngineError
from tests.engine.scripted_server import Exchange, greet, open_server

SPEC = EmbedSpec(b"1", "m", ("Hello", "Two words"))


def answer(*vectors: list[float]) -> dict[str, object]:
    """As servers answer, in any order."""
    data = [{"index": at, "embedding": vector} for at, vector in enumerate(vectors)]
    return {"object": "list", "data": data[::-1], "usage": {"prompt_tokens": 5}}


def test_what_a_server_is_asked():
    body = embed_body(SPEC, "the/M")
    assert body == {"model": "the/M", "input": ["Hello", "Two words"], "encoding_format": "float"}
    tokens = EmbedSpec(b"1", "m", ((1, 2), (3,)))
    assert embed_body(tokens, "M")["input"] == [[1, 2], [3]]


@pytest.mark.parametrize(
    "spec",
    [
        EmbedSpec(b"1", "m", ()),
        EmbedSpec(b"1", "m", ("a",) * (limits.ENGINE_EMBED_INPUTS_MAX + 1)),
        EmbedSpec(b"1", "m", ("a", (1,))),
        EmbedSpec(b"1", "m", ("\ud83c",)),
        EmbedSpec(b"1", "m", ("a",), Pooling.CLS),
    ],
)
def test_what_it_can_not_be_asked(spec):
    with pytest.raises(EngineError, match="bad_spec"):
        embed_body(spec, "M")


def test_vectors_come_in_the_order_of_the_texts():
    first, second = read_embeddings(json.dumps(answer([3, 4], [0, 0])).encode(), SPEC)
    assert first.numbers() == pytest.approx((0.6, 0.8))
    assert second.numbers() == (0, 0)
    assert (first.input_tokens, second.input_tokens) == (2, 3)
    plain = EmbedSpec(b"1", "m", SPEC.inputs, normalized=False)
    whole = read_embeddings(json.dumps(answer([3, 4], [5, 6])).encode(), plain)
    assert [each.numbers() for each in whole] == [(3, 4), (5, 6)]


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"[]",
        b'{"data": 5}',
        json.dumps(answer([1.0])).encode(),
        json.dumps(answer([1.0], [1.0, 2.0])).encode(),
        json.dumps(answer([], [])).encode(),
        json.dumps(answer([1.0], ["x"])).encode(),  # type: ignore[list-item]
        json.dumps(answer([1e300], [1.0])).encode(),
        b'{"data": [{"index": 0, "embedding": [1]}, {"index": 0, "embedding": [1]}]}',
        b"[" * 100_000,
    ],
    ids=range(10),
)
def test_an_answer_that_is_none(said):
    plain = EmbedSpec(b"1", "m", SPEC.inputs, normalized=False)
    with pytest.raises(EngineError, match="remote_failed"):
        read_embeddings(said, plain)


async def serve_json(exchange: Exchange, body: object) -> None:
    content = json.dumps(body).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    await exchange.send(head.encode() + content)


async def test_a_server_that_embeds():
    """Its probe is a chat; then texts go to /embeddings, errors by their status."""

    async def embed(exchange: Exchange) -> None:
        if "refuse" in exchange.body["input"]:
            await exchange.refuse(400, {"error": {"message": "no such model"}})
        else:
            await serve_json(exchange, answer([1.0, 0.0], [0.0, 1.0]))

    with trio.fail_after(30):
        async with open_server() as server, trio.open_nursery() as nursery:
            settings = RemoteSettings("m", server.url, "the/M", context_tokens=64, embeds=True)
            engine = RemoteEngine(settings)
            await nursery.start(engine.run)
            assert engine.models()[0].embeds
            server.answer = embed
            server.seen.clear()
            found = await engine.embed(SPEC)
            assert [each.numbers() for each in found] == [(1, 0), (0, 1)]
            (seen,) = server.seen
            assert seen.path.endswith("/embeddings")
            for texts, code in (
                (("refuse",), "engine.bad_spec"),
                (("word " * 99,), "engine.prompt_too_long"),
            ):
                with pytest.raises(EngineError) as caught:
                    await engine.embed(EmbedSpec(b"1", "m", texts))
                assert caught.value.code == code
            assert engine.free_places("m") == 4
            with pytest.raises(EngineError, match="unknown_model"):
                await engine.embed(EmbedSpec(b"1", "other", ("a",)))
            nursery.cancel_scope.cancel()


async def test_a_server_that_does_not_say_so_is_not_asked():
    with trio.fail_after(30):
        async with open_server() as server, trio.open_nursery() as nursery:
            engine = RemoteEngine(RemoteSettings("m", server.url, "the/M"))
            server.answer = greet
            await nursery.start(engine.run)
            assert not engine.models()[0].embeds
            with pytest.raises(EngineError, match="no_embeddings"):
                await engine.embed(SPEC)
            nursery.cancel_scope.cancel()


async def test_a_script_and_a_group_of_them(autojump_clock):
    """The same text, the same vector; places are kept; the first that offers it is asked."""
    group = EngineGroup([ScriptedEngine({"n": Script()}), ScriptedEngine({"m": Script()})])
    one, other = await group.embed(SPEC)
    assert trio.current_time() == pytest.approx(0.05)
    assert len(one.numbers()) == SCRIPTED_DIMENSIONS
    assert math.hypot(*one.numbers()) == pytest.approx(1, abs=1e-6)
    assert (one.input_tokens, other.input_tokens) == (2, 3)
    (again,) = await group.embed(EmbedSpec(b"2", "n", ("Two words",)))
    assert again == other
    with pytest.raises(EngineError, match="unknown_model"):
        await group.embed(EmbedSpec(b"1", "x", ("a",)))
    with pytest.raises(EngineError, match="no vocabulary"):
        await group.embed(EmbedSpec(b"1", "m", ((1,),)))
