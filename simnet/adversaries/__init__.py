"""Cores beside the honest one that do not keep the rules, and what they do to gossip."""
