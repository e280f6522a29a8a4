"""What became of the things that a fuzz tried."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Tally:
    """How often each outcome came up, and every outcome that should not have."""

    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
