"""From a configuration to what a daemon is given. Rule: peer/config.py."""

from pathlib import Path

from peer.anchors import amounts, anchor_settings
from peer.config import Config, NetworkConfig, credits_of
from peer.daemon import DaemonSettings
from peer.identity import public_key
from peer.libp2p_adapter.addresses import parse_address
from peer.libp2p_adapter.network import NetworkSettings
from peer.money import ChequesConfig
from protocol.errors import ConfigError, NetworkError
from router.cheques import ChequeTerms
from router.choosing import RequesterSettings


def daemon_settings(directory: Path, config: Config) -> DaemonSettings:
    """A node's settings from its configuration.

    ConfigError `config.bad_value`, `network.bad_address`.
    """
    provider = config.provider
    _check_addresses(config.network)
    return DaemonSettings(
        directory=directory,
        network=NetworkSettings(
            network=config.network.name,
            listen=config.network.listen,
            announce=config.network.announce,
            bootstrap=config.network.bootstrap,
        ),
        input_price_ucr=credits_of("input_price", provider.input_price),
        output_price_ucr=credits_of("output_price", provider.output_price),
        anchor=anchor_settings(config),
        standing_offers=provider.standing_offers,
        bids_wanted=provider.bids_wanted if provider.self_selection else 0,
        preferred=tuple(map(public_key, provider.preferred)),
        requester=RequesterSettings(
            credits_of("day_max", config.requester.day_max),
            tell_clearing=config.requester.tell_clearing,
        ),
        cheques=_cheque_terms(config.cheques),
    )


def _cheque_terms(cheques: ChequesConfig) -> ChequeTerms:
    terms = ChequeTerms(
        total_ucr=credits_of("total", cheques.total),
        newcomer_ucr=credits_of("newcomer", cheques.newcomer),
        newcomers_ucr=credits_of("newcomers", cheques.newcomers),
        users_ucr=amounts("cheques.users", cheques.users),
    )
    # A limit that another makes void was meant otherwise.
    if not terms.total_ucr and (terms.users_ucr or terms.newcomer_ucr):
        raise ConfigError("config.bad_value", "cheques.total is 0, so none are taken")
    if bool(terms.newcomer_ucr) != bool(terms.newcomers_ucr):
        raise ConfigError("config.bad_value", "cheques.newcomer goes with cheques.newcomers")
    return terms


def _check_addresses(network: NetworkConfig) -> None:
    """What a person wrote is wrong use, found before anything starts."""
    for text in (*network.listen, *network.announce, *network.bootstrap):
        try:
            address = parse_address(text)
        except NetworkError as error:
            raise ConfigError(error.code, error.detail) from error
        if text in network.bootstrap and not address.peer:
            raise ConfigError("network.bad_address", f"{text!r} does not end in /p2p/ID")
