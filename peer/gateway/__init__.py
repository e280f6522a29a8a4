"""The market behind OpenAI's HTTP API: any client of theirs asks here and gets peers' answers.

`serve_gateway` runs it beside a daemon. Rule: peer/gateway/README.md.
"""

from peer.gateway.server import ApiSettings, parse_listen, serve_gateway

__all__ = ["ApiSettings", "parse_listen", "serve_gateway"]
