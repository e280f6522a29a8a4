"""What users of cheques owe, for the control socket and the command line; and the cheques
themselves, from the log, as evidence."""

from pathlib import Path

from peer.control import Answer, Json, Method
from peer.daemon import Daemon
from peer.identity import peer_id, public_key
from peer.past import log_records
from protocol import records, signing, wire
from protocol.errors import ConfigError, LocalError
from protocol.units import format_credits
from router import actions as act
from router.ledger import Ledger


def cheques_json(ledger: Ledger) -> list[Json]:
    """Every user, as they came: owed and not paid, what runs may cost, earned in all."""
    return [
        {
            "user": peer_id(user),
            "owed_ucr": account.owed_ucr,
            "running_ucr": account.at_risk_ucr - account.owed_ucr,
            "earned_ucr": account.earned_ucr,
            "answers": account.answers,
        }
        for user, account in ledger.cheques.accounts.items()
    ]


def cheque_methods(daemon: Daemon) -> dict[str, Method]:
    """The methods by name: cheques, cheques_paid."""

    async def cheques(params: Json, answer: Answer) -> None:
        await answer({"users": cheques_json(daemon.ledger)})

    async def cheques_paid(params: Json, answer: Answer) -> None:
        amount = params.get("amount_ucr")
        if not isinstance(amount, int) or amount <= 0:
            raise ConfigError("config.bad_value", "the amount is in ucr, above 0")
        user = public_key(str(params.get("user")))
        book = daemon.ledger.cheques
        if amount > (owed := book.account(user).owed_ucr):
            raise LocalError("cheque.no_debt", f"{peer_id(user)} owes {format_credits(owed)}")
        daemon.driver.feed(act.ChequesWerePaid(user, amount))
        await daemon.driver.wait_idle()
        await answer({"user": peer_id(user), "owed_ucr": book.account(user).owed_ucr})

    return {"cheques": cheques, "cheques_paid": cheques_paid}


def read_cheques(directory: Path) -> Json:
    """Every cheque of a node's log with all that proves what it is owed; `cost_ucr` is None
    where the answer has not ended. StorageError `storage.corrupt`."""
    listed: dict[tuple[bytes, int], Json] = {}
    network = ""
    for name, record in log_records(directory):
        network = name
        match record:
            case records.ChequeTaken():
                listed[record.cheque.user, record.cheque.nonce] = _taken_json(network, record)
            case records.ChequeCharged():
                # Where an archive was moved away, the cheque went with it.
                if found := listed.get((record.user, record.nonce)):
                    found |= _charged_json(record)
    return {"network": network, "cheques": list(listed.values())}


def _taken_json(network: str, record: records.ChequeTaken) -> Json:
    cheque = record.cheque
    return {
        "cheque_id": signing.cheque_id(network, cheque).hex(),
        "user": peer_id(cheque.user),
        "node": peer_id(cheque.node),
        "nonce": cheque.nonce,
        "amount_ucr": cheque.amount_ucr,
        "signature": cheque.signature.hex(),
        "model": record.model,
        "taken_at_ns": record.taken_at_ns,
        "cost_ucr": None,
        "error": None,
        "receipt": None,
        "receipt_signature": None,
    }


def _charged_json(record: records.ChequeCharged) -> Json:
    receipt = record.receipt
    return {
        "cost_ucr": record.cost_ucr,
        "error": record.code or None,
        "receipt": wire.encode(receipt).hex() if receipt is not None else None,
        "receipt_signature": record.payee_signature.hex() or None,
    }
