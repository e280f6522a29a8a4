"""`[[provider.remote]]`: addresses that are ones, keys that stay secret."""

from collections.abc import Callable
from pathlib import Path

import pytest

from peer.cli.run import make_engine
from peer.config import load_config
from peer.config_tables import RemoteConfig
from peer.remotes import remote_settings
from protocol.errors import ConfigError

URL = "http://127.0.0.1:8000/v1"
KEY = "sk-secret"

TOML = """
[provider]
places = 2
[[provider.remote]]
url = "http://127.0.0.1:8000/v1/"
model = "Qwen/Qwen2.5-7B"
key_env = "SOME_KEY"
places = 9
[[provider.remote]]
url = "https://example.org/v1"
model = "other"
name = "mine"
quantization = "FP8"
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return path


def test_tables_become_settings(tmp_path: Path) -> None:
    provider = load_config(write(tmp_path, TOML), {}, {}).provider
    first, second = remote_settings(provider.remote, {"SOME_KEY": f" {KEY}\n"})
    assert (first.name, first.model, first.url) == ("qwen-qwen2.5-7b", "Qwen/Qwen2.5-7B", URL)
    assert (first.key, first.places) == (KEY, 9)
    assert (second.name, second.key, second.places) == ("mine", "", 4)
    assert (first.quantization, second.quantization) == ("unknown", "fp8")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda text: text.replace("key_env", "key_emv"), "config.unknown_key"),
        (lambda text: text.replace("[[provider.remote]]", "[provider.remote]", 1), None),
        (lambda text: text.replace("places = 9", "places = 0"), "config.bad_value"),
        (lambda text: text.replace('model = "other"', ""), "config.bad_value"),
        (lambda text: "[provider]\nremote = 5", "config.bad_value"),
        (lambda text: '[provider]\nremote = ["a"]', "config.bad_value"),
        (lambda text: "[provider.remote]\nurl = 'a'", "config.bad_value"),
    ],
)
def test_what_is_no_list_of_such_tables(
    tmp_path: Path, change: Callable[[str], str], code: str | None
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, change(TOML)), {}, {})
    assert caught.value.code == (code or "config.syntax")


def test_a_quantisation_that_is_none(tmp_path: Path) -> None:
    provider = load_config(write(tmp_path, TOML.replace("FP8", "f8")), {}, {}).provider
    with pytest.raises(ConfigError, match="no quantisation 'f8'"):
        remote_settings(provider.remote, {"SOME_KEY": KEY})


def test_a_wrong_key_is_named_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"provider\.remote\.modle; did you mean"):
        load_config(write(tmp_path, TOML.replace('model = "other"', 'modle = "other"')), {}, {})


@pytest.mark.parametrize(
    "url",
    [
        *("", "example.org/v1", "ftp://user:hush@example.org", "http://", "http://[::1/v1"),
        *("http://user:hush@example.org/v1", "http://example.org/v1?key=hush"),
        *("http://example.org:0/v1", "http://example.org:99999/v1", "http://ex ample.org/v1"),
        *("http://example.org/v1#hush", "http://exämple.org/v1", "http://example.org/\x07"),
    ],
)
def test_addresses_that_are_none_are_not_repeated(url: str) -> None:
    """They may hold a password."""
    with pytest.raises(ConfigError) as caught:
        remote_settings([RemoteConfig(url, "m")], {})
    assert caught.value.code == "config.bad_value"
    assert "the url of m" in caught.value.detail
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("remote", "variables"),
    [
        (RemoteConfig(URL, "m", key_env="K"), {}),
        (RemoteConfig(URL, "m", key_env="K"), {"K": "  "}),
        (RemoteConfig(URL, "m", key_env="K"), {"K": "sk-secret\nX: 1"}),
        (RemoteConfig(URL, "m", key_env="K"), {"K": "sk-secret-ü"}),
        (RemoteConfig(URL, "m", key_env="K"), {"K": "sk-secret" * 999}),
        (RemoteConfig(URL, "m", key_env="K", key_file="f"), {"K": KEY}),
        (RemoteConfig(URL, "m", name="Big One"), {}),
        (RemoteConfig(URL, "/"), {}),
    ],
)
def test_what_can_not_be_used_is_wrong_use(
    remote: RemoteConfig, variables: dict[str, str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        remote_settings([remote], variables)
    assert caught.value.code == "config.bad_value"
    assert "sk-secret" not in str(caught.value)


def test_two_servers_of_one_name() -> None:
    with pytest.raises(ConfigError, match="two servers offer m"):
        remote_settings([RemoteConfig(URL, "m"), RemoteConfig(URL, "M")], {})


def test_a_key_file_is_ours_alone(tmp_path: Path) -> None:
    path = tmp_path / "server-key"
    remote = RemoteConfig(URL, "m", key_file=str(path))
    with pytest.raises(ConfigError) as caught:
        remote_settings([remote], {})
    assert caught.value.code == "config.unreadable"
    path.write_text(f"{KEY}\n")
    path.chmod(0o640)
    with pytest.raises(ConfigError) as caught:
        remote_settings([remote], {})
    assert caught.value.code == "config.key_mode"
    assert KEY not in str(caught.value)
    path.chmod(0o600)
    assert remote_settings([remote], {})[0].key == KEY
    path.write_text("\n")
    with pytest.raises(ConfigError, match="holds no key"):
        remote_settings([remote], {})


def test_a_node_may_sell_a_remote_model_alone(tmp_path: Path) -> None:
    """No file is needed."""
    path = write(tmp_path, TOML.replace('key_env = "SOME_KEY"', ""))
    engine = make_engine(tmp_path, load_config(path, {}, {}).provider)
    assert engine is not None
    assert engine.models() == ()
