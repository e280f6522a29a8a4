"""What is done to a log now and then: its head signed, its old segments archived.

By the daemon that writes it, or, where none runs, by whoever takes its lock meanwhile.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import trio

from peer.archive import ArchiveReport, archive_segments
from peer.daemon import LOG_DIRECTORY, Daemon
from peer.disk import RealDisk
from peer.journal import Journal, log_network
from protocol.crypto import Signer
from protocol.errors import StorageError
from protocol.fields import SignedHead
from router.actions import Append, SignHead, Snapshot
from router.context import Context
from router.fold import Fold
from router.heads import Heads


@contextmanager
def opened_heads(directory: Path, signer: Signer) -> Iterator[tuple[Heads, Context, Journal]]:
    """A node's log, locked and without a daemon; what is appended is durable in the end.

    StorageError as `Journal.open`, and `storage.no_log`.
    """
    network = log_network(directory / LOG_DIRECTORY)
    fold = Fold(network, signer.public_key)
    journal = Journal.open(
        directory / LOG_DIRECTORY, network=network, owner=signer.public_key, on_entry=fold.take
    )
    try:
        context = Context(signer, network, fold.live(), os.urandom, log=fold)
        context.now_ns = time.time_ns()
        yield Heads(context), context, journal
        flush(context, journal)
    finally:
        journal.close()


def flush(context: Context, journal: Journal) -> None:
    """Write what was appended."""
    for action in context.take_actions():
        assert isinstance(action, Append), "nobody is connected"
        journal.append_nowait(action.type, action.payload)
    journal.flush()


def sign_head(directory: Path, signer: Signer) -> SignedHead:
    """The head of a log that no daemon has. StorageError, also `head.rolled_back`."""
    with opened_heads(directory, signer) as (heads, context, _):
        return _found(heads.sign(), context.log)


def archive(directory: Path, signer: Signer, archive_directory: Path, keep: int) -> ArchiveReport:
    """Log a snapshot and archive what is before it, where no daemon has the log."""
    with opened_heads(directory, signer) as (heads, context, journal):
        heads.snapshot()
        flush(context, journal)
        return archive_segments(
            RealDisk(),
            str(directory / LOG_DIRECTORY),
            str(archive_directory),
            network=context.network,
            owner=signer.public_key,
            keep=keep,
        )


async def sign_daemons_head(daemon: Daemon) -> SignedHead:
    """The head of a running daemon's log, durable. StorageError `head.rolled_back`."""
    daemon.driver.feed(SignHead())
    await daemon.driver.wait_idle()
    return _found(daemon.ledger.heads.newest, daemon.node.context.log)


async def archive_daemons(daemon: Daemon, archive_directory: Path, keep: int) -> ArchiveReport:
    """As `archive`, while the daemon goes on; one at a time."""
    async with daemon.archiving:
        daemon.driver.feed(Snapshot())
        await daemon.driver.wait_idle()
        work = partial(
            archive_segments,
            RealDisk(),
            str(daemon.settings.directory / LOG_DIRECTORY),
            str(archive_directory),
            network=daemon.settings.network.network,
            owner=daemon.node.context.public_key,
            keep=keep,
        )
        return await trio.to_thread.run_sync(work)


def _found(head: SignedHead | None, log: Fold | None) -> SignedHead:
    if head is None:
        if log is None or not log.end.next_sequence:
            raise StorageError("storage.no_log", "no record is in it yet")
        raise StorageError("head.rolled_back", "no head is signed until the log is longer again")
    return head
