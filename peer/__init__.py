"""The daemon: the market's cores over libp2p, a journal and an engine (floor F4)."""
