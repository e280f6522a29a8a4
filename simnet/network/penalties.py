"""Who keeps away from whom: a node that saw an offence refuses the offender for a time.

As the daemon's network does on `Penalize`: connections end, and none is taken meanwhile.
"""

from protocol import limits


class Penalties:
    """Pairs (node, offender) and until when; at most PENALIZED_PEERS_MAX offenders a node."""

    __slots__ = ("_until_ns",)

    def __init__(self) -> None:
        self._until_ns: dict[int, dict[int, int]] = {}

    def __bool__(self) -> bool:
        return bool(self._until_ns)

    def add(self, node: int, offender: int, now_ns: int) -> None:
        """`node` keeps away from `offender` from now on."""
        own = self._until_ns.setdefault(node, {})
        own.pop(offender, None)
        if len(own) >= limits.PENALIZED_PEERS_MAX:
            del own[next(iter(own))]
        own[offender] = now_ns + limits.PENALTY_NS

    def between(self, one: int, other: int, now_ns: int) -> bool:
        """Whether either keeps away from the other now."""
        return self._holds(one, other, now_ns) or self._holds(other, one, now_ns)

    def _holds(self, node: int, offender: int, now_ns: int) -> bool:
        own = self._until_ns.get(node)
        if own is None or offender not in own:
            return False
        if now_ns < own[offender]:
            return True
        del own[offender]
        if not own:
            del self._until_ns[node]
        return False
