"""Telling the service manager that started the node how it is: systemd's `Type=notify`.

Rule: the sd_notify(3) protocol: one datagram to the socket that NOTIFY_SOCKET names.
"""

import os
import socket

import structlog

log = structlog.get_logger()

VARIABLE = "NOTIFY_SOCKET"


def tell(state: str) -> None:
    """Send a state, such as READY=1; without a service manager, do nothing.

    One that can't be told is not worth failing for: it is logged.
    """
    path = os.environ.get(VARIABLE, "")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path  # @: no file, the kernel's name
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as to:
            to.sendto(state.encode(), address)
    except OSError as error:
        log.warning("supervisor.not_told", state=state, error=str(error))
