"""Where the model that ships with the package lies.

Knows nothing of engines. How it is made: engine/models/make_embedded.py. Rule: engine/README.md.
"""

from pathlib import Path
from typing import Final

EMBEDDED_MODEL_NAME: Final = "embedded"


def embedded_model_path() -> Path:
    """The embedded GGUF (2.4 MiB): gibberish in English words, for trying and testing."""
    return Path(__file__).with_name("models") / "embedded.gguf"
