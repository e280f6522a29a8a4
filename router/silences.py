"""Why this provider did not bid: counted by code, and told to the log now and then.

Anybody can publish requests that nobody serves, so a reason gets a line in SILENCE_NOTE_NS at
most, with how many others there were. Sans-IO. Rule: router/README.md, "When places are taken".
"""

from protocol import limits
from protocol.envelope import Signed
from protocol.errors import RemoteError
from router.context import Context


class Silences:
    """Requests that got no bid; `counts` by the code of the reason, since the start."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.counts: dict[str, int] = {}
        self._noted: dict[str, tuple[int, int]] = {}  # by code: when, and how many by then

    def keep(self, request: Signed, error: RemoteError) -> None:
        """There is no bid on this request, for the reason of `error`."""
        now_ns, code = self._context.now_ns, error.code
        count = self.counts[code] = self.counts.get(code, 0) + 1
        noted_ns, before = self._noted.get(code, (now_ns - limits.SILENCE_NOTE_NS, 0))
        if now_ns - noted_ns < limits.SILENCE_NOTE_NS:
            return
        self._noted[code] = now_ns, count
        self._context.note(
            "bid.not_made",
            request_id=request.digest,
            peer_id=request.sender,
            model=request.message.model,
            code=code,
            detail=error.detail,
            others=count - before - 1,
        )
