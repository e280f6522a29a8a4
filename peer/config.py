"""One TOML file to one frozen dataclass; an unknown key is an error.

Flags override environment (PEERD_SECTION_KEY) overrides file. Amounts are credits in quotes
("0.25"), so that no float ever touches money.
"""

import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import tomlkit
from msgspec import Meta

from peer.config_tables import TABLES, AdapterConfig, RemoteConfig, about_tables
from peer.config_variables import from_environment
from peer.money import (
    AMOUNTS,
    AnchorConfig,
    ChequesConfig,
    CreditConfig,
    Credits,
    WitnessConfig,
)
from protocol import limits
from protocol.errors import ConfigError, LocalError
from protocol.quantization import wanted
from protocol.units import UCR_PER_CREDIT, parse_credits

CONFIG_FILE: Final = "config.toml"
TOKEN_VARIABLE: Final = "PEERD_API_TOKEN"

Count = Annotated[int, Meta(ge=0, le=limits.U32_MAX)]
Quantizations = Annotated[tuple[str, ...], Meta(max_length=limits.QUANTIZATIONS_FILTER_MAX)]
EarlyClose = Annotated[int, Meta(ge=0, le=limits.BIDS_PER_REQUEST_MAX)]


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """Where to listen and whom to know; multiaddrs such as /ip4/0.0.0.0/tcp/4101."""

    name: Annotated[str, Meta(min_length=1, max_length=64, pattern="^[a-z0-9-]+$")] = "main"
    listen: tuple[str, ...] = ("/ip4/0.0.0.0/tcp/4101",)
    announce: tuple[str, ...] = ()
    bootstrap: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ProviderConfig:
    """What is sold: GGUF files and prices in credits per 1,000,000 tokens.

    `models` are files that must work; what `peerd models add` put into `models_directory`
    ("": `models` in the data directory) is sold too, if it works. `credit_limit` is the sum
    of deposits believed from one payer. `steps_per_s_max` leaves room on the machine: at most
    so many decode steps a second (0: all it can). `memory_mib` is what loaded models may take
    together (0: no limit); those over it wait unloaded for a job. `worker_memory_mib` is where
    one model's process is stopped (0: far enough over its need). `prefix_reuse` reads the known
    beginning of the same requester's prompts only once. Where jobs wait, those of `preferred`
    requesters (peer ids) get four times the share of others. `standing_offers` tells the network
    what is sold at which price, so that requesters can skip the auction. With `self_selection`,
    a bid that can't win, by what requesters tell of their auctions, is sent by lot, so that about
    `bids_wanted` of such come to a request.
    """

    models: tuple[str, ...] = ()
    models_directory: Annotated[str, Meta(max_length=4_096)] = ""
    input_price: Credits = "15"
    output_price: Credits = "60"
    credit_limit: Credits = "10"
    places: Annotated[int, Meta(ge=1, le=64)] = 4
    threads: Count = 0
    context_tokens: Count = 0
    steps_per_s_max: Count = 0
    memory_mib: Count = 0
    worker_memory_mib: Count = 0
    prefix_reuse: bool = True
    preferred: Annotated[tuple[str, ...], Meta(max_length=limits.PREFERRED_MAX)] = ()
    standing_offers: bool = True
    self_selection: bool = True
    bids_wanted: Annotated[int, Meta(ge=1, le=limits.BIDS_PER_REQUEST_MAX)] = limits.BIDS_WANTED
    remote: Annotated[tuple[RemoteConfig, ...], Meta(max_length=limits.REMOTES_MAX)] = ()
    adapter: Annotated[tuple[AdapterConfig, ...], Meta(max_length=limits.ADAPTERS_MAX)] = ()


@dataclass(frozen=True, slots=True)
class RequesterConfig:
    """How requests are made unless the command says otherwise; amounts in credits.

    `standing_offers` awards a job to a provider's fresh offer at once, where there is one that
    fits, and makes an auction only if that fails. `strategy` is cheapest, fastest, reputable,
    weighted, where price and reputation count so much of 1000 and latency the rest, or race:
    weighted, and the best `race` (2 if it is 1) work until the first text comes. A second one
    starts when the first text is later than `hedge_percent` of what was promised (0: never), and
    than `hedge_floor_ms`. Without `fallbacks` no other provider takes over from one that fails,
    before its first text or in the middle. Providers
    need `reputation_min` of 1000 and `completed_min` jobs done for this node, and state one of
    `quantizations`, if any: q4_k_m, or all int4; a price over `market_factor_percent` of the
    recent median is refused (0: none is). All requests of a UTC
    day cost at most `day_max` (0: no cap). The bid window may end early with `early_close_bids`
    (0: it never does). `tell_clearing` tells providers what auctions with many bids came to, the
    winner's price aside, so that fewer bid in vain.
    """

    model: Annotated[str, Meta(min_length=1, max_length=limits.MODEL_NAME_CHARS_MAX)] = "embedded"
    max_price: Credits = "1"
    deposit: Credits = "1"
    advance: Credits = "0.1"
    bid_window_ms: Annotated[int, Meta(ge=10, le=10_000)] = 1_000
    timeout_s: Annotated[int, Meta(ge=1, le=3_600)] = 120
    strategy: Annotated[str, Meta(pattern="^(cheapest|fastest|reputable|weighted|race)$")] = (
        "weighted"
    )
    price_weight: Annotated[int, Meta(ge=0, le=1_000)] = 500
    reputation_weight: Annotated[int, Meta(ge=0, le=1_000)] = 0
    reputation_min: Annotated[int, Meta(ge=0, le=1_000)] = 0
    completed_min: Count = 0
    quantizations: Quantizations = ()
    market_factor_percent: Annotated[int, Meta(ge=0, le=100_000)] = 500
    early_close_bids: EarlyClose = 3
    tell_clearing: bool = True
    race: Annotated[int, Meta(ge=1, le=limits.RACE_MAX)] = 1
    hedge_percent: Annotated[int, Meta(ge=0, le=10_000)] = 200
    hedge_floor_ms: Annotated[int, Meta(ge=0, le=60_000)] = 1_000
    fallbacks: bool = True
    day_max: Credits = "0"
    standing_offers: bool = True


