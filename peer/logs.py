"""Structured logs to stderr: a line an outcome, for people on a terminal, as JSON otherwise.

Never prompts, never keys: what cores note is digests, ids, amounts and codes.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from peer.identity import peer_id


def _name_bytes(
    logger: Any, method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Peers by their libp2p id, other digests by their first 16 hex digits."""
    for key, value in event.items():
        if isinstance(value, bytes):
            is_peer = key == "peer_id" and len(value) == 32
            event[key] = peer_id(value) if is_peer else value.hex()[:16]
    return event


def configure_logs(level: str, style: str) -> None:
    """Set up structlog once a process; `level` as logging's names, `style` auto|console|json."""
    console = style == "console" or (style == "auto" and sys.stderr.isatty())
    renderer: Any = (
        structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _name_bytes,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
