"""Who keeps away from whom: a node that saw an offence refuses the offender for a time.

As the daemon's network does on `Penalize`: connections end, and none is taken meanwhile.
"""

from protocol import limits


class Penalties:
    """Pairs (node, offender) and until when; at most PENALIZED_PEERS_MAX offenders a node."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held: dict[int, dict[int, int]] = {}  # node -> offenders, and until when

    def add(self, node: int, offender: int, now_ns: int) -> None:
        """`node` keeps away from `offender` from now on."""
        own = self.held.setdefault(node, {})
        own.pop(offender, None)
        if len(own) >= limits.PENALIZED_PEERS_MAX:
            del own[next(iter(own))]
        own[offender] = now_ns + limits.PENALTY_NS

    def between(self, one: int, other: int, now_ns: int) -> bool:
        """Whether either keeps away from the other now."""
        return self._holds(one, other, now_ns) or self._holds(other, one, now_ns)

    def _holds(self, node: int, offender: int, now_ns: int) -> bool:
        own = self.held.get(node)
        if own is None or offender not in own:
            return False
        if now_ns < own[offender]:
            return True
        del own[offender]
        if not own:
            del self.held[node]
        return False
