"""What a model that does not load is said to be, by what llama.cpp logged.

Source: engine/README.md.
"""

import resource
from pathlib import Path

import pytest

from engine import library_log

GGUF = Path("some.gguf")


@pytest.mark.parametrize(
    ("limit", "code"),
    [(resource.RLIM_INFINITY, "engine.bad_model"), (150 << 20, "engine.no_room")],
)
def test_silence_at_a_memory_limit_is_want_of_memory(
    monkeypatch: pytest.MonkeyPatch, limit: int, code: str
) -> None:
    """There a process may lack even what it takes to hear why."""
    library_log.forget()
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, resource.RLIM_INFINITY))
    assert library_log.load_error(GGUF).code == code
