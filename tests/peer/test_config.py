"""Settings: flags over environment over file over defaults; the document says them all.

Source: peer/config.py; README, "Run a node".
"""

import re
import tomllib
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.cli.options import given as what_was_given
from peer.config import Config, credits_of, default_document, load_config
from peer.config_tables import TABLES
from peer.money import AMOUNTS
from peer.settings import daemon_settings
from protocol import limits
from protocol.errors import ConfigError
from protocol.units import UCR_PER_CREDIT, format_credits

CONFIG = Config()
SECTIONS = [item.name for item in fields(CONFIG) if is_dataclass(getattr(CONFIG, item.name))]
SETTINGS = [
    (section, item.name)
    for section in SECTIONS
    for item in fields(getattr(CONFIG, section))
    if item.name not in (*TABLES, *AMOUNTS)
]


def other_value(section: str, name: str) -> tuple[str, Any]:
    """A valid value that is not the default: as a variable's text, and as it is loaded."""
    default = getattr(getattr(CONFIG, section), name)
    special = {"name": "other-1", "level": "error", "format": "json", "model": "another"}
    special |= {"kind": "witnesses", "strategy": "cheapest"}
    if name in special:
        return special[name], special[name]
    if name == "quantizations":
        return "int8,Q4_K_M", ("int8", "Q4_K_M")
    if isinstance(default, tuple):
        return "/ip4/1.2.3.4/tcp/1,two", ("/ip4/1.2.3.4/tcp/1", "two")
    if isinstance(default, bool):
        return str(not default).lower(), not default
    if isinstance(default, int):
        more = 2 if name == "race" else 7
        return str(default + more), default + more
    return "0.125", "0.125"


def loaded(config: Config, section: str, name: str) -> Any:
    """One setting."""
    return getattr(getattr(config, section), name)


def test_self_selection_reaches_the_node(tmp_path: Path) -> None:
    """On as others are asked to be; each side has a switch of its own."""
    settings = daemon_settings(tmp_path, Config())
    assert settings.bids_wanted == limits.BIDS_WANTED
    assert settings.requester.tell_clearing
    flags = {"provider": {"self_selection": False}, "requester": {"tell_clearing": False}}
    settings = daemon_settings(tmp_path, load_config(None, flags, {}))
    assert settings.bids_wanted == 0
    assert not settings.requester.tell_clearing


def test_document_loads_back_as_the_defaults(tmp_path: Path) -> None:
    """What `peerd init` writes changes nothing."""
    path = tmp_path / "config.toml"
    path.write_text(default_document())
    assert load_config(path, {}, {}) == Config()


def test_document_has_every_setting() -> None:
    """Each with its value, under a comment that explains its section."""
    data = tomllib.loads(default_document())
    assert data.pop("drain_s") == CONFIG.drain_s
    assert sorted(data) == sorted(SECTIONS)
    for section, name in SETTINGS:
        default = loaded(CONFIG, section, name)
        assert data[section][name] == (list(default) if isinstance(default, tuple) else default)
    for section in SECTIONS:
        summary = (type(getattr(CONFIG, section)).__doc__ or "").splitlines()[0]
        assert f"[{section}]\n# {summary}" in default_document()


@pytest.mark.parametrize("name", TABLES)
def test_document_has_an_example_of_each_list_of_tables(tmp_path: Path, name: str) -> None:
    """Commented out; taken as it stands, it loads."""
    example = re.search(rf"^# \[\[provider\.{name}\]\]\n(# \w+ = .+\n)+", default_document(), re.M)
    assert example is not None
    path = tmp_path / "config.toml"
    path.write_text(re.sub(r"^# ", "", example[0], flags=re.M))
    (table,) = getattr(load_config(path, {}, {}).provider, name)
    assert isinstance(table, TABLES[name])


@pytest.mark.parametrize(("section", "name"), SETTINGS)
def test_each_setting_has_a_variable(section: str, name: str) -> None:
    """PEERD_SECTION_KEY sets that key and no other."""
    text, value = other_value(section, name)
    assert value != loaded(CONFIG, section, name)
    config = load_config(None, {}, {f"PEERD_{section}_{name}".upper(): text})
    assert loaded(config, section, name) == value
    for other in SETTINGS:
        if other != (section, name):
            assert loaded(config, *other) == loaded(CONFIG, *other)


def test_a_quantisation_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match=r"requester\.quantizations: no quantisation 'q4'"):
        load_config(None, {"requester": {"quantizations": ["q4"]}}, {})


def test_a_variable_that_is_neither_true_nor_false() -> None:
    """`1` could mean either to somebody."""
    with pytest.raises(ConfigError) as caught:
        load_config(None, {}, {"PEERD_PROVIDER_PREFIX_REUSE": "1"})
    assert caught.value.code == "config.bad_value"


@pytest.mark.parametrize("name", ["PEERD_PROVIDER_INPUT_PRIC", "PEERD_CREDIT_PEERS"])
def test_a_mistyped_variable_is_an_error(name: str) -> None:
    """It would be a price that nobody set."""
    with pytest.raises(ConfigError) as caught:
        load_config(None, {}, {name: "20"})
    assert caught.value.code == "config.unknown_key"


