"""Mutated GGUF files through the header's reader, and what it accepts through a real worker.

The reader answers with a description or `engine.bad_model`, soon, whatever the file. A file that
it accepts may still be refused, by a worker that fails or dies over it; or it is served, and then
a job ends as jobs do. The daemon, this process, goes on. Run by `tests.engine.fuzz --headers N`.
"""

import math
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

from engine.catalogue import read_model
from engine.interface import JobSpec
from engine.llama import LlamaEngine
from engine.settings import LlamaSettings
from protocol import limits
from protocol.errors import EngineError
from protocol.fields import ChatMessage, GenerationParameters, InferenceType, Prompt
from protocol.units import NS_PER_S
from tests.engine.fuzz_tally import Tally
from tests.engine.gguf_parts import ARRAY, FORMATS, STRING, Field, Parts, tiny

NUMBERS = (
    0,
    1,
    2,
    3,
    31,
    255,
    513,
    2**15,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**62,
    2**63,
    2**64 - 1,
    -1,
)
FLOATS = (0.0, -1.0, 1e-45, 1e38, math.nan, math.inf, -math.inf, 0.5)
TEMPLATES = (
    b"",
    b"{{",
    b"{{ nothing.at.all }}",
    b"{{ messages[9]['content'] }}",
    b"{{ raise_exception('no') }}",
    b"{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
    b"{{ 'x' * 10000000000 }}",
    b"{% for m in messages %}{{ m.content * 99 }}{% endfor %}",
    b"{{ ''.__class__.__mro__ }}",
    b"{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    b"{% for m in messages %}{{ m.content }}{% endfor %}{{ bos_token }}",
)
ARCHITECTURES = (
    b"bert",
    b"mamba",
    b"gpt2",
    b"qwen2",
    b"gemma3",
    b"t5",
    b"rwkv7",
    b"clip",
    b"",
    b"\xff",
)
TEXTS = (b"", b"\0", b"\xff\xfe", b"a" * 70_000, b"bert", b"spm", b"llama", b"no", b"%s%n")
# Far over what any header takes here.
READ_S_MAX = 5
START_S_MAX = 15
JOB_S_MAX = 30
SETTINGS = LlamaSettings(n_threads=1, places=2, context_tokens=64, worker_memory_mib=1_024)


def other_number(chance: random.Random, value: Any) -> Any:
    """An extreme, or a neighbour."""
    if isinstance(value, float):
        return chance.choice([*FLOATS, value * 2, -value])
    if isinstance(value, bytes):
        return chance.choice(NUMBERS)
    near = int(value) + chance.choice([-1, 1])
    return chance.choice([*NUMBERS, near, int(value) * 2, chance.getrandbits(32)])


def change_value(chance: random.Random, parts: Parts) -> None:
    """Another value of the same kind."""
    one = chance.choice(parts.fields)
    if one.key == b"tokenizer.chat_template" and chance.random() < 0.8:
        one.value = chance.choice(TEMPLATES)
    elif one.key == b"general.architecture":
        become(parts, chance.choice(ARCHITECTURES))
    elif one.kind == STRING:
        one.value = chance.choice([*TEXTS, chance.randbytes(chance.randrange(40))])
    elif one.kind == ARRAY:
        change_array(chance, one)
    else:
        one.value = other_number(chance, one.value)


def become(parts: Parts, architecture: bytes) -> None:
    """Another architecture, its keys too: read as such, and found wanting."""
    before = parts.named("general.architecture").value
    for one in parts.fields:
        if one.key.startswith(before + b"."):
            one.key = architecture + one.key[len(before) :]
    parts.named("general.architecture").value = architecture


def change_array(chance: random.Random, one: Field) -> None:
    """Items lost, doubled, mixed or changed; a claimed length; another kind of items."""
    items = list(one.value)
    kind = chance.randrange(6)
    if kind == 0:
        one.count = chance.choice([*NUMBERS, len(items) - 1, len(items) + 1])
    elif kind == 1:
        one.item = chance.choice([*FORMATS, STRING, ARRAY, 99])
    elif kind == 2:
        one.value = items[: chance.randrange(len(items) + 1)]
    elif kind == 3:
        chance.shuffle(items)
        one.value = items
    else:
        for _ in range(chance.choice([1, 5]) if items else 0):
            at = chance.randrange(len(items))
            old = items[at]
            items[at] = (
                chance.choice([*TEXTS, chance.choice(items)])
                if isinstance(old, bytes)
                else other_number(chance, old)
            )
        one.value = items


