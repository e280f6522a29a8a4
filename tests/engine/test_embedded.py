"""The model that ships with the package."""

from engine.catalogue import read_model
from engine.embedded import EMBEDDED_MODEL_NAME, embedded_model_path


def test_it_is_small_and_goes_by_its_name():
    info = read_model(embedded_model_path()).info
    assert info.size_bytes <= 3 * 1024 * 1024
    assert info.name == EMBEDDED_MODEL_NAME
