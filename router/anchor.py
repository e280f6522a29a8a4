"""What makes a deposit credible: one interface, and mutual credit as its default. Sans-IO.

Rule: router/README.md, "Anchors".
"""

from collections.abc import Mapping
from typing import Any, Protocol

from protocol.channel import Channel, Role
from protocol.errors import RemoteError
from protocol.messages import DepositProof
from router.context import Context
from router.ledger import Ledger
from router.timers import TimerKey


class Anchor(Protocol):
    """Who holds the deposit, and who pays it out when the two ends don't agree.

    Methods that change something get the node's Context: records and messages go out through
    it, in order. Nothing blocks. The last methods have a body: an anchor that asks nobody
    has no use for them. An anchor that has to ask somebody (witnesses, a contract)
    says so by its answer (False, None), and tells its AnchorListener when it knows.
    """

    def deposit_max_ucr(self, ledger: Ledger, payer: bytes) -> int:
        """Payee, in a bid: the largest deposit that would be believed from `payer` now."""
        ...

    def verify_deposit(
        self, ledger: Ledger, cid: bytes, payer: bytes, deposit_ucr: int, held_ucr: int
    ) -> None:
        """Payee, before it accepts an opening or a top-up: is `deposit_ucr` in all backed?

        `held_ucr` is what it was before, 0 at opening. Changes nothing. RemoteError
        `channel.over_limit`, and `channel.no_proof` where the anchor needs one.
        """
        ...

    def keep_proof(self, context: Context, cid: bytes) -> None:
        """Payee, behind the record of an opening or a top-up: log what proves the deposit."""
        ...

    def top_up(self, context: Context, channel: Channel, deposit_ucr: int) -> bool:
        """Payer: have `deposit_ucr` in all stand behind `channel`; the opening is the first.

        True: it does, and what proves it was sent to the payee. False: it does not yet;
        `AnchorListener.funded` or `.refused` follows. Asking again is harmless.
        """
        ...

    def claim(self, context: Context, channel: Channel) -> None:
        """Payee: collect on the best voucher without ending the channel, where there is a way."""
        ...

    def request_close(self, context: Context, channel: Channel) -> int:
        """Either end, alone: begin to settle at the best voucher that we have, or answer the
        other end's beginning with a better one. Asking again is harmless.

        Returns when the challenge period ends at the earliest, Unix ns, if it began now.
        """
        ...

    def finalize(self, context: Context, channel: Channel) -> int | None:
        """Either end, after the deadline: what the channel is settled at, in ucr.

        None: it is not known yet; `AnchorListener.settled` follows.
        """
        ...

    def watch(self, context: Context, channel: Channel) -> int | None:
        """Look whether the other end began to close. When to look next, Unix ns; None: never,
        the peer itself tells us."""
        ...

    @property
    def pays_out(self) -> bool:
        """Whether it holds deposits, and pays by what it is shown: then only it says what a
        channel that is closed alone is settled at."""
        return False

    @property
    def asking(self) -> bool:
        """Whether somebody was asked and has not answered."""
        return False

    def balances(self) -> dict[bytes, int]:
        """What we have free with those who hold deposits, as they last said; in ucr."""
        return {}

    def ask_accounts(self) -> None:
        """Ask them what we have."""
        return

    def settle_agreed(
        self, context: Context, cid: bytes, total_ucr: int, by_payer: bytes, by_payee: bytes
    ) -> None:
        """Either end, behind the record of a co-operative close: both signatures under it."""
        return

    def release(self, context: Context, channel: Channel) -> None:
        """Payer: nothing was bought on this channel and nothing will be: free its deposit."""
        return

    def start(self) -> None:
        """After the log was replayed: go on with what was begun."""
        return

    def take_proof(self, peer: bytes, message: DepositProof) -> None:
        """Payee: what the payer says stands behind a channel. RemoteError."""
        raise RemoteError("witness.not_serving", "no proofs are taken here", penalize=False)

    def take(self, peer: bytes, message: Any) -> None:
        """An answer of somebody that the anchor asked. RemoteError."""
        raise RemoteError("session.protocol", "nobody was asked")

    def connected(self, peer: bytes) -> None:
        """A stream that we opened is up."""
        return

    def handle_timer(self, key: TimerKey) -> None:
        """A timer of kind "quorum" or "watch" is due."""
        return


class AnchorListener(Protocol):
    """What an anchor tells its node later."""

    def funded(self, cid: bytes) -> None:
        """Payer: the deposit that `top_up` asked for stands, and its proof is at hand."""
        ...

    def refused(self, cid: bytes, code: str) -> None:
        """Payer: the deposit can't be had."""
        ...

    def challenged(self, cid: bytes, total_ucr: int, deadline_ns: int) -> None:
        """A close of this channel began at `total_ucr`; it can be answered until then."""
        ...

    def settled(self, cid: bytes, settled_ucr: int) -> None:
        """The anchor paid out: so much to the payee, the rest to the payer."""
        ...


class MutualCredit(Anchor):
    """Deposits are promises between peers: each payer is believed up to one limit in all.

    What counts against the limit is what it may come to owe, the deposits of its open channels,
    and what it owes: closed channels, until the operator says that they were paid. Without a
    voucher it gets less: the credit window W, one chunk. `limits_ucr` are those of known peers.
    """

    def __init__(self, limit_ucr: int, limits_ucr: Mapping[bytes, int] | None = None) -> None:
        self._limit_ucr = limit_ucr
        self._limits_ucr = dict(limits_ucr or {})

    def limit_ucr(self, payer: bytes) -> int:
        """The most that this payer may ever owe."""
        return self._limits_ucr.get(payer, self._limit_ucr)

    def deposit_max_ucr(self, ledger: Ledger, payer: bytes) -> int:
        """The limit, less the deposits of the payer's open channels and its debts."""
        held = sum(channel.deposit_ucr for channel in ledger.with_peer(payer, Role.PAYEE))
        return max(0, self.limit_ucr(payer) - held - ledger.debts.owed_ucr(payer))

    def verify_deposit(
        self, ledger: Ledger, cid: bytes, payer: bytes, deposit_ucr: int, held_ucr: int
    ) -> None:
        """Within the limit. RemoteError `channel.over_limit`, no offence."""
        if deposit_ucr - held_ucr > self.deposit_max_ucr(ledger, payer):
            raise RemoteError("channel.over_limit", penalize=False)

    def keep_proof(self, context: Context, cid: bytes) -> None:
        """Nothing: the payer's signature under the opening is all there is."""

    def top_up(self, context: Context, channel: Channel, deposit_ucr: int) -> bool:
        """A promise needs nobody's leave."""
        return True

    def claim(self, context: Context, channel: Channel) -> None:
        """Nothing: there is nobody to pay out."""

    def request_close(self, context: Context, channel: Channel) -> int:
        """The challenge period of the channel's terms, from now."""
        return context.now_ns + channel.terms.challenge_ns

    def finalize(self, context: Context, channel: Channel) -> int | None:
        """The best voucher, at most the deposit: each end settles in its own log alike."""
        return min(channel.total_ucr, channel.deposit_ucr)

    def watch(self, context: Context, channel: Channel) -> int | None:
        """Never: only the peer itself can begin a close, by telling us."""
        return None
