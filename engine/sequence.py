"""One job in the batch: what it has fed, what it still has to feed, and what it made.

Must not know how steps are composed. Rule: engine/README.md.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from engine.embedding import Embedder
from engine.frames import Scored
from engine.recheck import Checker
from engine.sampling import Sampler
from engine.text import TextStream


@dataclass(slots=True, eq=False)
class Sequence:
    """One job: `unfed` tokens go in next, at `position`; `place` -1 while it waits.

    Logits are wanted from the token with index `wanted_from` on: the prompt's last, or, once it
    was `rewound`, the first that was not fed before. `ends` are the tokens that end the output.
    `unshown` are tokens whose text is held back, and `scores` theirs, where `logprobs`
    alternatives are asked for. `owner` is whom its keys and values serve: the number of the
    `adapter` that made them, then who asked. With a `checker`, the output was given and is only
    read; with an `embedder`, there is none, and this is text number `index` of its job. While it
    has a `leader`, it waits until that one has read the first `led_tokens`, which both share.
    """

    handle: int
    unfed: list[int]
    input_tokens: int
    output_tokens_max: int
    sampler: Sampler
    text: TextStream
    ends: frozenset[int] = frozenset()
    logprobs: int = 0
    owner: bytes = b""
    adapter: int = 0
    checker: Checker | None = None
    embedder: Embedder | None = None
    index: int = 0
    unshown: list[int] = field(default_factory=list)
    scores: list[Scored] = field(default_factory=list)
    position: int = 0
    output_tokens: int = 0
    place: int = -1
    reused_tokens: int = 0
    prefilled: bool = False
    leader: "Sequence | None" = None
    led_tokens: int = 0
    rewound: bool = False
    submitted_ns: int = 0
    placed_ns: int | None = None
    first_ns: int = 0
    last_ns: int = 0
    wanted_from: int = field(init=False)
    prompt: list[int] = field(init=False)

    def __post_init__(self) -> None:
        """`unfed` is replaced as it is fed; this stays."""
        self.prompt = self.unfed
        self.wanted_from = self.input_tokens - 1

    @property
    def generates(self) -> bool:
        """Whether its output is made here; else it is only read, and all of it."""
        return self.checker is None and self.embedder is None

    def skip(self, count: int) -> None:
        """The first `count` tokens are in its place already: they need not be fed."""
        self.unfed = self.unfed[count:]
        self.position = count
        if not self.rewound:
            self.reused_tokens = count

    def rewind(self, fed: Collection[int], unread: Iterable[int]) -> None:
        """Begin again without a place: it had been fed these, and was about to be others."""
        self.wanted_from = max(self.wanted_from, len(fed))
        self.unfed = [*fed, *unread, *self.unfed]
        self.position, self.place, self.prefilled = 0, -1, False
        self.leader, self.rewound = None, True
        if self.embedder is not None:
            self.embedder.restart()

    @property
    def is_typical(self) -> bool:
        """Whether a step with it, before it is fed, says how long others take.

        Not with a re-check or a text to embed, nor while the rest of a prompt is read whose
        beginning was there: it is short, so each of its tokens bears more of the step, and it may
        bear a copy.
        """
        return self.generates and (self.prefilled or not self.reused_tokens)
