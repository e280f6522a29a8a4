"""What receipts have in common, whoever pays: how the answer was made, and the signatures of both
sides, the payer's given again when it was lost. Pure."""

from protocol import signing
from protocol.channel import Role
from protocol.fields import GenerationParameters, GenerationProfile
from protocol.messages import Receipt, ReceiptAck, Result
from router.actions import JobFinished, SessionKey
from router.context import Context


def profile_of(
    finished: JobFinished, model_digest: bytes, parameters: GenerationParameters
) -> GenerationProfile:
    """How the engine made an answer."""
    digest = signing.parameters_digest(parameters)
    return GenerationProfile(finished.engine, model_digest, digest, finished.settings)


def sign(context: Context, receipt: Receipt) -> tuple[bytes, bytes]:
    """A receipt's id, and our signature under it as who delivered."""
    identity = signing.receipt_id(receipt)
    return identity, context.signer.sign(signing.receipt_bytes(context.network, identity))


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
