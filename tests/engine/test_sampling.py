"""The sampler: llama.cpp's own steps on the same row, refusals, and the choice itself."""

import ctypes
import math
from collections import Counter

import llama_cpp
import numpy as np
import pytest

from engine.sampling import Sampler, best_tokens, check_parameters, is_greedy
from protocol.errors import EngineError
from protocol.fields import GenerationParameters, LogitBias

VOCABULARY = 2_000
SEEN = [5, 6, 5, 7, 5, 1_999]


def make(**options) -> GenerationParameters:
    plain = {
        "output_tokens_max": 8,
        "temperature_milli": 800,
        "top_k": 0,
        "top_p_milli": 1000,
        "seed": 7,
        "stop": (),
    }
    return GenerationParameters(**{**plain, **options})


def make_row(seed: int = 1, size: int = VOCABULARY) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(size) * 3).astype(np.float32)


def chain_keeps(row: np.ndarray, parameters: GenerationParameters) -> dict[int, float]:
    """What llama.cpp's samplers leave of a row, in its order, before the choice."""
    chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
    biases = parameters.logit_bias
    entries = (llama_cpp.llama_logit_bias * max(1, len(biases)))(
        *((bias.token, bias.bias_milli / 1000) for bias in biases)
    )
    steps = [
        llama_cpp.llama_sampler_init_logit_bias(row.size, len(biases), entries),
        llama_cpp.llama_sampler_init_penalties(
            row.size,
            64,
            parameters.repeat_penalty_milli / 1000,
            parameters.frequency_penalty_milli / 1000,
            parameters.presence_penalty_milli / 1000,
        ),
    ]
    if parameters.top_k:
        steps.append(llama_cpp.llama_sampler_init_top_k(parameters.top_k))
    steps.append(llama_cpp.llama_sampler_init_top_p(parameters.top_p_milli / 1000, 1))
    steps.append(llama_cpp.llama_sampler_init_min_p(parameters.min_p_milli / 1000, 1))
    steps.append(llama_cpp.llama_sampler_init_temp(parameters.temperature_milli / 1000))
    for step in steps:
        llama_cpp.llama_sampler_chain_add(chain, step)
    for token in SEEN:
        llama_cpp.llama_sampler_accept(chain, token)
    data = (llama_cpp.llama_token_data * row.size)(
        *((token, float(logit), 0.0) for token, logit in enumerate(row))
    )
    array = llama_cpp.llama_token_data_array(data, row.size, -1, False)
    llama_cpp.llama_sampler_apply(chain, ctypes.byref(array))
    kept = {array.data[index].id: array.data[index].logit for index in range(array.size)}
    llama_cpp.llama_sampler_free(chain)
    return kept


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"top_k": 40},
        {"top_k": 40, "top_p_milli": 900},
        {"top_k": 1_000, "top_p_milli": 500, "min_p_milli": 20},
        {"min_p_milli": 100},
        {"top_k": 25, "min_p_milli": 1000},
        {"repeat_penalty_milli": 1_300, "top_k": 30},
        {"repeat_penalty_milli": 400, "frequency_penalty_milli": -700},
        {"presence_penalty_milli": 1_500, "frequency_penalty_milli": 900, "top_k": 300},
        {"logit_bias": (LogitBias(5, 9_000), LogitBias(9, -2_500)), "top_k": 10},
        {
            "logit_bias": (LogitBias(5, 30_000),),
            "repeat_penalty_milli": 2_000,
            "top_k": 50,
            "top_p_milli": 950,
            "min_p_milli": 10,
            "temperature_milli": 2_000,
        },
    ],
)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_candidates_are_those_of_llama_cpp(options, seed, monkeypatch):
    """Same tokens, same scores, for each step alone and all together. Source: llama.cpp."""
    monkeypatch.setattr("engine.sampling.gumbel", lambda seed, step, tokens: 0)
    row, parameters = make_row(seed), make(**options)
    before = row.copy()
    sampler = Sampler(parameters, SEEN)
    adjusted = sampler.adjust(row)
    tokens = sampler.candidates(adjusted)
    scores = sampler.scores(adjusted, 0, tokens)
    expected = chain_keeps(row, parameters)
    assert set(tokens.tolist()) == set(expected)
    found = dict(zip(tokens.tolist(), scores.tolist(), strict=True))
    assert found == pytest.approx(expected, abs=1e-4)
    assert (row == before).all()


def test_top_p_without_top_k_looks_at_the_best_thousand():
    row = make_row(size=5_000) / 100
    tokens = Sampler(make(top_p_milli=999), []).candidates(row)
    cut = Sampler(make(top_k=1_000, top_p_milli=999), []).candidates(row)
    assert (tokens == cut).all()
    assert 900 < tokens.size <= 1_000


@pytest.mark.parametrize("temperature_milli", [1, 100, 1_000, 5_000])
def test_an_uncut_vocabulary_gives_what_all_its_scores_would(temperature_milli):
    """Thinning out changes no choice, however flat or steep the row."""
    sampler = Sampler(make(temperature_milli=temperature_milli), [])
    chosen = set()
    for seed, scale in enumerate((0.0, 0.01, 1.0, 10.0)):
        row = make_row(seed, 20_000) * np.float32(scale)
        for step in range(20):
            tokens = sampler.candidates(row)
            assert tokens.size == row.size
            slow = tokens[sampler.scores(row, step, tokens).argmax()]
            assert sampler.choose(row, step) == slow
            chosen.add(int(slow))
    assert len(chosen) > 20


