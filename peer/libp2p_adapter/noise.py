"""Encrypted messages over TCP, by the socketful.

Subclass of libp2p's Noise transport, installed by `hardening`: the same bytes on the wire. Must
not know what the messages hold.
"""

import os
from typing import Any, Final

import trio
from libp2p.io.exceptions import ConnectionClosedError, IncompleteReadError
from libp2p.security.noise.io import MAX_PLAINTEXT_LENGTH, NoiseTransportReadWriter

READ_BYTES: Final = 64 * 1024
_LENGTH_BYTES: Final = 2


class BufferedNoise(NoiseTransportReadWriter):  # type: ignore[misc]
    """Reads what the socket has, and writes at once what it takes.

    Stock reads the two bytes of a length and then the message, asks a lock for each, and lets
    all other tasks run four times; a write asks two more. Here a read waits once, however many
    messages came, and a write that the socket takes doesn't wait at all. Not more than one task
    may read, nor write, at a time: `yamux` sees to both.
    """

    def __init__(self, conn: Any, noise_state: Any) -> None:
        super().__init__(conn, noise_state)
        self._socket = conn.stream.stream.socket
        self._arrived = bytearray()

    async def read_msg(self, prefix_encoded: bool = False) -> bytes:
        """The next message. IncompleteReadError when the connection ends before it does."""
        arrived = self._arrived
        while True:
            end = _LENGTH_BYTES + int.from_bytes(arrived[:_LENGTH_BYTES], "big")
            if len(arrived) >= max(end, _LENGTH_BYTES + 1):
                message = bytes(arrived[_LENGTH_BYTES:end])
                del arrived[:end]
                return bytes(self.decrypt(message))
            if len(arrived) == _LENGTH_BYTES == end:
                raise ConnectionClosedError("a message without a seal")
            arrived += await self._receive(len(arrived))

    async def _receive(self, waiting: int) -> bytes:
        while True:
            try:
                await trio.lowlevel.wait_readable(self._socket)
                data = os.read(self._socket.fileno(), READ_BYTES)
            except BlockingIOError:
                continue
            except (OSError, trio.ClosedResourceError) as error:
                raise ConnectionClosedError(str(error), transport="tcp") from error
            if not data:
                raise IncompleteReadError("the connection has ended", waiting + 1, waiting)
            return data

    async def write_msg(self, msg: bytes, prefix_encoded: bool = False) -> None:
        """Write one message, or more where it is too long for one."""
        rest = self.write_nowait(msg)
        if rest:
            await self.write_rest(rest)

    def write_nowait(self, data: bytes) -> bytes:
        """Encrypt `data` and write what the socket takes; gives back the rest, encrypted, which
        has to be written before anything else."""
        sealed = bytearray()
        for start in range(0, len(data), MAX_PLAINTEXT_LENGTH):
            message = self.encrypt(data[start : start + MAX_PLAINTEXT_LENGTH])
            sealed += len(message).to_bytes(_LENGTH_BYTES, "big")
            sealed += message
        try:
            written = os.write(self._socket.fileno(), sealed)
        except OSError:  # full; or broken or closed, which `write_rest` tells as libp2p does
            written = 0
        return bytes(sealed[written:]) if written < len(sealed) else b""

    async def write_rest(self, sealed: bytes) -> None:
        """Write what `write_nowait` gave back."""
        await self.read_writer.read_write_closer.write(sealed)
