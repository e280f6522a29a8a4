"""`python -m peer.cli`: the same as the `peerd` command."""

from peer.cli import main

main()
