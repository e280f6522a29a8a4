"""What a world is made of: its settings, engines with exact times, and peers. No behaviour."""

from dataclasses import dataclass, field
from typing import Any

from protocol.crypto import Signer
from protocol.fields import Prompt
from protocol.units import NS_PER_MS, NS_PER_US
from router.actions import Action, ModelOffer
from router.node import Node
from simnet.entropy import Entropy


@dataclass(frozen=True, slots=True)
class WorldSettings:
    """One world. Times in ns; `duplicate_percent` of frames on gossip arrive twice."""

    seed: int = 1
    network: str = "sim"
    latency_ns_min: int = 5 * NS_PER_MS
    latency_ns_max: int = 40 * NS_PER_MS
    fsync_ns: int = 200 * NS_PER_US
    degree: int = 4
    duplicate_percent: int = 0
    credit_limit_ucr: int = 10_000_000
    standing_offers: bool = False


@dataclass(frozen=True, slots=True)
class SimEngine:
    """A model with exact times: a fixed prefill, then `token_ns` a token of `text`.

    With `counts` the tokens are numbers instead, and an answer that is begun is counted on.
    """

    offer: ModelOffer
    prefill_ns: int
    token_ns: int
    text: str = "virtual tokens "
    input_tokens: int = 12
    counts: bool = False

    def token(self, prompt: Prompt, number: int) -> str:
        """Token `number`, from 1, of a job's output."""
        return f"{prompt.begun.count(' ') + number} " if self.counts else self.text


@dataclass(slots=True, eq=False)
class Peer:
    """One node of the world, its disk, and what its asker was told.

    `skew_ns` is how far the node's own clock is ahead of virtual time, `armed` how often its
    timer was set.
    """

    index: int
    signer: Signer
    engine: SimEngine | None
    entropy: Entropy
    address: str
    node: Node = field(init=False)
    log: list[tuple[int, bytes]] = field(default_factory=list)
    durable: int = 0
    outbox: list[tuple[int, Action]] = field(default_factory=list)
    syncing: bool = False
    sync_began_ns: int = 0
    sync_target: int = 0
    told: list[tuple[int, Any]] = field(default_factory=list)
    notes: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    penalized: list[tuple[bytes, str]] = field(default_factory=list)
    jobs: dict[bytes, Any] = field(default_factory=dict)
    timer_ns: int | None = None
    armed: int = 0
    skew_ns: int = 0
    alive: bool = True
    incarnation: int = 0

    def heard(self, kind: type) -> list[Any]:
        """The events of one kind that askers were told, in order."""
        return [event for _, event in self.told if isinstance(event, kind)]
