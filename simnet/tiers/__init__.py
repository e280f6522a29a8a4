"""Scenarios through the daemon's own shell: on virtual time (trio), or over loopback (live).

The only part of the house that knows both `peer` and `simnet` (floor F5).
"""
