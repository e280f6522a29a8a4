"""Vectors as OpenAI's embeddings: their order, their encodings, and what is not taken for one.

Source: peer/gateway/README.md, "Embeddings".
"""

import base64
import json
import struct
from dataclasses import replace
from typing import Any

import pytest

from peer.config import RequesterConfig
from peer.gateway.answers import Choice, Shape
from peer.gateway.asks import Wanted, embedding_asks
from peer.gateway.bodies import EmbeddingBody, parse_body
from peer.gateway.failures import ApiError
from protocol import limits
from protocol.errors import RemoteError
from protocol.fields import InferenceType
from router import events
from tests.vectors.samples import RECEIPT

DONE = events.Done(RECEIPT, bytes(32), 1)


def wanted(**body: Any) -> Wanted:
    data = json.dumps({"model": "m", **body}).encode()
    return embedding_asks(parse_body(data, EmbeddingBody), RequesterConfig())


def line(*numbers: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode() + "\n"


def answer(asked: Wanted, *texts: str) -> Any:
    choices = [Choice(index, pieces=[text], done=DONE) for index, text in enumerate(texts)]
    return Shape(asked, 0).whole(choices)


def test_a_list_is_cut_into_jobs() -> None:
    texts = [str(number) for number in range(limits.API_TEXTS_PER_JOB + 1)]
    asks = wanted(input=texts).asks
    assert [len(ask.prompt.messages) for ask in asks] == [limits.API_TEXTS_PER_JOB, 1]
    assert {ask.prompt.inference_type for ask in asks} == {InferenceType.EMBEDDING}
    said = [message.content for ask in asks for message in ask.prompt.messages]
    assert said == texts


def test_vectors_keep_the_order_of_the_texts() -> None:
    asked = wanted(input=["a"] * 17)
    value = answer(asked, line(1, 0) * 16, line(0.5, -2))
    assert [item["index"] for item in value["data"]] == list(range(17))
    assert value["data"][16]["embedding"] == [0.5, -2.0]
    encoded = answer(replace(asked, encoding="base64"), line(1, 0) * 16, line(0.5, -2))
    assert encoded["data"][16]["embedding"] + "\n" == line(0.5, -2)


@pytest.mark.parametrize(
    "text",
    ["", "not base64\n", line(1) * 2, line(float("nan")), line(float("inf")), "AAA=\n"],
    ids=["nothing", "no base64", "too many", "nan", "infinite", "half a number"],
)
def test_what_is_no_vector_is_the_provider_s_fault(text: str) -> None:
    with pytest.raises(RemoteError, match=r"chunk\.bad_vectors"):
        answer(wanted(input="a"), text)


def test_jobs_that_disagree_on_the_length() -> None:
    with pytest.raises(RemoteError, match="two lengths"):
        answer(wanted(input=["a"] * 17), line(1, 0) * 16, line(1))


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"input": []},
        {"input": [1, 2]},
        {"input": [[1, 2]]},
        {"input": ["a"] * (limits.API_TEXTS_MAX + 1)},
        {"input": "a", "encoding_format": "int8"},
        {"input": "a", "dimensions": 64},
        {"input": "a", "inputs": "b"},
    ],
)
def test_what_is_refused(body: Any) -> None:
    with pytest.raises(ApiError):
        wanted(**body)