def test_variables_that_are_no_settings_are_left_alone() -> None:
    load_config(None, {}, {"PEERD_DATA": "x", "PEERD_API_TOKEN": "x", "PEERD_PROVIDERS": "x"})


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("PEERD_PROVIDR_INPUT_PRICE", "PEERD_PROVIDER_INPUT_PRICE"),
        ("PEERD_DRAIN", "PEERD_DRAIN_S"),
        ("PEERD_API_TOKE", "PEERD_API_TOKEN"),
    ],
)
def test_a_variable_that_is_nearly_a_settings_is_mistyped(name: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean {meant}") as caught:
        load_config(None, {}, {name: "20"})
    assert caught.value.code == "config.unknown_key"


@pytest.mark.parametrize(
    "name", ["PEERD_SERVICE_HOST", "PEERD_PORT", "PEERD_PORT_4101_TCP_ADDR", "PEER_DRAIN_S"]
)
def test_variables_that_others_set_are_theirs(name: str) -> None:
    """A cluster's, of a service that is called peerd."""
    load_config(None, {}, {name: "x"})


def test_a_file_that_is_no_text_is_a_matter_of_syntax(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "config.toml", {}, {})
    assert caught.value.code == "config.syntax"


def test_drain_has_a_variable() -> None:
    """The one setting without a section."""
    assert load_config(None, {}, {"PEERD_DRAIN_S": "0"}).drain_s == 0


@pytest.mark.parametrize("in_file", [False, True])
@pytest.mark.parametrize("in_environment", [False, True])
@pytest.mark.parametrize("in_flags", [False, True])
def test_flags_over_environment_over_file(
    tmp_path: Path, in_file: bool, in_environment: bool, in_flags: bool
) -> None:
    """The highest that says something is taken, each setting for itself, lists as a whole."""
    path = tmp_path / "config.toml"
    path.write_text(
        '[provider]\ninput_price = "1"\nplaces = 9\nmodels = ["f1", "f2"]\n' if in_file else ""
    )
    environment = {"PEERD_PROVIDER_INPUT_PRICE": "2", "PEERD_PROVIDER_MODELS": "e1"}
    flags = {"provider": {"input_price": "3", "models": ["g1", "g2", "g3"]}}
    config = load_config(path, flags if in_flags else {}, environment if in_environment else {})
    said = [in_flags, in_environment, in_file, True]
    price = ["3", "2", "1", CONFIG.provider.input_price][said.index(True)]
    models = [("g1", "g2", "g3"), ("e1",), ("f1", "f2"), ()][said.index(True)]
    assert (config.provider.input_price, config.provider.models) == (price, models)
    assert config.provider.places == (9 if in_file else CONFIG.provider.places)


def test_flags_that_were_not_given_hide_nothing() -> None:
    """The command line says None and empty lists where nothing was said, and keeps zeros."""
    assert what_was_given({"a": None, "b": (), "c": 0, "d": ("x",)}) == {"c": 0, "d": ["x"]}


def test_empty_variable_is_an_empty_list() -> None:
    """A list is unset by saying nothing; stray commas make no empty items."""
    name = "PEERD_NETWORK_LISTEN"
    assert load_config(None, {}, {name: ""}).network.listen == ()
    assert load_config(None, {}, {name: ",a,,b,"}).network.listen == ("a", "b")


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("drain", "did you mean drain_s?"),
        ("network.listn", "did you mean network.listen?"),
        ("requester.max_prize", "did you mean requester.max_price?"),
        ("log.xyzzy", "log.xyzzy"),
    ],
)
def test_unknown_key_is_an_error(tmp_path: Path, key: str, hint: str) -> None:
    """With the nearest key of the same section, when one is near."""
    path = tmp_path / "config.toml"
    section, _, name = key.rpartition(".")
    path.write_text(f"[{section}]\n{name} = 1\n" if section else f"{name} = 1\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path, {}, {})
    assert caught.value.code == "config.unknown_key"
    assert hint in caught.value.detail
    assert ("did you mean" in caught.value.detail) == ("did you mean" in hint)


@given(st.integers(0, limits.PRICE_UCR_MAX))
def test_amounts_in_credits_are_exact(amount_ucr: int) -> None:
    """Every amount that there is can be written, and is read as it was."""
    assert credits_of("x", format_credits(amount_ucr)) == amount_ucr


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", ".5", "-1", "+1", "1e3", "1_0", "0x1", "nan", "inf", "0.0000001", "٣", "1,5"),
        str(limits.PRICE_UCR_MAX // UCR_PER_CREDIT + 1),
    ],
)
def test_text_that_is_no_amount(text: str) -> None:
    """No signs, exponents, separators, foreign digits or parts of a ucr."""
    with pytest.raises(ConfigError) as caught:
        credits_of("--max-price", text)
    assert caught.value.code == "config.bad_value"
    assert "--max-price" in caught.value.detail


@pytest.mark.parametrize(
    ("section", "name"),
    [
        *(("provider", name) for name in ("input_price", "output_price", "credit_limit")),
        *(("requester", name) for name in ("max_price", "deposit", "advance")),
    ],
)
def test_every_amount_is_checked(section: str, name: str) -> None:
    """One that is none is found when the settings are loaded, not when money moves."""
    with pytest.raises(ConfigError, match=name):
        load_config(None, {section: {name: "1e9"}}, {})
