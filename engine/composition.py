"""What one step feeds: every decoding sequence its last token, and a chunk of waiting prompts.

Moves the sequences past what it takes from them. Must not know sampling or llama.cpp.
Rule: engine/README.md.
"""

from collections.abc import Iterable

from engine.native import Row
from engine.sequence import Sequence
from protocol import limits

# When nobody decodes, nobody waits for a step: more than this reads no faster.
IDLE_CHUNK_TOKENS = 512


def compose(
    running: Iterable[Sequence], chunk_tokens: int, idle_tokens: int = IDLE_CHUNK_TOKENS
) -> tuple[list[Row], list[Sequence]]:
    """What to feed in this step, and whose next token follows from it, both by place.

    At most `chunk_tokens` of prompts, or `idle_tokens` if that is more and nobody decodes.

    llama.cpp computes places together that are neighbours and come in order: 32 decoding ones
    in the order of their jobs' arrival would take it three times as long.
    """
    decoding_first = sorted(running, key=lambda sequence: not sequence.prefilled)
    decodes = bool(decoding_first) and decoding_first[0].prefilled
    budget = chunk_tokens if decodes else max(chunk_tokens, idle_tokens)
    rows: list[Row] = []
    sampled: list[Sequence] = []
    for sequence in decoding_first:
        if sequence.prefilled and sequence.checker is None:
            rows.append(Row(sequence.place, sequence.position, sequence.unfed, 1))
            sequence.unfed = []
            sequence.position += 1
            sampled.append(sequence)
            continue
        room = 1 if sequence.prefilled else budget
        if sequence.checker is not None:
            room = min(room, limits.ENGINE_RECHECK_ROWS_MAX)
        count = min(len(sequence.unfed), room)
        if not count:
            break
        if not sequence.prefilled:
            budget -= count
        tokens, sequence.unfed = sequence.unfed[:count], sequence.unfed[count:]
        wanted = min(count, max(0, sequence.position + count - sequence.wanted_from))
        if sequence.embedder is not None:
            wanted = 0
        rows.append(Row(sequence.place, sequence.position, tokens, wanted))
        sequence.position += count
        if wanted:
            sampled.append(sequence)
        if not sequence.unfed:
            sequence.prefilled = True
    rows.sort(key=lambda row: row.sequence)
    sampled.sort(key=lambda sequence: sequence.place)
    return rows, sampled
