"""Where the model that ships with the package lies, and which file it is.

Knows nothing of engines. What it is and how it is made: engine/models/README.md.
"""

from pathlib import Path
from typing import Final

EMBEDDED_MODEL_NAME: Final = "embedded"
# Of the file that was measured; another training gives another.
EMBEDDED_MODEL_SHA256: Final = "80d9dacc192dd8fe9b95ef2726918289287edb2f64daefb53c8c61207cea396f"


def embedded_model_path() -> Path:
    """The embedded GGUF (3.3 MiB): a very small trained model, for trying and testing."""
    return Path(__file__).with_name("models") / "embedded.gguf"
