"""Text files that a person wrote for a scenario, opened with a bound."""

from pathlib import Path
from typing import Final

from protocol.errors import ConfigError

# An edge list of 100,000 nodes with 32 links each is 40 MB.
TEXT_BYTES_MAX: Final = 256 << 20


def text_of(path: Path, bytes_max: int = TEXT_BYTES_MAX) -> str:
    """What a file says. ConfigError: `config.unreadable`, `config.bad_value`."""
    try:
        if path.exists() and not path.is_file():
            raise ConfigError("config.unreadable", f"{path}: expected a file")
        with path.open("rb") as file:
            data = file.read(bytes_max + 1)
        if len(data) > bytes_max:
            raise ConfigError("config.bad_value", f"{path}: expected at most {bytes_max} bytes")
        return data.decode()
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError("config.bad_value", f"{path}: line {line}: expected UTF-8") from error
    except OSError as error:
        raise ConfigError("config.unreadable", f"{path}: {error.strerror or error}") from error
    except ValueError as error:  # no path has a NUL
        raise ConfigError("config.unreadable", f"{str(path)!r}: {error}") from error
