"""The market as sans-IO cores (floor F3): time, randomness and bytes come in, actions go out."""
