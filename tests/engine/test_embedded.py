"""The model that ships with the package: reproducible, small, and it answers."""

import string

import pytest

from engine.catalogue import read_model
from engine.embedded import EMBEDDED_MODEL_NAME, embedded_model_path
from engine.models.make_embedded import CONTROL_TOKENS, make
from protocol.fields import FinishReason


def test_a_rebuild_has_the_same_bytes(tmp_path):
    make(tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == embedded_model_path().read_bytes()


def test_it_is_small_and_goes_by_its_name():
    info = read_model(embedded_model_path()).info
    assert info.size_bytes <= 3 * 1024 * 1024
    assert info.name == EMBEDDED_MODEL_NAME


@pytest.mark.parametrize("temperature_milli", [0, 800])
@pytest.mark.parametrize("seed", range(4))
def test_it_answers_in_printable_text_to_the_last_token(
    bench, chat, parameters, temperature_milli, seed
):
    run = bench()
    options = parameters(48, temperature_milli=temperature_milli, seed=seed)
    run.submit(1, chat("What is the capital of France?"), options)
    run.run()
    assert run.end(1).reason == FinishReason.LENGTH
    text = run.text(1)
    assert set(text) <= set(string.printable)
    assert len(set(text.split())) >= 4


def test_its_control_tokens_are_known_to_llama_cpp(model):
    assert set(model.vocabulary.control_tokens) == set(CONTROL_TOKENS)
    assert {model.vocabulary.name(token) for token in model.vocabulary.end_tokens} == {
        "<|endoftext|>",
        "<|im_end|>",
    }
