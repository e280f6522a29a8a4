"""Constrained jobs on the real babbling model, and which token a constraint lets through."""

import json
from dataclasses import replace

import numpy as np
import pytest

from engine.constraint import Constraint, Pieces
from engine.frames import JobFailed, JobFinished
from engine.gbnf import parse_grammar
from engine.sampling import Sampler
from protocol import limits
from protocol.fields import (
    ConstraintKind,
    FinishReason,
    GenerationParameters,
    LogitBias,
    OutputConstraint,
)

GREEDY, HOT = {"temperature_milli": 0}, {"temperature_milli": 1_500, "seed": 3}
POINT = {
    "type": "object",
    "properties": {
        "x": {"type": "integer", "minimum": -9, "maximum": 9},
        "name": {"type": "string", "maxLength": 5},
        "sure": {"type": "boolean"},
    },
    "required": ["x", "name", "sure"],
}


def grammar(text: str) -> OutputConstraint:
    return OutputConstraint(ConstraintKind.GRAMMAR, text)


def schema(value: object) -> OutputConstraint:
    return OutputConstraint(ConstraintKind.JSON_SCHEMA, json.dumps(value))


@pytest.mark.parametrize("options", [GREEDY, HOT, {**HOT, "top_k": 5}])
def test_a_schema_is_kept_and_ends_by_itself(bench, chat, parameters, options):
    run = bench()
    run.submit(1, chat("Hello"), replace(parameters(400, **options), constraint=schema(POINT)))
    run.run()
    value = json.loads(run.text(1))
    assert list(value) == ["x", "name", "sure"]
    assert -9 <= value["x"] <= 9
    assert len(value["name"]) <= 5
    assert value["sure"] in (True, False)
    assert run.end(1) == JobFinished(1, FinishReason.STOP, run.counted(1))


@pytest.mark.parametrize("options", [GREEDY, HOT, {**HOT, "top_k": 5, "top_p_milli": 800}])
def test_json_mode_begins_an_object(bench, chat, parameters, options):
    """Long or short, what came is the beginning of one, or a whole one."""
    run = bench()
    json_mode = OutputConstraint(ConstraintKind.JSON, "")
    run.submit(1, chat("Hello"), replace(parameters(120, **options), constraint=json_mode))
    run.run()
    end = run.end(1)
    assert isinstance(end, JobFinished)
    assert run.text(1).startswith("{")
    if end.reason == FinishReason.STOP:
        assert isinstance(json.loads(run.text(1)), dict)


def test_a_cut_by_length_leaves_a_form_unfinished(bench, chat, parameters):
    run = bench()
    run.submit(
        1, chat("Hello"), replace(parameters(3), constraint=grammar('root ::= "a"{30} "b"'))
    )
    run.run()
    assert run.end(1) == JobFinished(1, FinishReason.LENGTH, 3)
    assert set(run.text(1)) == {"a"}


def test_a_form_that_is_complete_stops_at_once(bench, chat, parameters):
    """Without asking the model for an end; an empty form has no token at all."""
    run = bench()
    run.submit(1, chat("Hello"), replace(parameters(9), constraint=grammar('root ::= "z"')))
    run.submit(2, chat("Hello"), replace(parameters(9), constraint=grammar('root ::= ""')))
    run.run()
    assert run.text(1) == "z"
    assert run.end(1) == JobFinished(1, FinishReason.STOP, 1)
    assert (run.text(2), run.end(2)) == ("", JobFinished(2, FinishReason.STOP, 0))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('root ::= "a"+ "\\x00"', "leave no token"),
        ('root ::= "a" root "b" | "a" root "c" | "\\x00"', "too many ways"),
        ("root ::= (", "expected"),
    ],
)
def test_a_form_that_can_not_be_kept_fails_its_job_alone(bench, chat, parameters, text, why):
    """In the middle of an answer or before it; the others go on as if it were not there."""
    alone = bench()
    alone.submit(2, chat("Why?"), parameters(40))
    alone.run()
    forbidden = (LogitBias(ord("a"), -100_000),) if "leave" in why else ()
    run = bench()
    hostile = replace(parameters(200), constraint=grammar(text), logit_bias=forbidden)
    run.submit(1, chat("Hello"), hostile)
    run.submit(2, chat("Why?"), parameters(40))
    run.run()
    end = run.end(1)
    assert isinstance(end, JobFailed)
    assert end.code == "engine.bad_spec"
    assert why in end.detail
    assert run.text(2) == alone.text(2)