@pytest.mark.parametrize("size", [1, 7, 256, 1_000, 32_003])
@pytest.mark.parametrize("count", [1, 2, 40, 1_000])
def test_the_best_tokens_are_the_first_of_a_sort(size, count):
    """Reference: a stable sort of the row; with many equal logits too."""
    for row in (make_row(3, size), np.round(make_row(4, size)), np.zeros(size, np.float32)):
        expected = np.argsort(-row, kind="stable")[:count]
        assert best_tokens(row, count).tolist() == expected.tolist()


def test_the_choices_are_spread_like_softmax():
    """5,000 steps: no frequency is five standard errors off."""
    row = np.array([2.0, 1.0, 0.5, -1.0, -math.inf], np.float32)
    sampler = Sampler(make(temperature_milli=700), [])
    steps = 5_000
    counts = Counter(sampler.choose(row, step) for step in range(steps))
    weights = np.exp(row / 0.7)
    for token, share in enumerate(weights / weights.sum()):
        error = math.sqrt(share * (1 - share) / steps)
        assert abs(counts[token] / steps - share) <= 5 * error
    assert counts[4] == 0


def test_a_choice_follows_from_seed_and_step_alone():
    """Not from earlier choices: a verifier may begin anywhere."""
    row = make_row(5)
    first = [Sampler(make(top_k=40), []).choose(row, step) for step in range(50)]
    sampler = Sampler(make(top_k=40), [])
    assert [sampler.choose(row, step) for step in reversed(range(50))] == first[::-1]
    assert [Sampler(make(top_k=40, seed=8), []).choose(row, step) for step in range(50)] != first


def test_penalties_and_bias_move_the_greedy_choice_too():
    row = np.array([3.0, 2.9, 2.8, 0.0], np.float32)
    greedy = {"temperature_milli": 0}
    assert Sampler(make(**greedy), [0]).choose(row, 0) == 0
    assert Sampler(make(**greedy, repeat_penalty_milli=1_100), [0]).choose(row, 0) == 1
    forbidden = (LogitBias(0, -100_000), LogitBias(1, -100_000))
    assert Sampler(make(**greedy, logit_bias=forbidden), []).choose(row, 0) == 2
    far = row.copy()
    far[0] = 1e6
    assert Sampler(make(**greedy, logit_bias=forbidden), []).choose(far, 0) == 2


def test_penalties_see_the_last_64_tokens_of_prompt_and_output():
    row = np.array([3.0, 2.0], np.float32)
    parameters = make(temperature_milli=0, presence_penalty_milli=2_000)
    sampler = Sampler(parameters, [0] + [9] * 62)
    row = np.concatenate([row, np.full(8, -9, np.float32)])
    assert sampler.choose(row, 0) == 1
    sampler.take(8)
    assert sampler.choose(row, 0) == 1
    sampler.take(8)
    assert sampler.choose(row, 0) == 0


def test_only_plain_greedy_needs_no_sampler():
    assert Sampler(make(temperature_milli=0), []).is_plain
    assert not Sampler(make(), []).is_plain
    assert not Sampler(make(temperature_milli=0, repeat_penalty_milli=999), []).is_plain
    assert not Sampler(make(temperature_milli=0, logit_bias=(LogitBias(1, 1),)), []).is_plain


@pytest.mark.parametrize(
    ("options", "greedy"),
    [
        ({"temperature_milli": 0}, True),
        ({"temperature_milli": 1}, False),
        ({"temperature_milli": 900, "top_k": 1}, True),
        ({"temperature_milli": 900, "top_p_milli": 0}, True),
        ({"temperature_milli": 900, "top_k": 2, "top_p_milli": 1}, False),
    ],
)
def test_greedy_is_what_leaves_no_choice(options, greedy):
    assert is_greedy(make(**options)) == greedy


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"logit_bias": (LogitBias(VOCABULARY, 1),)}, "2000 tokens"),
        ({"logit_bias": (LogitBias(2**32 - 1, 1),)}, "2000 tokens"),
        ({"logit_bias": (LogitBias(3, 1), LogitBias(3, 2))}, "twice"),
        ({"stop_tokens": (2, VOCABULARY)}, "2000 tokens"),
    ],
)
def test_what_can_not_be_done_as_asked_is_refused(options, why):
    """`engine.bad_spec`: an answer sampled otherwise than asked would be a lie."""
    with pytest.raises(EngineError, match=why) as caught:
        check_parameters(make(**options), VOCABULARY)
    assert caught.value.code == "engine.bad_spec"


def test_a_vocabulary_that_is_forbidden_whole_is_refused():
    biases = tuple(LogitBias(token, -100_000) for token in range(3))
    check_parameters(make(logit_bias=biases), 4)
    with pytest.raises(EngineError, match="every token"):
        check_parameters(make(logit_bias=biases), 3)
