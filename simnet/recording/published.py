"""The gossip messages of a run, until nobody may admit them any more: then they become rows."""

from collections import deque

from protocol import limits
from protocol.envelope import Signed
from simnet.network.gossip import GossipModel, Message
from simnet.recording.recorder import Recorder


class Published:
    """Messages that may still be on their way, oldest first."""

    def __init__(self, gossip: GossipModel, recorder: Recorder, epoch_ns: int) -> None:
        self._gossip, self._recorder, self._epoch_ns = gossip, recorder, epoch_ns
        self._messages: deque[Message] = deque()

    def publish(self, node: int, data: bytes, signed: Signed, now_ns: int) -> None:
        """A message that its own node admitted; those that are no longer fresh become rows."""
        self._messages.append(self._gossip.publish(node, data, type(signed.message).__name__))
        self.retire(now_ns - limits.FRESHNESS_NS)

    def retire(self, until_ns: int) -> None:
        """Those that were published until then become rows."""
        while self._messages and self._messages[0].born_ns <= until_ns:
            message = self._messages.popleft()
            self._gossip.duplicates += message.duplicates
            self._recorder.add(
                "messages",
                (
                    message.serial,
                    message.kind,
                    message.origin,
                    message.born_ns - self._epoch_ns,
                    len(message.data),
                    message.reached,
                    message.duplicates,
                ),
            )
