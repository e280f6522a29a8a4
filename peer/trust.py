"""What the control socket offers on trust: debts under mutual credit, claims, witness accounts."""

from typing import Any

import trio

from peer.control import Answer, Json, Method
from peer.daemon import Daemon
from peer.identity import peer_id, public_key
from protocol.channel import ChannelState, Role
from protocol.errors import ConfigError, LocalError, NetworkError
from protocol.units import format_credits
from router import actions as act
from router.ledger import Ledger

_ANSWERS_S = 5.0
_PEER_S = 10.0
_POLL_S = 0.05


def credit_json(ledger: Ledger) -> list[Json]:
    """Every payer that owes, or may come to owe: deposits of open channels, and debts."""
    held: dict[bytes, int] = {}
    for channel in ledger.channels.values():
        if channel.role is Role.PAYEE and channel.is_open:
            held[channel.payer] = held.get(channel.payer, 0) + channel.deposit_ucr
    payers = sorted({*held, *ledger.debts.by_payer})
    return [
        {
            "peer": peer_id(payer),
            "owed_ucr": ledger.debts.owed_ucr(payer),
            "open_deposits_ucr": held.get(payer, 0),
        }
        for payer in payers
    ]


def accounts_json(ledger: Ledger) -> list[Json]:
    """The accounts of a witness."""
    return [
        {
            "peer": peer_id(key),
            "granted_ucr": account.granted_ucr,
            "free_ucr": account.free_ucr,
            "locked_ucr": account.locked_ucr,
            "orders": account.next_order,
        }
        for key, account in sorted(ledger.vault.accounts.items())
    ]


def trust_methods(daemon: Daemon, channel_ids: Any) -> dict[str, Method]:
    """The methods by name: credit, paid, claim, accounts."""

    async def credit(params: Json, answer: Answer) -> None:
        await answer({"payers": credit_json(daemon.ledger)})

    async def paid(params: Json, answer: Answer) -> None:
        amount = params.get("amount_ucr")
        if not isinstance(amount, int) or amount <= 0:
            raise ConfigError("config.bad_value", "the amount is in ucr, above 0")
        payer = public_key(str(params.get("peer")))
        if amount > (owed := daemon.ledger.debts.owed_ucr(payer)):
            raise LocalError("credit.no_debt", f"{peer_id(payer)} owes {format_credits(owed)}")
        daemon.driver.feed(act.DebtWasPaid(payer, amount))
        await daemon.driver.wait_idle()
        await answer({"peer": peer_id(payer), "owed_ucr": daemon.ledger.debts.owed_ucr(payer)})

    async def claim(params: Json, answer: Answer) -> None:
        daemon.driver.feed(act.ClaimDeposits(channel_ids(params)))
        daemon.driver.feed(act.AskAccounts())
        anchor = daemon.node.anchoring.anchor
        with trio.move_on_after(_ANSWERS_S):
            while anchor.asking:  # noqa: ASYNC110 - witnesses answer in many ways
                await trio.sleep(_POLL_S)
        found = anchor.balances()
        listed = [{"witness": peer_id(key), "free_ucr": found[key]} for key in sorted(found)]
        await answer({"witnesses": listed})

    async def accounts(params: Json, answer: Answer) -> None:
        await answer({"accounts": accounts_json(daemon.ledger)})

    return {
        "credit": credit,
        "paid": paid,
        "claim": claim,
        "accounts": accounts,
    }


def deposit_methods(daemon: Daemon, channel_ids: Any) -> dict[str, Method]:
    """The methods by name: open, topup, force."""

    async def open_(params: Json, answer: Answer) -> None:
        payee, deposit = public_key(str(params.get("peer"))), params.get("deposit_ucr")
        if not isinstance(deposit, int) or deposit <= 0:
            raise ConfigError("config.bad_value", "the deposit is in ucr, above 0")
        ended = daemon.node.anchoring.openings.ended
        daemon.driver.feed(act.OpenChannel(payee, deposit))
        with trio.move_on_after(_PEER_S):
            while payee not in ended:  # noqa: ASYNC110 - the payee, the anchor or nobody answers
                await trio.sleep(_POLL_S)
        cid, code = ended.get(payee, (b"", "channel.no_answer"))
        if code:
            raise NetworkError(code, peer_id(payee))
        await daemon.driver.wait_idle()
        await answer({"channel": cid.hex(), "deposit_ucr": deposit})

    async def topup(params: Json, answer: Answer) -> None:
        (cid,) = channel_ids(params) or (b"",)
        channel, deposit = daemon.ledger.channel(cid), params.get("deposit_ucr")
        if channel is None or channel.role is not Role.PAYER or not channel.is_open:
            raise LocalError("channel.unknown", "no open one that we pay on")
        if not isinstance(deposit, int) or deposit <= channel.deposit_ucr:
            raise ConfigError("config.bad_value", "a top-up raises the deposit")
        top_ups = daemon.node.requester.top_ups
        daemon.driver.feed(act.TopUpChannel(cid, deposit))
        with trio.move_on_after(_PEER_S):
            # The payee or the anchor answers, and no event says to which of several top-ups.
            while channel.deposit_ucr < deposit and not top_ups.refusal(cid):  # noqa: ASYNC110
                await trio.sleep(_POLL_S)
        if channel.deposit_ucr < deposit:
            raise NetworkError(top_ups.refusal(cid) or "channel.no_answer", peer_id(channel.peer))
        await answer({"channel": cid.hex(), "deposit_ucr": channel.deposit_ucr})

    async def force(params: Json, answer: Answer) -> None:
        (cid,) = channel_ids(params) or (b"",)
        channel = daemon.ledger.channel(cid)
        if channel is None:
            raise LocalError("channel.unknown", "no such channel")
        daemon.driver.feed(act.ForceClose((cid,)))
        await daemon.driver.wait_idle()
        if channel.state is not ChannelState.CHALLENGE:
            raise LocalError("channel.wrong_state", f"it is {channel.state.value}")
        closing = {"total_ucr": channel.total_ucr, "deadline_ns": channel.deadline_ns}
        await answer({"event": "closing", "channel": cid.hex(), **closing})

    return {"open": open_, "topup": topup, "force": force}
