"""Every error of the project: a class that says whose fault it is, and a code that says what.

Codes are `area.reason`, listed in one table with what they mean and what to do, and are never
renamed: they travel on the wire (Refuse, JobFailed), in logs and in `--json`.
"""

from typing import Final

CODES: Final[dict[str, str]] = {
    # wire: bytes that are not a message of ours
    "wire.truncated": "the bytes end before the message does; drop the sender's stream",
    "wire.oversized": "the message is longer than the limit for its kind; it was not read",
    "wire.malformed": "the bytes are not msgpack of an allowed shape",
    "wire.unknown_type": "the message type is not one that this version knows; upgrade peerd",
    "wire.bad_field": "a field has the wrong type, length or range",
    "wire.not_canonical": "the bytes are not the one encoding of this message",
    "wire.unencodable": "a field of a local message is out of range; this is a bug in peerd",
    # envelope: who said it, where and when
    "envelope.wrong_version": "the envelope's version is not supported; upgrade the older peer",
    "envelope.wrong_network": "the message belongs to another network; compare `network` on both",
    "envelope.bad_signature": "the signature does not match the sender and the content",
    "envelope.stale": "the message is too old; check the clock of this machine and the sender's",
    "envelope.from_future": "the message is dated ahead of our clock; check both clocks",
    "envelope.replayed": "the same message was seen before; it was ignored",
    "envelope.wrong_content": "the envelope holds a message that does not belong here",
    # admission: valid, but more than we take
    "admission.rate": "the sender exceeds its message rate; it was ignored",
    "admission.full": "too many messages are being tracked; try again later",
    # request, bid, award: the market
    "request.expired": "the deadline of the request is past; publish a new one",
    "request.no_bids": "no provider bid in the window; check the model's name, price and timeout",
    "request.unknown_model": "nobody offers this model, but others are sold; see `peerd models`",
    "request.all_failed": "every provider that was tried failed; the last reason is given",
    "request.deadline": "the job did not finish before its deadline; raise --timeout",
    "request.price_too_low": "all bids were over the price cap; raise --max-price",
    "request.unknown": "no such request is known here, or several begin so; see `peerd explain`",
    "request.day_limit": "the day's spending cap has no room for it; lower --max-price, "
    "or raise [requester] day_max",
    "request.too_many": "too many requests of ours are open; wait for one to finish",
    "request.cancelled": "the request was cancelled; what had arrived was paid",
    "request.interrupted": "the node stopped while it ran; what had arrived is paid, and a new "
    "Idempotency-Key asks again",
    "request.not_connected": "no peer listens on the network's topic; check --bootstrap",
    "request.invalid": "the request can't be published as it is",
    "bid.bad_seal": "the sealed bid can't be opened with the request's key",
    "bid.unknown_request": "the bid answers no open request; it was ignored",
    "bid.late": "the bid came after the window; it was ignored",
    "bid.unacceptable": "the bid does not fit the request that it answers",
    "bid.too_slow": "it would not be done by the deadline; allow more time, or ask for less",
    "bid.too_many": "the request has as many bids as it keeps; this one was ignored",
    "bid.low_reputation": "the provider's record with us is below what is wanted",
    "bid.short_context": "the prompt is longer than the model's context there; shorten it",
    "bid.other_quantization": "the model is not kept there in what was asked for; allow others",
    "bid.over_price": "a token's price is over what is wanted; raise max_price or leave it out",
    "bid.off_market": "the price is far over what others asked lately",
    "award.unknown_bid": "the award names a bid that was not made or has expired; ask again",
    "award.wrong_prompt": "the prompt does not match the request's commitment",
    "award.prompt_too_large": "the prompt has more tokens than were announced, or than its text",
    "award.bad_signature": "the award is not signed by the requester",
    "award.wrong_parameters": "the parameters ask for more than the request announced",
    "award.outrun": "another provider's first text came before this one's; what is due is paid",
    "award.timeout": "the provider did not start the job in time",
    "provider.busy": "the provider has no free place; try another or wait",
    "provider.draining": "the provider is shutting down; try another",
    "provider.vanished": "the connection to the provider was lost",
    "provider.unreachable": "the provider can't be reached at its addresses",
    "provider.refused": "the provider refused the job",
    # chunk, receipt: delivery
    "chunk.unknown_lane": "the chunk belongs to no job of ours",
    "chunk.out_of_order": "a chunk is missing or repeated; the stream can't be trusted",
    "chunk.wrong_hash": "the chunk does not continue the signed transcript",
    "chunk.bad_signature": "the chunk is not signed by the provider",
    "chunk.wrong_total": "the price due does not follow from tokens and the bid; not paid",
    "chunk.too_many_tokens": "more tokens than were asked for or than the text can hold; not paid",
    "chunk.bad_logprobs": "the chunk has log-probabilities that were not asked for",
    "chunk.bad_vectors": "the answer is not the vectors of the texts; ask another provider",
    "chunk.stalled": "the provider sent nothing for too long",
    "receipt.mismatch": "the receipt does not match what was delivered; not countersigned",
    "receipt.unacknowledged": "the payer did not counter-sign; the lane is closed at its price",
    "receipt.unknown": "the log has no receipt of this id; see `peerd history`",
    "receipt.bad_signature": "the receipt is not signed by the provider",
    # channel: money
    "channel.unknown": "no such channel here",
    "channel.bad_terms": "the channel's terms are not those of the bid",
    "channel.over_limit": "the deposit is over this payee's credit limit for the payer",
    "channel.bad_signature": "a voucher, open or close is not signed by the channel's party",
    "channel.over_deposit": "the total exceeds the deposit; top up or open a new channel",
    "channel.stale_total": "the total does not exceed the best one held; ignored",
    "channel.bad_lanes": "the voucher's lanes do not add up to what was delivered",
    "channel.wrong_state": "the channel is not in a state that allows this",
    "channel.unpaid": "the payer stopped paying; the job was stopped at the credit window",
    "channel.advance_limit": "the provider wants more in advance than you allow: --advance",
    "channel.too_many": "too many channels or lanes are open with this peer",
    "channel.frozen": "the channel is frozen after a fault; only claim and close are possible",
    "channel.bad_reestablish": "the peer shows a voucher that this side never signed",
    "channel.no_answer": "the peer did not agree in time; is it up? try again later",
    "channel.challenged": "an end of the channel closes it alone; what was delivered stays due",
    "channel.close_mismatch": "the two sides do not agree on the final total",
    "channel.no_proof": "the payee wants a deposit that its witnesses signed; see [anchor]",
    "channel.too_late": "the channel is settled already; the voucher came after the deadline",
    # head: what a node signs about its whole log
    "head.bad_signature": "a log's head is not signed by the node whose log it is said to be",
    "head.equivocation": "the peer signed two different logs; its channels here are frozen",
    "head.rolled_back": (
        "the log is older than what a peer holds a signature of: an old copy was restored; stop"
        " the daemon and put the newest copy back, or go on and lose what peers can't show"
    ),
    "credit.no_debt": "this peer owes less than that on closed channels; see `peerd credit`",
    # bundle: evidence of one channel, for a third party
    "bundle.malformed": "the file is no settlement bundle, or was damaged",
    "bundle.version": "the bundle is of another version of peerd; check it with a newer one",
    "bundle.bad_signature": "a signature in the bundle is not good: it was changed, or is a lie",
    "bundle.mismatch": "the parts of the bundle do not belong together",
    "bundle.no_opening": "the log does not go back to the channel's opening; use an archive",
    # witness: who holds deposits for others
    "witness.not_serving": "this peer is no witness; check [anchor] witnesses",
    "witness.unknown_account": "the witness's operator granted this account nothing",
    "witness.no_funds": "the account has less than the deposit; close channels or ask for more",
    "witness.behind": "the witness has not heard of an earlier order of this payer",
    "witness.conflict": "the payer signed two orders of one number; the first is held",
    "witness.bad_order": "the order is not signed by its payer, or raises nothing",
    "witness.bad_signature": "a threshold of the quorum's signatures is not there, or one is bad",
    "witness.full": "the witness holds as many channels as it can",
    # cheque: a promise to pay, in the headers of an HTTP request
    "cheque.malformed": "the X-Peerd- headers are no cheque: User, Node, Nonce, Amount, Signature",
    "cheque.not_taken": "this node takes no cheques; see [cheques] total",
    "cheque.wrong_node": "the cheque is for another node; see /v1/cheques for this one's id",
    "cheque.expired": (
        "the cheque's nonce, the time at which it was written, is too old or lies ahead: write"
        " a new one, and check both clocks"
    ),
    "cheque.wrong_body": "the cheque is for a request with another body; write one for this",
    "cheque.bad_signature": "the cheque is not signed by its user, or for another network",
    "cheque.unknown_user": "this key has no limit here; ask the node's operator for one",
    "cheque.unknown": "no cheque of this key and nonce was charged lately; has its answer ended?",
    "cheque.over_limit": "what unpaid cheques may cost has no room for it; pay, or ask for less",
    "cheque.replayed": "the cheque's nonce was used; write a new cheque",
    "cheque.short": "the cheque is for less than the answer may cost; sign for more",
    "cheque.interrupted": "the node stopped in the middle of the answer; nothing was charged",
    "cheque.no_debt": "this user owes less than that for cheques; see `peerd cheques`",
    # session: the stream between two peers
    "session.protocol": "the peer sent a message that is not allowed here",
    "session.closed": "the stream to the peer closed",
    "session.overflow": "the peer does not read what it is sent; the stream was closed",
    # engine
    "engine.unknown_model": "the model is not loaded here; see `peerd models`",
    "engine.bad_model": "the model file is missing or is no usable GGUF; check --model",
    "engine.bad_spec": "the job's parameters are not valid",
    "engine.prompt_too_long": "the prompt does not fit the model's context",
    "engine.crashed": "the model's worker process died; the job failed, the daemon goes on",
    "engine.timeout": "the model's worker did not answer in time",
    "engine.draining": "the engine is shutting down and takes no more jobs",
    "engine.overloaded": "the engine's queue is full; try again later",
    "engine.context_full": "the model's context has no room to go on; ask for fewer tokens",
    "engine.too_late": "the job can't start in time; ask another, or allow more time",
    "engine.no_room": "the model needs more memory than it may have; raise memory_mib",
    "engine.remote_failed": "the remote server failed, or answered what it should not",
    "engine.remote_denied": "the remote server does not accept the key; check its key setting",
    "engine.no_embeddings": "the model makes no embeddings; ask another one",
    "engine.cancelled": "the job was cancelled",
    # storage
    "storage.locked": "another peerd uses this data directory; stop it or choose another",
    "storage.unwritable": "the data directory can't be written; check its owner and mode",
    "storage.io": "reading or writing the log failed; check the disk, then start again",
    "storage.poisoned": "the log failed before and takes no more records; restart the daemon",
    "storage.corrupt": "the log is damaged before its end; restore it or keep it as evidence",
    "storage.foreign": "the log belongs to another node or network; check --data and --network",
    "storage.version": "the log was written by another version of peerd; run that or a newer one",
    "storage.bad_record": "a record is too long or out of range; this is a bug in peerd",
    "storage.backlog": "records come faster than the disk takes them; check the disk",
    "storage.closed": "the log was closed and takes no more records; this is a bug in peerd",
    "storage.no_log": "there is no log in that directory, or an empty one; check --data",
    "storage.archive": "a segment can't be archived as it is; it was kept where it is",
    "storage.bad_head": "a signature in the log is not its owner's; it is no log of that key",
    "storage.bad_snapshot": "a snapshot is not what the records make; restore an archived copy",
    "storage.not_a_log": "that file is none that `peerd log export` wrote",
    "storage.truncated": (
        "the records end, or begin, short of what a signed head covers; get the export again"
    ),
    # configuration and command line
    "config.usage": "the command line can't be understood",
    "config.unreadable": "the configuration can't be read; check the file's owner and mode",
    "config.syntax": "the configuration is not valid TOML",
    "config.unknown_key": "the configuration has a key that does not exist",
    "config.bad_value": "a setting has the wrong type or range",
    "config.no_identity": "there is no key in the data directory; run `peerd init`",
    "config.exists": "the data directory already holds a node; choose another or keep it",
    "config.key_mode": "the key file can be read by others; run chmod 600 on it",
    "config.key_bad": "the key file is not an ed25519 seed in hex; put a copy back or init anew",
    "config.too_large": "the scenario needs more memory than there is; take fewer nodes",
    "config.tier": "the scenario has what this tier of the simulator can't run",
    "config.missing_library": "a library of an optional part is missing; install what is named",
    # a sweep of the simulator on other processes or machines
    "sweep.unreachable": "no cluster answers there; check --cluster, and that it runs",
    "sweep.other_code": "a worker would not give the same bytes; install the same there as here",
    "sweep.worker_lost": "a worker died or was lost; check its memory, the same command goes on",
    # network and control socket
    "network.listen": "the listen address can't be used; is the port busy? take another",
    "network.bad_address": "no usable address; write /ip4/HOST/tcp/PORT, with /p2p/ID to dial",
    "network.unreachable": "the peer can't be dialled",
    "control.unavailable": "no daemon answers on this data directory; start `peerd run`",
    "control.bad_request": "the control socket got a request that it does not know",
    # the HTTP gateway
    "api.bad_request": "the request is not as the API has it; it was not sent to anybody",
    "api.unsupported": "this is not supported here; leave it out",
    "api.bad_token": "the bearer token is missing or wrong; see [api] token_file",
    "api.forbidden_host": "a web page may not use this API; call it by its own address",
    "api.not_found": "there is no such path; see /openapi.json",
    "api.unknown_model": "nobody offers this model now; see /v1/models",
    "api.wrong_method": "the path does not take this method",
    "api.too_large": "the body is over 4 MiB",
    "api.wrong_content_type": "the body has to be application/json",
    "api.key_reused": "this Idempotency-Key came with another body before; take a new key",
    "api.answer_gone": "it was done and paid, but its answer is not kept any more; a new "
    "Idempotency-Key buys it anew",
    "api.too_many": "too many requests run at once; try again in a moment",
}


