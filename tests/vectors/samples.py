"""The values behind the golden vectors: one of every message and record, and some at edges.

Literal on purpose: a bound that moves must not move a vector. Names are `Type` or `Type.case`.
"""

from dataclasses import replace
from typing import Any, Final

from protocol import messages as m
from protocol import records as r
from protocol.fields import (
    AwardRole,
    ChannelOpen,
    ChannelTerms,
    ChatMessage,
    Cheque,
    ConstraintKind,
    DepositOrder,
    FinishReason,
    GenerationParameters,
    GenerationProfile,
    InferenceType,
    LaneClaim,
    LogitBias,
    Outcome,
    OutputConstraint,
    Prompt,
    RequestFilter,
    SignedHead,
    Strategy,
    TokenChance,
    TokenLogprob,
    WitnessSignature,
)

NETWORK: Final = "golden"
NOW_NS: Final = 1_760_000_000_000_000_000
PAYER_SEED: Final = bytes(range(32))
PAYEE_SEED: Final = bytes(range(32, 64))
BOX_SEED: Final = bytes(range(64, 96))
U63: Final = 2**63 - 1


def fill(first: int, length: int = 32) -> bytes:
    """`length` bytes that count up from `first`."""
    return bytes((first + index) % 256 for index in range(length))


REQUEST_ID, BID_ID, CID = fill(0x10), fill(0x20), fill(0x30)
SIGNATURE = fill(0x80, 64)
TERMS = ChannelTerms(1_920, 50_000_000, 2_592_000_000_000_000, 86_400_000_000_000)
PARAMETERS = GenerationParameters(500, 700, 40, 950, 7, ("\n\n", "END"))
CONSTRAINED = replace(
    PARAMETERS,
    min_p_milli=50,
    repeat_penalty_milli=1_100,
    presence_penalty_milli=-500,
    frequency_penalty_milli=2_000,
    logit_bias=(LogitBias(42, -100_000), LogitBias(7, 1_500)),
    constraint=OutputConstraint(ConstraintKind.JSON_SCHEMA, '{"type": "object"}'),
    logprobs=5,
)
PROMPT = Prompt(
    InferenceType.CHAT,
    (ChatMessage("system", "Be brief."), ChatMessage("user", "What is a voucher? ✓")),
)
CONTINUED = replace(
    PROMPT, messages=(*PROMPT.messages, ChatMessage("assistant", "A voucher")), continues=1
)
LOGPROBS = (
    TokenLogprob(
        TokenChance(b" gossip", -105_361),
        (TokenChance(b" gossip", -105_361), TokenChance(b"\xe2\x9c", -2_302_585)),
    ),
    TokenLogprob(TokenChance(b"", -1_000_000_000), (TokenChance(fill(0, 256), 0),)),
)
CLAIMS = (LaneClaim(0, 9, 410_000), LaneClaim(4, 3, 52_500))
VOUCHER = m.Voucher(CID, 500_000, CLAIMS, SIGNATURE)
OPEN = ChannelOpen(fill(0x40, 16), fill(0x50, 16), TERMS, 2_000_000, NOW_NS, SIGNATURE)
HEAD = SignedHead(4_711, fill(0x30), SIGNATURE)
ORDER = DepositOrder(
    fill(0x01), fill(0x02), fill(0x40, 16), fill(0x50, 16), TERMS, 2_000_000, 3, SIGNATURE
)
WITNESSED = (WitnessSignature(fill(0x03), SIGNATURE), WitnessSignature(fill(0x04), fill(0xC0, 64)))
RECEIPT = m.Receipt(
    request_id=REQUEST_ID,
    bid_id=BID_ID,
    cid=CID,
    lane=4,
    payer=fill(0x01),
    payee=fill(0x02),
    prompt_commitment=fill(0x60),
    transcript=fill(0x70),
    input_tokens=1_500,
    output_tokens=500,
    chunks=16,
    price_ucr=52_500,
    started_at_ns=NOW_NS,
    ttft_ns=180_000_000,
    duration_ns=12_400_000_000,
    finish_reason=FinishReason.LENGTH,
    profile=GenerationProfile("llama.cpp b6000", fill(0x90), fill(0x91), "threads=2"),
)
CHEQUE = Cheque(fill(0x01), fill(0x02), NOW_NS, 100_000, SIGNATURE)
BOUND_CHEQUE = replace(CHEQUE, body=fill(0xA0))
REQUEST = m.Request(
    model="tiny",
    inference_type=InferenceType.CHAT,
    input_tokens_max=2_048,
    output_tokens_max=500,
    price_max_ucr=100_000,
    deadline_ns=NOW_NS + 60_000_000_000,
    bid_window_ns=200_000_000,
    strategy=Strategy(700, 300),
    filters=RequestFilter(b"", (), ()),
    redundancy=1,
    ephemeral_key=fill(0xA0),
    addresses=("/ip4/192.0.2.1/tcp/4001",),
    prompt_commitment=fill(0x60),
)
BID = m.Bid(
    request_id=REQUEST_ID,
    model_digest=fill(0x90),
    input_price_ucr=15_000_000,
    output_price_ucr=60_000_000,
    ttft_ns=150_000_000,
    tokens_per_s_milli=42_500,
    expires_at_ns=NOW_NS + 30_000_000_000,
    terms=TERMS,
    payee_salt=fill(0x50, 16),
    addresses=("/ip4/192.0.2.2/tcp/4001", "/dns4/example.org/tcp/4001"),
)
AWARD = m.Award(
    REQUEST_ID, BID_ID, CID, 1, PROMPT, fill(0xB0), PARAMETERS, OPEN, VOUCHER, SIGNATURE
)