@dataclass(frozen=True, slots=True)
class ApiConfig:
    """OpenAI's HTTP API over the market: "127.0.0.1:4180", "" for none.

    Callers need the token in `token_file` (mode 0600) or in the variable PEERD_API_TOKEN, where
    there is one; an address that others can reach needs one.
    """

    listen: Annotated[str, Meta(max_length=100)] = ""
    token_file: Annotated[str, Meta(max_length=4_096)] = ""


@dataclass(frozen=True, slots=True)
class LogConfig:
    """Logs go to stderr: for people on a terminal, as JSON otherwise."""

    level: Annotated[str, Meta(pattern="^(debug|info|warning|error)$")] = "info"
    format: Annotated[str, Meta(pattern="^(auto|console|json)$")] = "auto"


@dataclass(frozen=True, slots=True)
class Config:
    """All settings of a node."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    provider: ProviderConfig = field(default_factory=ProviderConfig)
    requester: RequesterConfig = field(default_factory=RequesterConfig)
    credit: CreditConfig = field(default_factory=CreditConfig)
    cheques: ChequesConfig = field(default_factory=ChequesConfig)
    anchor: AnchorConfig = field(default_factory=AnchorConfig)
    witness: WitnessConfig = field(default_factory=WitnessConfig)
    api: ApiConfig = field(default_factory=ApiConfig)
    log: LogConfig = field(default_factory=LogConfig)
    drain_s: Annotated[int, Meta(ge=0, le=3_600)] = 10


def credits_of(name: str, text: str) -> int:
    """A setting in credits as ucr. ConfigError `config.bad_value`."""
    try:
        amount = parse_credits(text)
    except ValueError as error:
        raise ConfigError("config.bad_value", f"{name}: {error}") from error
    if amount > limits.PRICE_UCR_MAX:
        most = limits.PRICE_UCR_MAX // UCR_PER_CREDIT
        raise ConfigError("config.bad_value", f"{name}: more than {most} credits")
    return amount


def _check_keys(cls: type, data: Mapping[str, Any], where: str) -> None:
    known = {item.name: item for item in fields(cls)}
    for key, value in data.items():
        name = f"{where}{key}"
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {where}{close[0]}?" if close else ""
            raise ConfigError("config.unknown_key", f"{name}{hint}")
        kind = known[key].default_factory
        if isinstance(kind, type) and is_dataclass(kind):
            if not isinstance(value, dict):
                raise ConfigError("config.bad_value", f"{name} is a section, [{name}]")
            _check_keys(kind, value, f"{name}.")
        if key in TABLES:
            if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
                raise ConfigError("config.bad_value", f"{name} is a list of tables, [[{name}]]")
            for one in value:
                _check_keys(TABLES[key], one, f"{name}.")


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        nested = isinstance(value, Mapping) and isinstance(under, dict)
        merged[key] = _merge(under, value) if nested and isinstance(under, dict) else value
    return merged


def load_config(
    path: Path | None,
    flags: Mapping[str, Any],
    environment: Mapping[str, str] = os.environ,
) -> Config:
    """The settings of a file (None: defaults), the environment and flags, in rising order.

    ConfigError: `config.unreadable`, `config.syntax`, `config.unknown_key`, `config.bad_value`.
    """
    data: dict[str, Any] = {}
    if path is not None:
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError("config.syntax", f"{path}: {error}") from error
        except OSError as error:
            raise ConfigError("config.unreadable", f"{path}: {error.strerror}") from error
        _check_keys(Config, data, "")
    variables = from_environment(Config, environment, (TOKEN_VARIABLE,), (*TABLES, *AMOUNTS))
    data = _merge(_merge(data, variables), flags)
    try:
        config = msgspec.convert(data, Config)
    except msgspec.ValidationError as error:
        raise ConfigError("config.bad_value", str(error).replace("$.", "")) from error
    _check_quantizations(config.requester.quantizations)
    for section in (config.provider, config.requester, config.cheques):
        for item in fields(section):
            if item.type is Credits:
                credits_of(item.name, getattr(section, item.name))
    return config


def _check_quantizations(names: tuple[str, ...]) -> None:
    try:
        for name in names:
            wanted(name)
    except LocalError as error:
        detail = f"requester.quantizations: {error.detail}"
        raise ConfigError("config.bad_value", detail) from error


def default_document() -> str:
    """The configuration that `peerd init` writes: every setting, with what it means."""
    document = tomlkit.document()
    document.add(tomlkit.comment("peerd: every setting and its default. Credits in quotes."))
    config = Config()
    document.add("drain_s", tomlkit.item(config.drain_s))
    for item in fields(config):
        section = getattr(config, item.name)
        if not is_dataclass(section):
            continue
        table = tomlkit.table()
        for line in (type(section).__doc__ or "").strip().splitlines():
            table.add(tomlkit.comment(line.strip()) if line.strip() else tomlkit.nl())
        for setting in fields(section):
            if setting.name in (*TABLES, *AMOUNTS):
                continue
            value = getattr(section, setting.name)
            table.add(setting.name, list(value) if isinstance(value, tuple) else value)
        if section is config.provider:
            for line in (line for text in about_tables() for line in text.splitlines()):
                table.add(tomlkit.comment(line.strip()) if line.strip() else tomlkit.nl())
        document.add(item.name, table)
    return tomlkit.dumps(document)
