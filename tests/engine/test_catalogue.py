"""Reading GGUF headers: facts of good files, one kind of error for all others."""

import hashlib
import random
from pathlib import Path

import gguf
import numpy as np
import pytest

from engine.catalogue import read_model
from engine.embedded import embedded_model_path
from protocol.errors import EngineError


def write_gguf(path: Path, **changes: object) -> Path:
    """A header that passes, with one tensor; `changes` replace its values, None drops them."""
    values: dict[str, object] = {
        "name": "My Model (v1.5)",
        "context_length": 64,
        "embedding_length": 8,
        "block_count": 1,
        "epsilon": 1e-5,
        "tokens": ["a", "b"],
        "file_type": 15,
        "causal": None,
        "ssm": None,
        "pooling": None,
        **changes,
    }
    writer = gguf.GGUFWriter(path, "llama")
    adders = {
        "name": writer.add_name,
        "context_length": writer.add_context_length,
        "embedding_length": writer.add_embedding_length,
        "block_count": writer.add_block_count,
        "epsilon": writer.add_layer_norm_rms_eps,
        "tokens": writer.add_token_list,
        "file_type": writer.add_file_type,
        "causal": writer.add_causal_attention,
        "ssm": writer.add_ssm_conv_kernel,
        "pooling": writer.add_pooling_type,
    }
    for key, add in adders.items():
        if values[key] is not None:
            add(values[key])
    writer.add_tensor("token_embd.weight", np.zeros((2, 8), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def error_of(path: Path) -> EngineError:
    with pytest.raises(EngineError) as caught:
        read_model(path)
    assert caught.value.code == "engine.bad_model"
    assert str(path) in caught.value.detail
    assert "\n" not in caught.value.detail
    return caught.value


def test_facts_of_the_embedded_model():
    path = embedded_model_path()
    file = read_model(path)
    raw = path.read_bytes()
    assert file.info.name == "embedded"
    assert file.info.digest == hashlib.sha256(raw).digest()
    assert file.info.size_bytes == len(raw)
    assert file.info.context_tokens == 2048
    assert file.info.quantization == "Q8_0"
    assert file.has_chat_template


def test_facts_of_another_file(tmp_path):
    file = read_model(write_gguf(tmp_path / "x.gguf"))
    assert file.info.name == "my-model-v1.5"
    assert file.info.context_tokens == 64
    assert file.info.quantization == "Q4_K_M"
    assert not file.has_chat_template


def test_a_file_without_a_name_goes_by_its_own(tmp_path):
    file = read_model(write_gguf(tmp_path / "Tiny Llama.gguf", name=None, file_type=None))
    assert file.info.name == "tiny-llama"
    assert file.info.quantization == "F16"


def test_the_fingerprint_follows_the_file(tmp_path):
    path = write_gguf(tmp_path / "x.gguf")
    before = read_model(path)
    path.unlink()
    write_gguf(path, name="another one")
    assert read_model(path).fingerprint != before.fingerprint


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "empty"),
        (b"GGUF", "truncated"),
        (random.Random(1).randbytes(4000), "magic"),
        (b"GGUF\3\0\0\0" + random.Random(1).randbytes(4000), "too many fields"),
        (b"GGUF\3\0\0\0" + bytes(16), "no tensors"),
        (embedded_model_path().read_bytes()[:-1], "truncated"),
        (embedded_model_path().read_bytes()[:5000], "truncated"),
    ],
    ids=["empty", "magic only", "garbage", "garbage header", "nothing in it", "cut", "cut header"],
)
def test_a_broken_file_says_why(tmp_path, content, why):
    path = tmp_path / "broken.gguf"
    path.write_bytes(content)
    assert why in error_of(path).detail


def test_no_file_and_a_directory(tmp_path):
    assert "No such file" in error_of(tmp_path / "none.gguf").detail
    assert "not a regular file" in error_of(tmp_path).detail


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"tokens": ["a", "b", "a"]}, "duplicate tokens"),
        ({"tokens": None}, "vocabulary is missing"),
        ({"block_count": 0}, "block_count"),
        ({"block_count": 100_000}, "block_count"),
        ({"epsilon": float("nan")}, "epsilon"),
        ({"epsilon": -1.0}, "epsilon"),
        ({"context_length": None}, "context_length"),
        ({"context_length": 0}, "context_length"),
        ({"causal": False}, "an encoder"),
    ],
)
def test_what_makes_llama_cpp_abort_is_refused(tmp_path, changes, why):
    assert why in error_of(write_gguf(tmp_path / "x.gguf", **changes)).detail


@pytest.mark.parametrize(
    ("changes", "embeds"),
    [
        ({}, True),
        ({"causal": True}, True),
        ({"pooling": gguf.PoolingType.LAST}, True),
        ({"pooling": gguf.PoolingType.RANK}, False),
        ({"ssm": 4}, False),
    ],
)
def test_whether_a_model_makes_embeddings(tmp_path, changes, embeds):
    """A ranker has a score instead, and states have no row for a token."""
    assert read_model(write_gguf(tmp_path / "x.gguf", **changes)).info.embeds is embeds


def test_a_length_beyond_the_file_is_refused_at_once(tmp_path):
    """gguf's reader would count through an array of 2^62 items that are not there."""
    raw = bytearray(write_gguf(tmp_path / "x.gguf").read_bytes())
    at = raw.index(b"tokenizer.ggml.tokens") + len(b"tokenizer.ggml.tokens") + 8
    raw[at : at + 8] = (2**62).to_bytes(8, "little")
    path = tmp_path / "long.gguf"
    path.write_bytes(raw)
    assert error_of(path)


def test_damage_anywhere_in_the_header_is_one_kind_of_error(tmp_path):
    """Any outcome but a model or `engine.bad_model` is an exception that fails this test."""
    good = write_gguf(tmp_path / "x.gguf").read_bytes()
    path = tmp_path / "damaged.gguf"
    codes = []
    for at in range(len(good)):
        raw = bytearray(good)
        raw[at] ^= 0xFF
        path.write_bytes(raw)
        try:
            read_model(path)
        except EngineError as error:
            codes.append(error.code)
    assert set(codes) == {"engine.bad_model"}
    assert len(codes) > 50