class PeerdError(Exception):
    """An error with a code of the table; `detail` says what in particular, in one line.

    `short_ucr` is what was lacking, where it is for want of money and known.
    """

    def __init__(self, code: str, detail: str = "", *, short_ucr: int = 0) -> None:
        assert code in CODES, code
        self.code = code
        self.detail = detail
        self.short_ucr = short_ucr
        super().__init__(code, detail)

    def __str__(self) -> str:
        middle = f" ({self.detail})" if self.detail else ""
        return f"{self.code}{middle}: {CODES[self.code]}"

    def report(self) -> dict[str, str]:
        """The error as `--json` and the control socket give it."""
        return {"error": self.code, "detail": self.detail, "message": str(self)}


class LocalError(PeerdError):
    """We were misused: a call out of order, a value out of range."""


class RemoteError(PeerdError):
    """A peer broke the protocol (`penalize`) or merely came late or asked too much."""

    def __init__(
        self, code: str, detail: str = "", *, penalize: bool = True, short_ucr: int = 0
    ) -> None:
        super().__init__(code, detail, short_ucr=short_ucr)
        self.penalize = penalize


class EngineError(PeerdError):
    """A job or a model failed; the daemon goes on."""


class StorageError(PeerdError):
    """The log can't be trusted or written: fatal to the daemon."""


class ConfigError(PeerdError):
    """The person's input is wrong; exit status 2."""


class NetworkError(PeerdError):
    """A socket, dial or stream failed for reasons that are nobody's fault."""