OFFER = m.StandingOffer(
    model="embedded",
    model_digest=fill(0x70),
    context_tokens=4_096,
    input_price_ucr=15_000_000,
    output_price_ucr=60_000_000,
    ttft_ns=50_000_000,
    ttft_ns_per_input_token=200_000,
    tokens_per_s_milli=200_000,
    places=4,
    expires_at_ns=NOW_NS + 45_000_000_000,
    terms=TERMS,
    payee_salt=fill(0x50, 16),
    addresses=("/ip4/127.0.0.1/tcp/4101",),
)
MESSAGES: Final[dict[str, Any]] = {
    "Request": REQUEST,
    "Request.filtered": m.Request(
        model="Modèle-größe-模型",
        inference_type=InferenceType.COMPLETION,
        input_tokens_max=1,
        output_tokens_max=131_072,
        price_max_ucr=10**15,
        deadline_ns=U63,
        bid_window_ns=10_000_000,
        strategy=Strategy(0, 1_000),
        filters=RequestFilter(fill(0x90), tuple(fill(i) for i in range(17)), (fill(0xFF),)),
        redundancy=4,
        ephemeral_key=fill(0xA0),
        addresses=(),
        prompt_commitment=fill(0x60),
    ),
    "Request.embedding": replace(REQUEST, inference_type=InferenceType.EMBEDDING),
    "SealedBid": m.SealedBid(REQUEST_ID, fill(0xC0, 300)),
    "SealedBid.short": m.SealedBid(REQUEST_ID, b""),
    "Bid": BID,
    "Bid.quantization": replace(BID, quantization="int8"),
    "StandingOffer": OFFER,
    "StandingOffer.quantization": replace(OFFER, quantization="Q4_K_M"),
    "DirectRequest": m.DirectRequest(fill(0x11, 300)),
    "PeerRecord": m.PeerRecord(("/ip6/2001:db8::1/tcp/4001",)),
    "PeerRecord.none": m.PeerRecord(()),
    "PeerList": m.PeerList((fill(0x01, 255), fill(0x02, 256), b"")),
    "Clearing": m.Clearing(
        model="embedded",
        input_tokens_max=2_048,
        input_price_ucr=15_000_000,
        output_price_ucr=60_000_000,
        ttft_ns=450_000_000,
        tokens_per_s_milli=200_000,
        sellers=190,
    ),
    "MoreBids": m.MoreBids(REQUEST_ID),
    "Award": AWARD,
    "Award.constrained": replace(AWARD, parameters=CONSTRAINED),
    "Award.continues": replace(AWARD, prompt=CONTINUED),
    "Award.stop_tokens": replace(AWARD, parameters=replace(CONSTRAINED, stop_tokens=(2, 151_645))),
    "Award.known_channel": m.Award(
        REQUEST_ID, BID_ID, CID, 300, PROMPT, fill(0xB0), PARAMETERS, None, None, SIGNATURE
    ),
    "Voucher": VOUCHER,
    "Voucher.widest": m.Voucher(CID, U63, (LaneClaim(U63, 2**32 - 1, U63),), SIGNATURE),
    "Voucher.no_lanes": m.Voucher(CID, 0, (), SIGNATURE),
    "Cancel": m.Cancel(CID, 4),
    "CloseRequest": m.CloseRequest(CID, 462_500, SIGNATURE),
    "ReceiptAck": m.ReceiptAck(CID, 4, fill(0xD0), SIGNATURE),
    "Accept": m.Accept(CID, 4, SIGNATURE),
    "Refuse": m.Refuse(REQUEST_ID, "provider.busy"),
    "Chunk": m.Chunk(CID, 4, 3, " gossip", 1_500, 96, 28_260, fill(0x70), SIGNATURE),
    "Chunk.logprobs": m.Chunk(
        CID, 4, 3, " gossip", 1_500, 96, 28_260, fill(0x70), SIGNATURE, LOGPROBS
    ),
    "Chunk.empty": m.Chunk(CID, 1, 1, "", 0, 0, 0, fill(0x70), SIGNATURE),
    "VoucherAck": m.VoucherAck(CID, 500_000),
    "NeedVoucher": m.NeedVoucher(CID, 4, 30_000),
    "Receipt": RECEIPT,
    "Result": m.Result(RECEIPT, SIGNATURE),
    "JobFailed": m.JobFailed(CID, 4, "engine.crashed"),
    "CloseAck": m.CloseAck(CID, 462_500, SIGNATURE),
    "Reestablish": m.Reestablish(CID, 500_000, CLAIMS, None),
    "Reestablish.payee": m.Reestablish(CID, 500_000, CLAIMS, VOUCHER),
    "LogHead": m.LogHead(HEAD, SignedHead(U63, fill(0x31), fill(0xC0, 64))),
    "LogHead.first": m.LogHead(None, HEAD),
    "LogHead.empty": m.LogHead(None, None),
    "TermsAsk": m.TermsAsk(2_000_000),
    "OpenAsk": m.OpenAsk(CID, OPEN),
    "Terms": m.Terms(TERMS, fill(0x50, 16)),
    "Opened": m.Opened(CID, SIGNATURE),
    "DepositProof": m.DepositProof(ORDER, WITNESSED),
    "LockAsk": m.LockAsk(ORDER, ()),
    "LockAsk.certified": m.LockAsk(ORDER, WITNESSED),
    "ClaimAsk": m.ClaimAsk(CID, VOUCHER, 1),
    "ClaimAsk.empty": m.ClaimAsk(CID, None, 0),
    "SettleAsk": m.SettleAsk(CID, 462_500, SIGNATURE, fill(0xC0, 64)),
    "ChannelAsk": m.ChannelAsk(CID),
    "AccountAsk": m.AccountAsk(fill(0x01)),
    "LockReceipt": m.LockReceipt(CID, 2_000_000, 3, SIGNATURE),
    "ClaimNotice": m.ClaimNotice(CID, 500_000, NOW_NS),
    "Settlement": m.Settlement(CID, 500_000, SIGNATURE),
    "Account": m.Account(fill(0x01), 98_000_000, 2_000_000, 4),
    "WitnessRefuse": m.WitnessRefuse(CID, "witness.no_funds", 4),
    # Every width that an integer has, on both sides of where it grows.
    **{
        f"VoucherAck.{best}": m.VoucherAck(CID, best)
        for best in (0, 127, 128, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, U63)
    },
    # Every width of a string's length.
    **{
        f"Chunk.text_{length}": m.Chunk(
            CID, 4, 2**32 - 1, "é" * (length // 2) + "x" * (length % 2), 0, 0, 0, CID, SIGNATURE
        )
        for length in (31, 32, 255, 256)
    },
    # Every width of an array's length.
    **{
        f"Voucher.lanes_{count}": m.Voucher(
            CID, 1, tuple(LaneClaim(lane, 1, 2) for lane in range(count)), SIGNATURE
        )
        for count in (15, 16, 32)
    },
    "CloseNotice": m.CloseNotice(CID, 500_000, NOW_NS, VOUCHER, SIGNATURE),
    "CloseClaim": m.CloseClaim(CID, VOUCHER),
    "CloseShown": m.CloseShown(CID, 700, SIGNATURE, SIGNATURE),
    "TopUp": m.TopUp(CID, 3_000_000, SIGNATURE),
    "TopUpAck": m.TopUpAck(CID, 3_000_000, SIGNATURE),
    "Resume": m.Resume(CID, 4, 3),
}

RECORDS: Final[dict[str, Any]] = {
    "ChannelOpened": r.ChannelOpened(
        fill(0x01), fill(0x02), fill(0x40, 16), fill(0x50, 16), TERMS, 2_000_000, NOW_NS
    ),
    "LaneOpened": r.LaneOpened(
        CID, 4, REQUEST_ID, BID_ID, "tiny", 15_000_000, 60_000_000, NOW_NS, fill(0xE0, 20)
    ),
    "VoucherIssued": r.VoucherIssued(CID, 500_000, CLAIMS),
    "VoucherAccepted": r.VoucherAccepted(VOUCHER),
    "Reserved": r.Reserved(CID, 4, 54_420),
    "LaneClosed": r.LaneClosed(CID, 4, 3, 28_260, "engine.cancelled", NOW_NS),
    "ReceiptSigned": r.ReceiptSigned(RECEIPT, SIGNATURE),
    "ReceiptAcknowledged": r.ReceiptAcknowledged(RECEIPT, SIGNATURE, fill(0xC0, 64)),
    "ReceiptCountersigned": r.ReceiptCountersigned(CID, 4, fill(0xD0), SIGNATURE),
    "ChannelClosed": r.ChannelClosed(CID, 462_500, 1, NOW_NS, SIGNATURE, fill(0xC0, 64)),
    "ChannelClosed.refused": r.ChannelClosed(CID, 0, 2, NOW_NS, b"", b""),
    "CloseAgreed": r.CloseAgreed(CID, 462_500),
    "DueAgreed": r.DueAgreed(CID, 462_500, 9, 12),
    "ChallengeStarted": r.ChallengeStarted(CID, 500_000, 2, NOW_NS),
    "AuditOpened": r.AuditOpened(CID, 4, 700, NOW_NS),
    "AuditClosed": r.AuditClosed(CID, 4, 2, 700, "receipt.mismatch", NOW_NS),
    "TopUpOffered": r.TopUpOffered(CID, 3_000_000),
    "DepositRaised": r.DepositRaised(CID, 3_000_000, SIGNATURE),
    "Denied": r.Denied(CID, 1_920),
    "ChannelFrozen": r.ChannelFrozen(CID, "chunk.wrong_hash", 1_700_000_000_000_000_000),
    "HeadSigned": r.HeadSigned(HEAD, NOW_NS),
    "SnapshotBegun": r.SnapshotBegun(2),
    "SnapshotPart": r.SnapshotPart(fill(0x01, 40)),
    "SnapshotSigned": r.SnapshotSigned(HEAD, NOW_NS),
    "HeadSeen": r.HeadSeen(fill(0x01), HEAD, None),
    "HeadSeen.two": r.HeadSeen(fill(0x01), HEAD, SignedHead(4_711, fill(0x31), SIGNATURE)),
    "OpeningSigned": r.OpeningSigned(CID, SIGNATURE),
    "DepositProved": r.DepositProved(ORDER, WITNESSED),
    "DebtPaid": r.DebtPaid(fill(0x01), 462_500, NOW_NS),
    "DepositOrdered": r.DepositOrdered(ORDER),
    "FundsGranted": r.FundsGranted(fill(0x01), 100_000_000),
    "FundsLocked": r.FundsLocked(ORDER),
    "OrderCertified": r.OrderCertified(ORDER, WITNESSED),
    "ClaimTaken": r.ClaimTaken(CID, VOUCHER, NOW_NS),
    "ClaimTaken.empty": r.ClaimTaken(CID, None, 0),
    "FundsSettled": r.FundsSettled(CID, 462_500, NOW_NS),
    "DepositSettled": r.DepositSettled(CID, 462_500, WITNESSED),
    "AwardJudged": r.AwardJudged(
        *(REQUEST_ID, fill(0x02), "tiny", Outcome.DELIVERED, "", fill(0xD0)),
        *(20_000_000, 31_000_000, 50_000, 48_500, 54_420, 28_260, NOW_NS),
    ),
    "AwardJudged.counts": r.AwardJudged(
        *(REQUEST_ID, fill(0x02), "tiny", Outcome.DELIVERED, "", fill(0xD0)),
        *(20_000_000, 31_000_000, 50_000, 48_500, 54_420, 28_260, NOW_NS, 1_500, 6_200, 96, 410),
    ),
    "AwardJudged.strategy": r.AwardJudged(
        *(REQUEST_ID, fill(0x02), "tiny", Outcome.DELIVERED, "", fill(0xD0)),
        *(20_000_000, 31_000_000, 50_000, 48_500, 54_420, 28_260, NOW_NS, 1_500, 6_200, 96, 410),
        "cheapest",
    ),
    "AwardJudged.unreached": r.AwardJudged(
        *(REQUEST_ID, fill(0x02), "tiny", Outcome.UNREACHED, "provider.unreachable", b""),
        *(20_000_000, 0, 50_000, 0, 54_420, 0, NOW_NS),
    ),
    "FeedbackGiven": r.FeedbackGiven(fill(0xD0), 1, NOW_NS),
    "RequestContinued": r.RequestContinued(REQUEST_ID, fill(0x35), "engine.crashed", NOW_NS),
    "AwardMade": r.AwardMade(REQUEST_ID, fill(0x02), AwardRole.HEDGE, NOW_NS),
    "RequestKeyed": r.RequestKeyed(fill(0x33), fill(0x34), REQUEST_ID, NOW_NS),
    "ChequeTaken": r.ChequeTaken(CHEQUE, "embedded", 15_000_000, 60_000_000, 6_810, NOW_NS),
    "ChequeTaken.bound": r.ChequeTaken(BOUND_CHEQUE, "embedded", 15, 60, 6_810, NOW_NS),
    "ChequeCharged": r.ChequeCharged(
        CHEQUE.user, CHEQUE.nonce, 52_500, "", RECEIPT, SIGNATURE, NOW_NS
    ),
    "ChequeCharged.early": r.ChequeCharged(
        CHEQUE.user, CHEQUE.nonce, 0, "engine.crashed", None, b"", NOW_NS
    ),
    "ChequesPaid": r.ChequesPaid(CHEQUE.user, 52_500, NOW_NS),
}