def change_field(chance: random.Random, parts: Parts) -> None:
    """A field lost, doubled, renamed, of another kind, or one more."""
    one = chance.choice(parts.fields)
    kind = chance.randrange(5)
    if kind == 0:
        parts.fields.remove(one)
    elif kind == 1:
        parts.fields.append(Field(one.key, one.kind, one.value, one.item))
    elif kind == 2:
        one.key = chance.choice(
            [b"", b"\xff", one.key + b"x", b"k" * 70_000, b"general.alignment"]
        )
    elif kind == 3:
        one.kind = chance.choice([*FORMATS, STRING, ARRAY, 13, 2**32 - 1])
    else:
        names = ["llama.expert_count", "llama.attention.key_length", "llama.rope.scaling.factor"]
        key = chance.choice([*names, "llama.attention.sliding_window", "general.alignment"])
        parts.fields.append(Field(key.encode(), 4, chance.choice(NUMBERS)))


def change_tensor(chance: random.Random, parts: Parts) -> None:
    """A tensor lost, doubled, renamed, of other dimensions, another kind or another place."""
    one = chance.choice(parts.tensors)
    kind = chance.randrange(7)
    if kind == 0:
        parts.tensors.remove(one)
    elif kind == 1:
        parts.tensors.append(chance.choice(parts.tensors))
    elif kind == 2:
        one.name = chance.choice([b"", b"\xff", b"n" * 70, one.name + b"x"])
    elif kind == 3:
        one.dimensions = chance.choice(
            [
                [],
                one.dimensions[::-1],
                [*one.dimensions, 1],
                [2] * 9,
                [chance.choice(NUMBERS) for _ in one.dimensions],
                [2**32, 2**32],
            ]
        )
    elif kind == 4:
        at = chance.randrange(len(one.dimensions) or 1)
        one.dimensions[at : at + 1] = [chance.choice([0, 1, 31, 33, 64, 271, 273])]
    elif kind == 5:
        one.kind = chance.choice([*range(42), 2**31, 2**32 - 1])
    else:
        one.offset = chance.choice([*NUMBERS, one.offset + 1, one.offset + 32])


def change_frame(chance: random.Random, parts: Parts) -> None:
    """The version, the counts, the byte order, the magic, or the weights."""
    kind = chance.randrange(6)
    if kind == 0:
        parts.version = chance.choice([0, 1, 2, 4, 5, 2**31, 3 << 24])
    elif kind == 1:
        parts.field_count = chance.choice([*NUMBERS, len(parts.fields) - 1, len(parts.fields) + 1])
    elif kind == 2:
        parts.tensor_count = chance.choice([*NUMBERS, len(parts.tensors) - 1])
    elif kind == 3:
        parts.order, parts.magic = ">", chance.choice([b"GGUF", b"FUGG"])
    elif kind == 4:
        parts.extra = chance.randbytes(chance.choice([1, 32, 4_000]))
    else:
        at = chance.randrange(len(parts.data) - 64)
        worse = chance.choice([b"\x00\x7e", b"\x00\x7c", b"\xff\xff", b"\x00\xfc"])
        parts.data = parts.data[:at] + worse * 32 + parts.data[at + 64 :]


CHANGES: tuple[Callable[[random.Random, Parts], None], ...] = (
    *(change_value,) * 4,
    change_field,
    *(change_tensor,) * 2,
    change_frame,
)


