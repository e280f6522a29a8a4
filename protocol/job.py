"""The requester's view of one request, as a table. Rule: router/README.md, "Life of a job"."""

from enum import Enum
from typing import Final


class JobState(Enum):
    """BIDDING collects; CONNECTING wants a stream; AWARDED waits for the start."""

    BIDDING = "bidding"
    CONNECTING = "connecting"
    AWARDED = "awarded"
    STREAMING = "streaming"
    DONE = "done"
    FAILED = "failed"


class JobEvent(Enum):
    """What can happen to a request."""

    WINNER = "winner"
    CONNECTED = "connected"
    CHUNK = "chunk"
    RESULT = "result"
    NEXT_BID = "next_bid"
    AUCTION = "auction"
    FAIL = "fail"


_J, _E = JobState, JobEvent

JOB_TRANSITIONS: Final[dict[tuple[JobState, JobEvent], JobState]] = {
    (_J.BIDDING, _E.WINNER): _J.CONNECTING,
    (_J.BIDDING, _E.FAIL): _J.FAILED,
    (_J.CONNECTING, _E.CONNECTED): _J.AWARDED,
    (_J.CONNECTING, _E.NEXT_BID): _J.CONNECTING,
    (_J.CONNECTING, _E.AUCTION): _J.BIDDING,
    (_J.CONNECTING, _E.FAIL): _J.FAILED,
    (_J.AWARDED, _E.CHUNK): _J.STREAMING,
    (_J.AWARDED, _E.NEXT_BID): _J.CONNECTING,
    (_J.AWARDED, _E.FAIL): _J.FAILED,
    (_J.STREAMING, _E.CHUNK): _J.STREAMING,
    (_J.STREAMING, _E.RESULT): _J.DONE,
    (_J.STREAMING, _E.FAIL): _J.FAILED,
}
