"""The wire and the money, as pure functions and values (floors F0-F2 of the house)."""
