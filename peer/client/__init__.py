"""The market from Python: `AsyncClient` on trio, `Client` without an event loop.

Through the node that runs here, by its control socket, or as a node of this program's own. Rule:
README.md, "From Python".
"""

from peer.client.answer import Answer, AskFailed
from peer.client.blocking import Client, TextStream
from peer.client.cheques import Cheques
from peer.client.client import AsyncClient, AsyncTextStream
from peer.client.settings import AskSettings

__all__ = [
    "Answer",
    "AskFailed",
    "AskSettings",
    "AsyncClient",
    "AsyncTextStream",
    "Cheques",
    "Client",
    "TextStream",
]
