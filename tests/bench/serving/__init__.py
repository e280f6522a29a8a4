"""The contestants of tests/bench/engine.py, and what they run."""
