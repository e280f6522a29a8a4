"""The payer's signature under a receipt, given once and given again when it was lost. Pure."""

from protocol import signing
from protocol.channel import Role
from protocol.messages import ReceiptAck, Result
from router.actions import SessionKey
from router.context import Context


def countersign(context: Context, result: Result, identity: bytes) -> ReceiptAck:
    """Our signature under the receipt of that id."""
    signature = context.signer.sign(signing.receipt_ack_bytes(context.network, identity))
    return ReceiptAck(result.receipt.cid, result.receipt.lane, identity, signature)


def countersigned(context: Context, session: SessionKey, result: Result) -> ReceiptAck | None:
    """The same again, when our log says that we signed under this very receipt."""
    channel = context.ledger.channel(result.receipt.cid)
    if channel is None or channel.role is not Role.PAYER or channel.peer != session.peer:
        return None
    identity = signing.receipt_id(result.receipt)
    if channel.receipts.get(result.receipt.lane) != identity:
        return None
    return countersign(context, result, identity)
