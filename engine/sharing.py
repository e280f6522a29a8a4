"""Prompts that begin alike and come together are read once: the others wait for the first.

The completions of one prompt are the usual case. Nothing is lost by waiting: prompts are read
in the order of their arrival, so the first one's would have come before. Must not know sampling
or llama.cpp. Rule: engine/README.md, "Known beginnings".
"""

from collections.abc import Sequence as Items

from engine.places import Places, common_tokens
from engine.sequence import Sequence

# A step is worth waiting for only to save more than this.
LED_TOKENS_MIN = 64


def find_leader(newcomer: Sequence, running: Items[Sequence], places: Places) -> None:
    """Have a newcomer follow whoever is about to read most of its prompt's beginning.

    Only its owner's jobs, and only for more than what is there already.
    """
    if not newcomer.generates or not places.reuses:
        return
    best, most = None, places.held(newcomer.unfed, newcomer.owner) + LED_TOKENS_MIN
    for other in running:
        if other.prefilled or not other.generates or other.owner != newcomer.owner:
            continue
        common = min(common_tokens(other.prompt, newcomer.unfed), len(newcomer.unfed) - 1)
        if common > most:
            best, most = other, common
    newcomer.leader, newcomer.led_tokens = best, most


def release_led(running: Items[Sequence], places: Places) -> None:
    """Let those go on whose leader has read what they share, or has gone before it had."""
    for sequence in running:
        leader = sequence.leader
        if leader is None or (leader in running and leader.position < sequence.led_tokens):
            continue
        sequence.leader = None
        sequence.skip(places.refill(sequence.place, sequence.unfed, sequence.owner))