def test_many_constrained_jobs_say_what_each_says_alone(bench, chat, parameters):
    jobs = [
        replace(parameters(60, **HOT), constraint=schema(POINT)),
        replace(parameters(60), constraint=grammar("root ::= [a-z ]+")),
        parameters(60),
        replace(parameters(60, **HOT), constraint=OutputConstraint(ConstraintKind.JSON, "")),
    ]
    alone = []
    for job in jobs:
        run = bench()
        run.submit(1, chat("Hello"), job)
        run.run()
        alone.append(run.text(1))
    together = bench()
    for handle, job in enumerate(jobs):
        together.submit(handle, chat("Hello"), job)
    together.run()
    assert [together.text(handle) for handle in range(4)] == alone


def test_masks_are_of_the_state_that_they_were_made_for(model, monkeypatch):
    """Also when states have just been forgotten and their numbers given to others."""
    monkeypatch.setattr(limits, "GRAMMAR_STATES_MAX", 100)
    pieces = Pieces(model.vocabulary.pieces, model.vocabulary.end_tokens)
    for text in ("root ::= ([a-f]{30} [g-k]{3})*", 'root ::= ([a-m]{20} [n-z]{7} ".")*'):
        constraint = Constraint(parse_grammar(text), pieces)
        for _ in range(120):
            mask = constraint.mask()
            legal = [token for token in range(mask.size) if constraint.allows(token)]
            assert np.flatnonzero(mask).tolist() == legal
            constraint.take(legal[0])
        assert constraint._automaton.generation > 0


# Tokens 0 to 127 are ASCII characters, then two words, an end and a control token.
WORDS = Pieces(
    [bytes([code]) for code in range(128)] + [b"ab", b"abc", b"", b""], frozenset({130})
)


def make(**options: int) -> GenerationParameters:
    plain = GenerationParameters(9, 800, 0, 1000, 7, ())
    return replace(plain, **options)


def brute_force(sampler: Sampler, row: np.ndarray, legal: set[int], step: int) -> int:
    """The definition: the best legal candidate, or, when none is, the same on the legal ones."""
    for scores in (row, np.where([token in legal for token in range(132)], row, -np.inf)):
        scores = scores.astype(np.float32)
        tokens = sampler.candidates(scores)
        ranked = tokens[np.argsort(-sampler.scores(scores, step, tokens))].tolist()
        found = [token for token in ranked if token in legal]
        if found:
            return found[0]
    raise AssertionError


@pytest.mark.parametrize(
    "options",
    [{}, {"top_k": 3}, {"top_k": 60}, {"top_p_milli": 700}, {"temperature_milli": 0}],
)
@pytest.mark.parametrize("uncut", [10, 1_000])
def test_the_choice_is_the_best_legal_candidate(options, uncut, monkeypatch):
    monkeypatch.setattr("engine.sampling.UNCUT_TOKENS", uncut)
    legal = {ord("a"), ord("x"), ord("y"), 128, 130}
    chosen = set()
    for step in range(60):
        constraint = Constraint(parse_grammar('root ::= ("ab" | [xy])?'), WORDS)
        assert set(np.flatnonzero(constraint.mask()).tolist()) == legal
        sampler = Sampler(make(**options), [], constraint)
        row = np.random.default_rng(step).standard_normal(132).astype(np.float32) * 2
        token = sampler.choose(row, step)
        assert token == brute_force(sampler, row, legal, step)
        chosen.add(token)
    assert chosen == legal


def test_a_forbidden_token_stays_forbidden_under_a_constraint():
    constraint = Constraint(parse_grammar("root ::= [xy]"), WORDS)
    bias = tuple(LogitBias(ord(letter), -100_000) for letter in "xy")
    parameters = replace(make(), logit_bias=bias[:1])
    assert Sampler(parameters, [], constraint).choose(np.zeros(132, np.float32), 0) == ord("y")
    parameters = replace(make(), logit_bias=bias)
    assert Sampler(parameters, [], constraint).choose(np.zeros(132, np.float32), 0) is None
