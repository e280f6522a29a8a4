"""A directory of models: which files it offers, adding one and taking one away.

A file there is offered under its own name without `.gguf`. Adding makes a symbolic link: a
model is gigabytes, a link costs nothing, works across disks, shows in `ls -l` whose file it
is, and taking it away can't lose the user's file. Knows nothing of what is in the files.
Rule: engine/README.md.
"""

import errno
import os
import shutil
import tempfile
from pathlib import Path

from engine.catalogue import ModelSource, slug
from protocol import limits
from protocol.errors import ConfigError, StorageError

SUFFIX = ".gguf"


class ModelDirectory:
    """The models in `path`, which need not exist yet."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def sources(self) -> list[ModelSource]:
        """Every model file, by name; files that start with a dot are somebody's work.

        ConfigError `config.bad_value` when there are over MODELS_MAX; StorageError
        `storage.unwritable` when the directory can't be read.
        """
        try:
            names = os.listdir(self.path)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StorageError("storage.unwritable", f"{self.path}: {error.strerror}") from None
        files = [name for name in names if name.endswith(SUFFIX) and not name.startswith(".")]
        if len(files) > limits.MODELS_MAX:
            raise ConfigError(
                "config.bad_value",
                f"{self.path} has {len(files)} models, over {limits.MODELS_MAX}",
            )
        found = [
            ModelSource(self.path / name, slug(name.removesuffix(SUFFIX)) or "model", False)
            for name in files
        ]
        return sorted(found, key=lambda source: (source.name, source.path))

    def find(self, name: str) -> ModelSource:
        """The model of a name. ConfigError `config.bad_value` when there is none."""
        for source in self.sources():
            if name in (source.name, source.path.name):
                return source
        raise ConfigError("config.bad_value", f"no model named {name!r} in {self.path}")

    def add(self, file: Path, name: str, *, copy: bool = False) -> ModelSource:
        """Link (or copy) a file into the directory, as `name`; nothing is ever overwritten.

        ConfigError `config.bad_value`: the name is not fit, or taken. StorageError
        `storage.unwritable`.
        """
        if not name or slug(name) != name:
            raise ConfigError(
                "config.bad_value",
                f"--name {name!r}: use lower case letters, digits, dots, dashes, underscores",
            )
        sources = self.sources()
        if any(source.name == name for source in sources):
            raise ConfigError(
                "config.bad_value", f"{name} is already in {self.path}; choose another --name"
            )
        if len(sources) >= limits.MODELS_MAX:
            raise ConfigError("config.bad_value", f"{self.path} is full")
        target = self.path / f"{name}{SUFFIX}"
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if copy:
                _copy(file, target)
            else:
                target.symlink_to(file.resolve())
        except FileExistsError:
            raise ConfigError("config.bad_value", f"{target} exists") from None
        except OSError as error:
            detail = f"{target}: {error.strerror}"
            raise StorageError("storage.unwritable", detail) from None
        return ModelSource(target, name, False)

    def remove(self, name: str, *, delete: bool = False) -> ModelSource:
        """Take a model out of the directory; a link goes, the file that it names stays.

        A file that lies here itself goes only with `delete`: it may be the only one.
        ConfigError `config.bad_value`; StorageError `storage.unwritable`.
        """
        source = self.find(name)
        if not source.path.is_symlink() and not delete:
            raise ConfigError(
                "config.bad_value",
                f"{source.path} is the file itself, not a link; --delete deletes it for good",
            )
        try:
            source.path.unlink()
        except OSError as error:
            detail = f"{source.path}: {error.strerror}"
            raise StorageError("storage.unwritable", detail) from None
        return source


def _copy(file: Path, target: Path) -> None:
    """Copy under a hidden name first, so that half a model is never offered. OSError."""
    descriptor, part = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    os.close(descriptor)
    try:
        shutil.copyfile(file, part)
        # A rename would overwrite; a link fails when the name is taken.
        try:
            os.link(part, target)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP):
                raise
            # A file system without hard links.
            if target.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
            os.rename(part, target)
            return
    finally:
        Path(part).unlink(missing_ok=True)
