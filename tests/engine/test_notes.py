"""Notes of model files: they save hashing, and a bad file of them only costs the saving."""

import hashlib
import json
import os
import stat
from pathlib import Path

import pytest

from engine import notes as module
from engine.catalogue import fingerprint
from engine.notes import ModelNotes, failed_trial, passed_trial
from protocol import limits

TRIAL = passed_trial("here", 5, 6, (7, 8))
LONG_AGO_NS = 10**18


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Some file, changed long ago."""
    path = tmp_path / "some.gguf"
    path.write_bytes(b"weights")
    os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))
    return path


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read to be hashed."""
    seen: list[Path] = []

    def count(path: Path, mark: object) -> bytes:
        seen.append(path)
        return hashlib.sha256(path.read_bytes()).digest()

    monkeypatch.setattr(module, "hash_file", count)
    return seen


def test_a_file_is_hashed_once(tmp_path, model, hashed):
    path = tmp_path / "data" / "models.json"
    expected = hashlib.sha256(b"weights").digest()
    for _ in range(3):
        assert ModelNotes(path).digest(model, fingerprint(model)) == expected
    assert hashed == [model]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == ["models.json"]


def test_a_file_that_changed_is_hashed_again(tmp_path, model, hashed):
    notes = ModelNotes(tmp_path / "models.json")
    notes.digest(model, fingerprint(model))
    model.write_bytes(b"other  ")
    os.utime(model, ns=(LONG_AGO_NS, LONG_AGO_NS + 1))
    again = notes.digest(model, fingerprint(model))
    assert again == hashlib.sha256(b"other  ").digest()
    assert len(hashed) == 2


def test_a_file_that_changed_just_now_is_not_believed_yet(tmp_path, model, hashed):
    """Written again within the clock's granularity, it would keep its fingerprint."""
    os.utime(model)
    notes = ModelNotes(tmp_path / "models.json")
    for _ in range(2):
        notes.digest(model, fingerprint(model))
    assert len(hashed) == 2


def test_a_self_test_is_remembered_for_this_file_alone(tmp_path, model):
    path = tmp_path / "models.json"
    mark = fingerprint(model)
    ModelNotes(path).record(mark, bytes(32), TRIAL)
    assert ModelNotes(path).trial(mark) == TRIAL
    assert ModelNotes(path).trial(mark).passed
    assert ModelNotes(path).trial((*mark[:3], mark[3] + 1)) is None
    ModelNotes(path).record(mark, bytes(32), failed_trial("here", "no luck " * 99))
    assert not ModelNotes(path).trial(mark).passed


def test_two_writers_keep_each_other_s_notes(tmp_path, model):
    path = tmp_path / "models.json"
    one, other = ModelNotes(path), ModelNotes(path)
    one.record((1, 1, 1, 1), bytes(32), TRIAL)
    other.record((2, 2, 2, 2), bytes(32), TRIAL)
    assert ModelNotes(path).trial((1, 1, 1, 1)) == TRIAL
    assert ModelNotes(path).trial((2, 2, 2, 2)) == TRIAL


def test_the_oldest_notes_are_forgotten(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MODEL_NOTES_MAX", 3)
    path = tmp_path / "models.json"
    notes = ModelNotes(path)
    for number in (1, 2, 3, 1, 4):
        notes.record((number, 0, 0, 0), bytes(32), TRIAL)
    kept = [number for number in range(1, 5) if ModelNotes(path).trial((number, 0, 0, 0))]
    assert kept == [1, 3, 4]


def good_page(model: Path) -> str:
    """Notes that would be believed."""
    note = {"file": list(fingerprint(model)), "sha256": "ab" * 32}
    return json.dumps({"version": 1, "notes": [note]})


def test_good_notes_are_believed(tmp_path, model, hashed):
    """What the tests below spoil one thing of."""
    path = tmp_path / "models.json"
    path.write_text(good_page(model))
    path.chmod(0o600)
    assert ModelNotes(path).digest(model, fingerprint(model)) == bytes.fromhex("ab" * 32)
    assert hashed == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda page: "",
        lambda page: page[:-1],
        lambda page: page.replace("ab", "xy", 1),
        lambda page: page.replace("ab", "", 1),
        lambda page: page.replace('"version": 1', '"version": 2'),
        lambda page: page.replace('"notes"', '"nodes"'),
        lambda page: page.replace('"file": [', '"file": [['),
        lambda page: page.replace('"sha256": "', '"sha256": 1, "x": "'),
        lambda page: "[" * 100_000,
        lambda page: page.replace('"version"', '"x": ' + "[" * 9_999 + "]" * 9_999 + ',"version"'),
        lambda page: page + " " * limits.MODEL_NOTES_BYTES_MAX,
        lambda page: "\ud800",
    ],
)
def test_broken_notes_are_made_anew(tmp_path, model, hashed, spoil):
    path = tmp_path / "models.json"
    spoiled = spoil(good_page(model))
    assert spoiled != good_page(model)
    path.write_text(spoiled, errors="surrogatepass")
    path.chmod(0o600)
    expected = hashlib.sha256(b"weights").digest()
    for _ in range(2):
        assert ModelNotes(path).digest(model, fingerprint(model)) == expected
    assert len(hashed) == 1


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o602])
def test_notes_that_others_could_have_written_are_ignored(tmp_path, model, hashed, mode):
    path = tmp_path / "models.json"
    path.write_text(good_page(model))
    path.chmod(mode)
    assert ModelNotes(path).digest(model, fingerprint(model)) != bytes.fromhex("ab" * 32)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
def test_notes_that_are_no_file_are_ignored(tmp_path, model, hashed, kind):
    path = tmp_path / "models.json"
    if kind == "link":
        other = tmp_path / "other"
        other.write_text(good_page(model))
        other.chmod(0o600)
        path.symlink_to(other)
    elif kind == "pipe":
        os.mkfifo(path, 0o600)
    else:
        path.mkdir()
    notes = ModelNotes(path)
    for _ in range(2):
        assert notes.digest(model, fingerprint(model)) == hashlib.sha256(b"weights").digest()
    # In memory it is kept even where it can't be written.
    assert len(hashed) == 1
    assert path.is_dir() == (kind == "directory")