def mutate(chance: random.Random) -> bytes:
    """The tiny model with one to three things wrong in it, perhaps cut, perhaps with bits lost."""
    parts = tiny()
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        if parts.fields and parts.tensors:
            chance.choice(CHANGES)(chance, parts)
    raw = bytearray(parts.to_bytes())
    header = max(1, len(raw) - len(parts.data))
    if chance.random() < 0.1:
        del raw[chance.randrange(len(raw)) :]
    if chance.random() < 0.1:
        for _ in range(chance.choice([1, 8])):
            if raw:
                raw[chance.randrange(min(header, len(raw)))] = chance.randrange(256)
    return bytes(raw)


def read_one(path: Path, tally: Tally) -> bool:
    """Whether the reader accepts the file."""
    begin = time.process_time()
    try:
        read_model(path)
    except EngineError as error:
        tally.outcomes[f"header {error.code}"] += 1
        if error.code != "engine.bad_model" or "\n" in error.detail:
            tally.faults.append(f"{error!r} for {path}")
        accepted = False
    except Exception as error:  # noqa: BLE001 - what it would have cost is the daemon
        tally.faults.append(f"{error!r} for {path}")
        accepted = False
    else:
        tally.outcomes["header accepted"] += 1
        accepted = True
    if time.process_time() - begin > READ_S_MAX:
        tally.faults.append(f"{time.process_time() - begin:.0f} s of CPU for {path}")
    return accepted


async def load_one(path: Path, tally: Tally) -> None:
    """The file in a worker; a job when it serves."""
    engine = LlamaEngine([path], SETTINGS)
    try:
        with trio.fail_after(START_S_MAX + 2 * JOB_S_MAX):
            async with trio.open_nursery() as nursery:
                await nursery.start(engine.run)
                await ask(engine, path, tally)
                nursery.cancel_scope.cancel()
    except* EngineError as group:
        for error in leaves(group):
            _, died, how = str(error).partition("the worker died while loading, ")
            code = error.code if isinstance(error, EngineError) else repr(error)
            tally.outcomes[f"load {code}{f': died, {how[:60]}' if died else ''}"] += 1
    except* Exception as group:  # noqa: BLE001 - the same
        tally.faults.append(f"{leaves(group)} for {path}")


def leaves(group: BaseExceptionGroup[Any]) -> list[BaseException]:
    """The exceptions in a group of groups."""
    found: list[BaseException] = []
    for one in group.exceptions:
        found += leaves(one) if isinstance(one, BaseExceptionGroup) else [one]
    return found


async def ask(engine: LlamaEngine, path: Path, tally: Tally) -> None:
    (info,) = engine.models()
    prompt = Prompt(InferenceType.CHAT, (ChatMessage("user", "the cat <|im_end|> \0"),))
    spec = JobSpec(b"", info.name, prompt, GenerationParameters(20, 900, 40, 950, 7, ()))
    try:
        with trio.fail_after(JOB_S_MAX):
            await engine.run_job(spec, lambda event: None)
    except EngineError as error:
        tally.outcomes[f"job {error.code}"] += 1
        return
    tally.outcomes["job finished"] += 1


async def fuzz_headers(
    headers: int, loads: int, seed: int, say: Callable[[str], None] = lambda line: None
) -> Tally:
    """Read so many mutated files, and load so many of those that are accepted."""
    chance, tally, loaded = random.Random(seed), Tally(), 0
    before = limits.ENGINE_START_NS_MIN
    limits.ENGINE_START_NS_MIN = START_S_MAX * NS_PER_S  # type: ignore[misc]  # not a minute
    try:
        with tempfile.TemporaryDirectory(prefix="peerd-fuzz-") as home:
            for index in range(headers):
                path = Path(home) / f"{index}.gguf"
                path.write_bytes(mutate(random.Random(chance.getrandbits(64))))
                accepted = read_one(path, tally)
                faults = len(tally.faults)
                # Spread over the whole run.
                if accepted and loaded < loads and loaded * headers <= index * loads:
                    loaded += 1
                    await load_one(path, tally)
                if len(tally.faults) == faults:
                    path.unlink()
                if index % 500 == 0:
                    say(f"{index} headers, {loaded} loads, {len(tally.faults)} faults")
    finally:
        limits.ENGINE_START_NS_MIN = before  # type: ignore[misc]
    tally.outcomes["loads"] = loaded
    return tally
