"""The models directory: links, copies, and that nothing of the user's is ever lost."""

import errno
import os
from pathlib import Path

import pytest

from engine import directory as module
from engine.directory import ModelDirectory
from protocol import limits
from protocol.errors import ConfigError, StorageError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine" / "Some Model.gguf"
    path.parent.mkdir()
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def models(tmp_path: Path) -> ModelDirectory:
    return ModelDirectory(tmp_path / "data" / "models")


def test_no_directory_is_no_models(models):
    assert models.sources() == []


def test_adding_links_to_the_file(models, file, monkeypatch):
    monkeypatch.chdir(file.parent)
    source = models.add(Path(file.name), "some")
    assert models.sources() == [source]
    assert (source.name, source.required) == ("some", False)
    assert source.path == models.path / "some.gguf"
    assert source.path.readlink() == file


def test_removing_a_link_leaves_the_file(models, file):
    models.add(file, "some")
    models.remove("some")
    assert models.sources() == []
    assert file.read_bytes() == b"weights"


def test_a_link_to_nothing_is_listed_and_can_be_removed(models, file):
    source = models.add(file, "some")
    file.unlink()
    assert models.sources() == [source]
    models.remove("some")
    assert models.sources() == []


def test_a_copy_is_a_file_of_its_own(models, file):
    source = models.add(file, "some", copy=True)
    file.unlink()
    assert source.path.read_bytes() == b"weights"
    assert os.listdir(models.path) == ["some.gguf"]


def test_a_copy_without_hard_links(models, file, monkeypatch):
    """Some file systems have none."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(module.os, "link", refuse)
    models.add(file, "some", copy=True)
    assert (models.path / "some.gguf").read_bytes() == b"weights"
    assert os.listdir(models.path) == ["some.gguf"]


def test_a_file_that_lies_there_itself_is_only_deleted_on_demand(models, file):
    source = models.add(file, "some", copy=True)
    with pytest.raises(ConfigError, match="--delete"):
        models.remove("some")
    assert source.path.exists()
    models.remove("some", delete=True)
    assert not source.path.exists()


@pytest.mark.parametrize("copy", [False, True])
def test_nothing_is_overwritten(models, file, copy):
    models.path.mkdir(parents=True)
    (models.path / "some.gguf").write_bytes(b"the user's")
    with pytest.raises(ConfigError, match="already in"):
        models.add(file, "some", copy=copy)
    # A directory of that name is no model, and in the way all the same.
    (models.path / "other.gguf").mkdir()
    with pytest.raises(ConfigError):
        models.add(file, "other", copy=copy)
    assert (models.path / "some.gguf").read_bytes() == b"the user's"


def test_a_copy_that_fails_leaves_nothing(models, file):
    with pytest.raises(StorageError):
        models.add(file.parent, "some", copy=True)
    assert os.listdir(models.path) == []


@pytest.mark.parametrize("name", ["", "Big", "a b", "../up", "-x", "a/b", "x" * 200])
def test_a_name_that_can_not_be_typed_is_refused(models, file, name):
    with pytest.raises(ConfigError, match="--name"):
        models.add(file, name)
    assert models.sources() == []


def test_what_a_person_drops_in_goes_by_its_name(models, file):
    models.path.mkdir(parents=True)
    for name in ("Tiny Llama.gguf", "A.gguf", ".hidden.gguf", "notes.txt"):
        (models.path / name).write_bytes(b"")
    assert [source.name for source in models.sources()] == ["a", "tiny-llama"]
    assert models.find("tiny-llama").path.name == "Tiny Llama.gguf"
    assert models.find("Tiny Llama.gguf").name == "tiny-llama"


def test_an_unknown_name(models):
    with pytest.raises(ConfigError, match="no model named 'x'"):
        models.find("x")


def test_too_many_models_is_one_line(models, file, monkeypatch):
    monkeypatch.setattr(limits, "MODELS_MAX", 2)
    models.add(file, "a")
    models.add(file, "b")
    with pytest.raises(ConfigError, match="is full"):
        models.add(file, "c")
    (models.path / "c.gguf").write_bytes(b"")
    with pytest.raises(ConfigError, match="3 models, over 2"):
        models.sources()


def test_a_directory_that_is_a_file(models, file):
    models.path.parent.mkdir()
    models.path.write_bytes(b"")
    with pytest.raises(StorageError):
        models.sources()
