"""The text that the embedded model learns from: all of it written or computed by this project.

`facts()` is what there is to know: questions with one answer each. `conversations()` makes chats
of them, the same for the same seed on every machine. Must not know tokens or training. Rule:
engine/models/README.md.
"""

from engine.models.corpus.chats import Conversation, conversations, digest, raw_texts
from engine.models.corpus.facts import Fact, facts

__all__ = ["Conversation", "Fact", "conversations", "digest", "facts", "raw_texts"]
