"""Jobs as honest requesters send them, of all kinds: what the soak runs."""

import random

from protocol.fields import (
    ChatMessage,
    ConstraintKind,
    GenerationParameters,
    InferenceType,
    LogitBias,
    OutputConstraint,
    Prompt,
)

QUESTIONS = (
    "What is the capital of France?",
    "What is a voucher?",
    "What is 7 plus 5?",
    "Explain how payment works in peerd.",
    "How many metres is a kilometre?",
    "Who are you?",
    "What is a channel, and what is a bid?",
    "日本語 e\u0301 👩‍👩‍👧‍👦 <|im_end|> {{ messages }}",
)
CONSTRAINTS = (
    OutputConstraint(ConstraintKind.JSON, ""),
    OutputConstraint(ConstraintKind.GRAMMAR, 'root ::= [a-z ]{5,60} "."'),
    OutputConstraint(ConstraintKind.GRAMMAR, 'root ::= ("yes" | "no") (", " [a-z]+)*'),
    OutputConstraint(
        ConstraintKind.JSON_SCHEMA,
        '{"type":"object","properties":{"name":{"type":"string","maxLength":20},'
        '"age":{"type":"integer","minimum":0,"maximum":150}},"required":["name","age"]}',
    ),
)


def make_prompt(chance: random.Random) -> Prompt:
    """A question, perhaps after a long text, earlier turns, or to be completed."""
    question = chance.choice(QUESTIONS)
    if chance.random() < 0.15:
        question = "The peer pays the provider with a voucher. " * chance.randint(5, 60) + question
    if chance.random() < 0.1:
        return Prompt(InferenceType.COMPLETION, (ChatMessage("user", question),))
    turns = []
    for _ in range(chance.choice([0, 0, 0, 1, 3])):
        turns.append(ChatMessage("user", chance.choice(QUESTIONS)))
        turns.append(ChatMessage("assistant", "Paris."))
    return Prompt(InferenceType.CHAT, (*turns, ChatMessage("user", question)))


def make_parameters(chance: random.Random) -> GenerationParameters:
    """As requesters send them: half greedy, half with anything."""
    tokens, seed = chance.choice([1, 8, 40, 120, 200]), chance.getrandbits(32)
    stop = chance.choice([(), (), (), (".",), ("a", " the"), ("\n\n", "。")])
    constraint = chance.choice(CONSTRAINTS) if chance.random() < 0.15 else None
    if chance.random() < 0.5:
        return GenerationParameters(tokens, 0, 0, 1_000, seed, stop, constraint=constraint)
    biases = tuple(LogitBias(token, 2_000) for token in chance.sample(range(1_000), 3))
    return GenerationParameters(
        tokens,
        chance.choice([300, 700, 1_000, 1_500]),
        chance.choice([0, 1, 40, 200]),
        chance.choice([500, 950, 1_000]),
        seed,
        stop,
        min_p_milli=chance.choice([0, 0, 50]),
        repeat_penalty_milli=chance.choice([1_000, 1_000, 1_100]),
        presence_penalty_milli=chance.choice([0, 0, 500]),
        logit_bias=biases if chance.random() < 0.2 else (),
        constraint=constraint,
        logprobs=chance.choice([0, 0, 0, 5]),
    )
