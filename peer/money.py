"""The settings of `config.toml` that say whom to believe: credit, anchor, witness."""

from dataclasses import dataclass, field
from typing import Annotated, Final

from msgspec import Meta

from protocol import limits

Credits = Annotated[str, Meta(max_length=20)]

# Tables from peer id to credits: in the file only.
AMOUNTS: Final = ("peers", "accounts", "users")


@dataclass(frozen=True, slots=True)
class CreditConfig:
    """Limits of payers that are known, instead of the provider's `credit_limit`: what one may
    owe in all, on open channels and closed ones that were not paid yet. A table [credit.peers],
    peer id = credits in quotes.
    """

    peers: dict[str, Credits] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ChequesConfig:
    """Whose cheques the API takes, as signed promises that nothing stands behind: all users
    together may owe `total` (0: none are taken), any key that is not listed `newcomer`, and such
    keys together `newcomers`. Users that are listed have their own limits, in a table
    [cheques.users], peer id = credits in quotes.
    """

    total: Credits = "0"
    newcomer: Credits = "0"
    newcomers: Credits = "0"
    users: Annotated[dict[str, Credits], Meta(max_length=limits.CHEQUE_USERS_MAX)] = field(
        default_factory=dict
    )


@dataclass(frozen=True, slots=True)
class AnchorConfig:
    """What stands behind deposits: `kind` is credit (promises) or witnesses, of which
    `threshold` must sign, more than half. `witnesses` are addresses that end in /p2p/ID.
    """

    kind: Annotated[str, Meta(pattern="^(credit|witnesses)$")] = "credit"
    witnesses: Annotated[tuple[str, ...], Meta(max_length=limits.WITNESSES_MAX)] = ()
    threshold: Annotated[int, Meta(ge=0, le=limits.WITNESSES_MAX)] = 0


@dataclass(frozen=True, slots=True)
class WitnessConfig:
    """Whether this node is one of the witnesses of [anchor], and whose funds it holds. A table
    [witness.accounts], peer id = credits in quotes: what the account was granted in all.
    """

    serve: bool = False
    accounts: dict[str, Credits] = field(default_factory=dict)
