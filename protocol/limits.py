"""Every bound of the project, with its reason. Nothing from outside is unbounded.

Sizes are bytes unless the name says otherwise; times are ns. Rules: docs of each section.
"""

from typing import Final

from protocol.units import NS_PER_MS, NS_PER_S

# --- integers on the wire -----------------------------------------------------------------
U16_MAX: Final = 2**16 - 1
U32_MAX: Final = 2**32 - 1
# The wire's widest integer: msgspec checks bounds in signed 64 bits, and half the range of a
# u64 is still 9.2e12 credits or the year 2262 in ns.
U63_MAX: Final = 2**63 - 1

# --- messages -----------------------------------------------------------------------------
# A gossip message: requests are ~500 B; larger ones cost every node of the network.
GOSSIP_BYTES_MAX: Final = 16 * 1024
# A session frame: the award carries the prompt. py-libp2p drops gossip over 1 MiB silently
# and reads bodies in small pieces, so a prompt over this belongs elsewhere.
FRAME_BYTES_MAX: Final = 512 * 1024
# An encoded prompt and its parameters: the rest of an award (voucher with all lanes, channel
# terms) is under 8 KiB.
PROMPT_BYTES_MAX: Final = FRAME_BYTES_MAX - 8 * 1024
# Unread frame bytes of one session. Stock Yamux does not enforce flow control.
SESSION_BUFFER_BYTES_MAX: Final = 2 * FRAME_BYTES_MAX
SEALED_BID_BYTES_MAX: Final = 4 * 1024
# Items of any one array; the largest legal array is a request's provider filter.
ARRAY_ITEMS_MAX: Final = 64

# Type numbers of messages; one byte of msgpack.
TYPE_NUMBER_MAX: Final = 127

MODEL_NAME_CHARS_MAX: Final = 128
ADDRESS_CHARS_MAX: Final = 256
ADDRESSES_MAX: Final = 8
PROVIDERS_FILTER_MAX: Final = 64
CODE_CHARS_MAX: Final = 64
QUANTIZATION_CHARS_MAX: Final = 16  # the longest name of a GGUF file type has 9
QUANTIZATIONS_FILTER_MAX: Final = 16  # as many as there are classes
CHUNK_TEXT_CHARS_MAX: Final = 64 * 1024
MESSAGE_TEXT_CHARS_MAX: Final = 256 * 1024
CHAT_MESSAGES_MAX: Final = 64
STOP_STRINGS_MAX: Final = 8
STOP_STRING_CHARS_MAX: Final = 64
CONSTRAINT_CHARS_MAX: Final = 32 * 1024
LOGIT_BIAS_MAX: Final = 64
LOGPROBS_MAX: Final = 20  # what OpenAI's interface allows
# exp(-1000) is 0 in every float: whatever is less likely is told as this.
LOGPROB_MICRO_MIN: Final = -1_000_000_000
# The longest tokens of usual vocabularies are runs of 128 spaces; a chunk of tokens with all
# their alternatives stays under 180 KiB, so that it fits a frame beside its text.
TOKEN_BYTES_MAX: Final = 256
STOP_TOKENS_MAX: Final = 16
BUILD_NAME_CHARS_MAX: Final = 128

# The vectors of one embedding job in base64, sent at once: a quarter of what a session queues.
EMBED_ANSWER_CHARS_MAX: Final = 256 * 1024

# --- freshness and replay -----------------------------------------------------------------
# Pastel and others use 55-60 s. Replays inside the window are caught by the seen cache.
FRESHNESS_NS: Final = 60 * NS_PER_S
CLOCK_SKEW_NS: Final = 10 * NS_PER_S
# 64 Ki digests x ~150 B = 10 MB; at the freshness window this is ~1,000 messages a second,
# more than a 2-core node verifies.
SEEN_MESSAGES_MAX: Final = 65_536
# A sender may burst 50 gossip messages and sustain 10 a second.
SENDER_BURST_MESSAGES: Final = 50
SENDER_RATE_PER_S: Final = 10
SENDERS_TRACKED_MAX: Final = 8_192

# --- market -------------------------------------------------------------------------------
OUTPUT_TOKENS_MAX: Final = 131_072
INPUT_TOKENS_MAX: Final = 1_048_576
# Tokens that a chat template may add to the text: bytes bound the text's own tokens.
TEMPLATE_TOKENS_MAX: Final = 256
# Beyond so many tokens over its bytes, a prompt's count is a lie: templates that explain tools or
# thinking have some 1,000 of their own, and 4 to 10 around a message.
PROMPT_EXTRA_TOKENS_MAX: Final = 2_048
MESSAGE_EXTRA_TOKENS_MAX: Final = 64
# Output tokens that may have no text of their own: ends of turns, marks that are not shown, the
# first bytes of a character.
EMPTY_TOKENS_MAX: Final = 64
BID_WINDOW_NS_MIN: Final = 10 * NS_PER_MS
BID_WINDOW_NS_MAX: Final = 10 * NS_PER_S
# A provider doesn't bid on what may run longer than this.
DEADLINE_NS_MAX: Final = 3_600 * NS_PER_S
# Bids kept for one request. At 10,000 nodes ~190-2,000 arrive without self-selection.
BIDS_PER_REQUEST_MAX: Final = 256
# Between two log lines that say of one reason why there was no bid.
SILENCE_NOTE_NS: Final = 10 * NS_PER_S
# Bids that a provider has outstanding; each is a promise that an award may collect on.
BIDS_OUTSTANDING_MAX: Final = 1_024
BID_LIFETIME_NS: Final = 30 * NS_PER_S
# A standing offer is said again before it ends, and sooner when it changed, but not more often
# than this: at 1,000 sellers that is 200 messages a second at worst, 50 at rest.
OFFER_LIFETIME_NS: Final = 45 * NS_PER_S
OFFER_REFRESH_NS: Final = 20 * NS_PER_S
OFFER_INTERVAL_NS: Final = 5 * NS_PER_S
# What a neighbour tells a peer that joins: ~0.6 KB each, of every model some.
OFFERS_SHOWN_MAX: Final = 64
# What a requester remembers: ~1.5 KB each.
OFFERS_KEPT_MAX: Final = 4_096
OFFERS_PER_SENDER_MAX: Final = 16
# Direct awards before the auction, and streams kept warm to the best sellers of a model.
OFFERS_TRIED_MAX: Final = 2
SESSIONS_WARM_MAX: Final = 3
# Self-selection. A requester tells the bid of this rank; with three bids an auction may close
# early, and the best may be taken or gone.
CLEARING_RANK: Final = 8
# Beyond those of that rank, about so many sellers bid by lot, so that news gets through.
BIDS_WANTED: Final = 8
# A sender is heard of a model this often; what it told counts for so long, some auctions' time.
CLEARING_INTERVAL_NS: Final = 10 * NS_PER_S
CLEARING_LIFETIME_NS: Final = 180 * NS_PER_S
# While so many others told nearly the same, a requester has nothing to tell: medians of eight are
# as good as of sixteen (simnet/findings), and every word goes to everybody.
CLEARINGS_ENOUGH: Final = 8
# What is remembered: models, and senders of each, ~1 KB a sender. Those that paid this node have
# a place of their own, which strangers can't take.
CLEARING_MODELS_KEPT: Final = 64
CLEARING_KNOWN_KEPT: Final = 32
CLEARING_STRANGERS_KEPT: Final = 32
# Requests that were not bid on and may be asked for again, ~1.5 KB each.
BIDS_WITHHELD_KEPT: Final = 256
REQUESTS_OPEN_MAX: Final = 256
AWARDS_PER_REQUEST_MAX: Final = 4  # the first and three retries
# Auctions after the first where all who were awarded failed before any text: each takes a window.
AUCTIONS_AGAIN_MAX: Final = 1
# Providers that may go on with an answer after one another, each at the price of reading it again.
CONTINUATIONS_MAX: Final = 3
# An award is not called late before this: jitter of a network is no reason to pay twice.
HEDGE_FLOOR_NS: Final = NS_PER_S
REDUNDANCY_MAX: Final = 4
RACE_MAX: Final = AWARDS_PER_REQUEST_MAX
# A provider starts (accepts) within this, or the next bid is tried.
ACCEPT_TIMEOUT_NS: Final = 5 * NS_PER_S
# The first chunk is late after this, or after so many times the bid's promise, whichever is
# longer; then there may still be a bid to fall back on.
FIRST_CHUNK_TIMEOUT_NS: Final = 5 * NS_PER_S
FIRST_CHUNK_LATENESS: Final = 4
# Nothing from a provider for this long, after its first chunk, is a stall.
CHUNK_TIMEOUT_NS: Final = 30 * NS_PER_S
# A provider waits this long for a voucher before it stops a paused job.
UNPAID_TIMEOUT_NS: Final = 10 * NS_PER_S
# A requester whose stream broke goes on trying to reach the provider for this long.
RESUME_TIMEOUT_NS: Final = 6 * NS_PER_S
RESUME_RETRY_NS: Final = 500 * NS_PER_MS
# One that knows other sellers, and could not reach this one again, goes to them after this.
RESUME_ALONE_NS: Final = 2 * NS_PER_S
# A provider keeps a job whose stream broke for this long: the other end may notice the break
# only after KEEPALIVE_TIMEOUT_NS, and then takes RESUME_TIMEOUT_NS.
RESUME_GRACE_NS: Final = 15 * NS_PER_S
# A payer that breaks its stream at every chunk costs resending; after so many a lane ends.
RESUMES_PER_LANE_MAX: Final = 64
# Chunks sent and not yet acknowledged by a voucher, with the text that waits behind a broken
# stream: of one lane (a chunk is 32 tokens, ~150 B), and of all lanes of a node.
RESEND_LANE_BYTES_MAX: Final = 512 * 1024
RESEND_BYTES_MAX: Final = 64 * 1024 * 1024
# A payer counter-signs within this, or the lane is closed without it.
ACKNOWLEDGE_TIMEOUT_NS: Final = 10 * NS_PER_S
# Finished lanes are remembered this long so that a late frame is not an offence.
LANE_MEMORY_NS: Final = 60 * NS_PER_S

# --- money --------------------------------------------------------------------------------
PRICE_UCR_MAX: Final = 10**15
DEPOSIT_UCR_MAX: Final = 10**15
# Open channels of a node; each is ~2 KB and one of up to CHANNELS_PER_PEER_MAX of its peer.
CHANNELS_MAX: Final = 16_384
# Payers whose debts of closed channels are remembered, ~100 B each.
DEBTORS_MAX: Final = 65_536
# A cheque is good for so long after it was written: a call that is retried, and clocks that are
# minutes apart. One that was read on its way and never came can be cashed no longer than this.
CHEQUE_LIFETIME_NS: Final = 600 * NS_PER_S
# Nonces of a user's last cheques that are remembered; one older than all of them counts as used.
# So many of a user's calls may overtake each other.
CHEQUE_NONCES_KEPT: Final = 64
# Users that are remembered, ~1 KB each: beyond that, a newcomer takes the place of one who owes
# nothing and whose cheques have all expired.
CHEQUE_NEWCOMERS_MAX: Final = 4_096
# The last answers for cheques whose receipt their users can fetch again, ~1 KB each.
CHEQUE_RECEIPTS_KEPT: Final = 1_024
# Users with a limit of their own, from a file.
CHEQUE_USERS_MAX: Final = 1_024
# Closed channels that are still listed; older ones only count in the balance.
CHANNELS_CLOSED_KEPT: Final = 1_024
# Providers and models whose reputation is kept, ~200 B each: those met last.
STANDINGS_KEPT: Final = 4_096
# Receipts that feedback can still name, ~200 B each.
RATED_KEPT: Final = 1_024
# Providers that failed last, ~150 B each.
BREAKERS_KEPT: Final = 4_096
# Sellers of a model, and models, whose last prices make the median; ~200 B a seller.
SELLERS_KEPT: Final = 64
PRICED_MODELS_KEPT: Final = 256
# Requests that can be explained, and bids of each, ~300 B a bid.
EXPLANATIONS_KEPT: Final = 512
CONSIDERED_KEPT: Final = 64
BIDS_QUOTED_MAX: Final = 16
# Days whose spending is kept.
SPENT_DAYS_KEPT: Final = 32
CHANNELS_PER_PEER_MAX: Final = 16
LANES_PER_CHANNEL_MAX: Final = 32
# A payer that denied what it was sent gets its window back by 1 ucr for so many that it pays:
# cheating by denial is worth 1.6 % of the turnover, and no more.
DENIAL_FORGIVEN_PER: Final = 64
# Payers whose denials are remembered; each got one window at most.
DENIALS_TRACKED_MAX: Final = 8_192
# A close may cross the last words about a lane; a payee that refuses it again has a reason.
CLOSE_REFUSALS_MAX: Final = 3
# Output tokens in one chunk; one chunk is the credit that a newcomer gets.
CHUNK_TOKENS_MAX: Final = 32
# Tokens that a provider treats as one: small enough that a window of one chunk always moves.
PIECE_TOKENS_MAX: Final = 8
CHANNEL_LIFETIME_NS: Final = 30 * 24 * 3_600 * NS_PER_S
CHALLENGE_NS: Final = 24 * 3_600 * NS_PER_S
# What a payee's terms may ask for at most: a payer's deposit is locked for so long.
CHALLENGE_NS_MAX: Final = 7 * 24 * 3_600 * NS_PER_S
# A payee claims so long before a channel's lifetime ends, a payer asks to close so long before
# that; jobs end within DEADLINE_NS_MAX.
CLAIM_MARGIN_NS: Final = 3_600 * NS_PER_S
# An anchor that did not know yet what a channel is settled at is asked again.
FINALIZE_RETRY_NS: Final = 60 * NS_PER_S
# Witnesses of one quorum: a proof of deposit carries up to so many signatures, ~100 B each.
WITNESSES_MAX: Final = 32
# Receipts of a settlement bundle, in pages of ARRAY_ITEMS_MAX; the newest are kept. ~700 B each.
BUNDLE_PAGES_MAX: Final = 64
BUNDLE_BYTES_MAX: Final = 4 * 1024 * 1024
# Unsettled channels that a witness holds deposits for, ~500 B each, and settled ones that it can
# still answer for.
WITNESS_CHANNELS_MAX: Final = 65_536
WITNESS_SETTLED_KEPT: Final = 16_384
# Certificates that a witness which missed some is sent at once; it then asks for the next.
WITNESS_CATCH_UP: Final = 64
# Proofs of deposit that were shown and whose channel is not opened yet: of all payers.
PROOFS_WAITING_MAX: Final = 1_024
# A witness that was down when a channel's challenge period ended waits this long for vouchers.
WITNESS_GRACE_NS: Final = 60 * NS_PER_S
# What a witness was asked and has not answered is asked again after this long, and connected to
# again when it was lost.
WITNESS_RETRY_NS: Final = 5 * NS_PER_S

# --- log ----------------------------------------------------------------------------------
RECORD_BYTES_MAX: Final = 64 * 1024
RECORD_NUMBER_MAX: Final = 255  # a byte of the frame
SEGMENT_BYTES_MAX: Final = 64 * 1024 * 1024
# Waiters of one group commit; more only adds latency to the first of them.
COMMIT_BATCH_RECORDS_MAX: Final = 4_096
# Appended and not yet committed: what a disk that hangs may pile up before appends are refused.
LOG_BACKLOG_RECORDS_MAX: Final = 65_536
LOG_BACKLOG_BYTES_MAX: Final = 64 * 1024 * 1024
# The field of the segment header that holds the network's name, in UTF-8.
LOG_NETWORK_BYTES_MAX: Final = 64
# Places behind damage that are checked as frames: 1 M checksums are a second or so.
LOG_SEARCH_CANDIDATES_MAX: Final = 1_000_000

# The state in one record of a snapshot; the rest of RECORD_BYTES_MAX is the record around it.
SNAPSHOT_PART_BYTES_MAX: Final = 60 * 1024
# Records from one snapshot to the next, and four more a channel, so that snapshots of many
# channels stay a fraction of the log. A start replays at most about twice that: a second or so.
SNAPSHOT_RECORDS: Final = 65_536
SNAPSHOT_RECORDS_PER_CHANNEL: Final = 4
# A head is signed, logged and shown to channel peers every so many records: 15 us of signing.
HEAD_RECORDS: Final = 1_024
# Our own heads that are remembered: a peer that shows an older one can't be answered for.
HEADS_KEPT: Final = 256
# Peers whose newest head is remembered: as many as have channels; the longest unseen goes first.
HEADS_SEEN_MAX: Final = 16_384
# Of one session, a newer head is logged this often: each costs a record.
HEAD_SEEN_NS: Final = 10 * NS_PER_S

# --- node ---------------------------------------------------------------------------------
TIMERS_MAX: Final = 16_384
OUTBOX_ACTIONS_MAX: Final = 16_384
SESSIONS_MAX: Final = 512
JOBS_RUNNING_MAX: Final = 256

# --- network ------------------------------------------------------------------------------
GOSSIP_DEGREE: Final = 8
GOSSIP_DEGREE_LOW: Final = 6
GOSSIP_DEGREE_HIGH: Final = 12
# Connections that the node itself seeks; inbound ones come on top, up to CONNECTIONS_MAX.
PEERS_WANTED: Final = 8
CONNECTIONS_MAX: Final = 256
PEER_RECORDS_MAX: Final = 1_024
PEER_RECORDS_PER_REPLY_MAX: Final = 16
PEER_RECORD_LIFETIME_NS: Final = 3_600 * NS_PER_S
DIAL_TIMEOUT_NS: Final = 5 * NS_PER_S
STREAM_WRITE_TIMEOUT_NS: Final = 20 * NS_PER_S
RECONNECT_NS_MIN: Final = 1 * NS_PER_S
RECONNECT_NS_MAX: Final = 30 * NS_PER_S
# A connection is dead when a ping is not answered for this long. A busy node stalls for a
# second or two at most; a provider that vanished should be noticed within a chunk's timeout.
KEEPALIVE_INTERVAL_NS: Final = 3 * NS_PER_S
KEEPALIVE_TIMEOUT_NS: Final = 6 * NS_PER_S
# One gossip RPC: several messages of GOSSIP_BYTES_MAX, and ids of those on offer.
RPC_BYTES_MAX: Final = 256 * 1024
RPCS_QUEUED_PER_PEER_MAX: Final = 1_024
# Ids that one IHAVE or IWANT may name: a second of traffic at SEEN_MESSAGES_MAX's rate.
GOSSIP_IDS_PER_RPC_MAX: Final = 1_024
# Messages kept to answer IWANT, for GOSSIP_HISTORY heartbeats.
GOSSIP_CACHE_MESSAGES_MAX: Final = 4_096
# Seconds that a peer which pruned us is left alone; a hostile PRUNE may ask for 2^64.
GOSSIP_BACK_OFF_S: Final = 10
GOSSIP_BACK_OFF_S_MAX: Final = 60
# A connection carries gossip (2), a warm bid stream (2), peer exchange and job sessions.
STREAMS_PER_CONNECTION_MAX: Final = 128
STREAMS_PER_PEER_AND_PROTOCOL_MAX: Final = 16
# Unread bytes of all streams of one connection: eight sessions with full windows.
CONNECTION_BUFFER_BYTES_MAX: Final = 2 * 1024 * 1024
# Warm outbound streams for bids; the least recently used one is closed for a new one.
BID_STREAMS_MAX: Final = 64
# A sealed bid in its message: type number, request id and msgpack headers around it.
BID_FRAME_BYTES_MAX: Final = SEALED_BID_BYTES_MAX + 64
# A PeerList with PEER_RECORDS_PER_REPLY_MAX records, each an envelope of <= 4096 bytes.
PEER_LIST_BYTES_MAX: Final = PEER_RECORDS_PER_REPLY_MAX * 4_100 + 64
# A neighbour that does not subscribe to our topic this long after connecting is on another
# network, or no node at all.
SUBSCRIBE_TIMEOUT_NS: Final = 15 * NS_PER_S
PENALTY_NS: Final = 300 * NS_PER_S
PENALIZED_PEERS_MAX: Final = 1_024
# Peers whose addresses we ask for, while below PEERS_WANTED and once satisfied.
PEER_EXCHANGE_NS_MIN: Final = 2 * NS_PER_S
PEER_EXCHANGE_NS_MAX: Final = 30 * NS_PER_S
# Our own record is signed again well before it expires.
PEER_RECORD_RENEW_NS: Final = PEER_RECORD_LIFETIME_NS // 4
# Dials of the connecting loop that run at once.
DIALS_MAX: Final = 4

# --- engine -------------------------------------------------------------------------------
# A GGUF's header: the largest vocabularies (256 Ki tokens, 1 Mi merges) take ~25 MB.
GGUF_HEADER_BYTES_MAX: Final = 64 * 1024 * 1024
GGUF_ARRAY_ITEMS_MAX: Final = 4 * 1024 * 1024
GGUF_FIELDS_MAX: Final = 4_096
GGUF_TENSORS_MAX: Final = 65_536
# llama.cpp aborts over 512 layers; no model has half as many.
GGUF_BLOCKS_MAX: Final = 512
# Keys and values of one token: the widest models take ~4 MB; a header may claim anything.
GGUF_KV_TOKEN_BYTES_MAX: Final = 64 * 1024 * 1024
# Files of a models directory that are looked at.
MODELS_MAX: Final = 64
# What is remembered of model files, seen ones included that have gone; ~1 KB each.
MODEL_NOTES_MAX: Final = 512
MODEL_NOTES_BYTES_MAX: Final = 4 * 1024 * 1024
# A file that changed less than this ago may change again within its clock's granularity.
MODEL_SETTLED_NS: Final = 2 * NS_PER_S
ENGINE_THREADS_MAX: Final = 512
# A step of a smaller model takes less than a millisecond of one thread. Several wait for each
# other at every layer, and where other programs want the processors, a whole time slice each time.
ENGINE_ONE_THREAD_BYTES: Final = 16 * 1024 * 1024
# llama.cpp's own bound of sequences in a context is 256; over 32 a CPU gains nothing.
ENGINE_PLACES_MAX: Final = 64
# Each place reserves memory for its whole context: an unset context stops here.
ENGINE_CONTEXT_TOKENS_DEFAULT: Final = 4_096
ENGINE_CHUNK_TOKENS_MIN: Final = 16
ENGINE_CHUNK_TOKENS_MAX: Final = 2_048
# Whose job it is: a public key.
ENGINE_OWNER_BYTES_MAX: Final = 32
ENGINE_QUEUE_JOBS_MAX: Final = 256
# Later arrivals that may go before the first waiting job of an owner, whatever the weights: at
# 16 to 1 a batch job goes after ~20 others of its size, and a large one after this many.
ENGINE_OVERTAKES_MAX: Final = 64
# Requesters that an operator prefers, from a file.
PREFERRED_MAX: Final = 256
# Idle owners whose use of the machine is remembered; ~200 B each.
ENGINE_OWNERS_MAX: Final = 1_024
ENGINE_STEPS_PER_S_MAX: Final = 100_000
# One job to the worker: a prompt of text; a million tokens at four bytes.
ENGINE_FRAME_BYTES_MAX: Final = 4 * 1024 * 1024
# Loading reads the file once, at 50 MB/s from a slow disk; starting, testing and a machine that
# is busy with other things take this much more.
ENGINE_START_NS_MIN: Final = 60 * NS_PER_S
ENGINE_START_NS_MAX: Final = 600 * NS_PER_S
ENGINE_START_NS_PER_BYTE: Final = 20
# While it works, the worker reports every second between steps. A silence of so many times the
# longest step that its measured speed allows means that it hangs: a machine that is shared or
# swaps explains the factor, and what is not measured (templates, grammars) the least.
ENGINE_SILENCE_STEPS: Final = 4
ENGINE_SILENCE_NS_MIN: Final = 20 * NS_PER_S
ENGINE_SILENCE_NS_MAX: Final = 600 * NS_PER_S
# A job that runs longer has outlived every deadline that a request can have.
ENGINE_JOB_NS_MAX: Final = DEADLINE_NS_MAX
# A killed process is gone at once, unless it waits for a disk that does not answer.
ENGINE_END_NS_MAX: Final = 10 * NS_PER_S
# Memory that a worker may take beyond half as much again as its need is estimated: the texts,
# grammars and outputs of its jobs. And what the stack and the allocator of a thread reserve.
ENGINE_SPARE_BYTES: Final = 512 * 1024 * 1024
ENGINE_THREAD_BYTES: Final = 16 * 1024 * 1024
# What a worker says of an error, for one line.
ENGINE_DETAIL_CHARS_MAX: Final = 320
ENGINE_HEARTBEAT_NS: Final = 1 * NS_PER_S
# A template is the model maker's program: sandboxed, but its loops are not bounded.
ENGINE_TEMPLATE_NS_MAX: Final = 2 * NS_PER_S
ENGINE_TEMPLATE_CHARS_MAX: Final = 4 * 1024 * 1024
ENGINE_RESTART_NS_MIN: Final = 200 * NS_PER_MS
ENGINE_RESTART_NS_MAX: Final = 30 * NS_PER_S
# A worker that died this often in this time would go on dying: it is left alone for a while.
ENGINE_CRASHES_MAX: Final = 3
ENGINE_CRASHES_NS: Final = 60 * NS_PER_S
ENGINE_WITHDRAWN_NS: Final = 600 * NS_PER_S
# Loading counts as time to the first token, and a requester gives up at CHUNK_TIMEOUT_NS.
ENGINE_COLD_START_NS_MAX: Final = 20 * NS_PER_S
ENGINE_MEMORY_MIB_MAX: Final = 16 * 1024 * 1024
# The end of the worker's stderr that is kept for a one-line diagnosis.
ENGINE_DIAGNOSIS_BYTES_MAX: Final = 4 * 1024
ENGINE_CALIBRATION_NS_MAX: Final = 3 * NS_PER_S
# Text that the daemon has not read yet; over it the worker pauses instead of decoding on.
ENGINE_OUTBOX_CHARS_MAX: Final = 256 * 1024
# Adapters of one model, each loaded beside it; a byte tells them apart.
ENGINE_ADAPTERS_MAX: Final = 16
ADAPTERS_MAX: Final = 64
# Steps with one adapter before another's jobs have theirs: switching costs ~1 ms.
ENGINE_ADAPTER_TURN_NS: Final = 20 * NS_PER_MS
# llama.cpp multiplies by it; what is trained is meant for about 1.
ADAPTER_SCALE_MILLI_MAX: Final = 10_000
# Texts of one embedding job, and their tokens together: as long as a long prompt takes.
ENGINE_EMBED_INPUTS_MAX: Final = 256
ENGINE_EMBED_TOKENS_MAX: Final = 65_536
# A step that embeds has scores for all of its tokens: 40 MB of a vocabulary of any size.
ENGINE_OUTPUT_NUMBERS_MAX: Final = 10 * 1024 * 1024
# Dimensions of a vector, as float32: the widest models have 16,384.
ENGINE_EMBED_BYTES_MAX: Final = 4 * 32_768
# --- remote engines -------------------------------------------------------------------------
REMOTES_MAX: Final = 16
REMOTE_URL_CHARS_MAX: Final = 512
REMOTE_KEY_CHARS_MAX: Final = 4_096
REMOTE_CONNECT_NS_MAX: Final = 5 * NS_PER_S
# No byte for this long: the requester has given up by then (CHUNK_TIMEOUT_NS).
REMOTE_SILENCE_NS_MAX: Final = 30 * NS_PER_S
# One event of a stream: a token, or a large chunk of an API that sends few.
REMOTE_EVENT_BYTES_MAX: Final = 256 * 1024
# A whole answer with its JSON around each token, ~300 B a token.
REMOTE_ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
# As much of an error's body as is looked at.
REMOTE_ERROR_BYTES_MAX: Final = 16 * 1024
REMOTE_ATTEMPTS_MAX: Final = 3
REMOTE_RETRY_NS: Final = 250 * NS_PER_MS
# A server that asks for a longer pause than this is as good as busy.
REMOTE_RETRY_AFTER_NS_MAX: Final = 2 * NS_PER_S
REMOTE_PROBE_NS_MIN: Final = 1 * NS_PER_S
REMOTE_PROBE_NS_MAX: Final = 60 * NS_PER_S
# Tokens that one re-check reads: its report takes ~40 bytes for each.
ENGINE_RECHECK_TOKENS_MAX: Final = 32_768
# Text in its report; with four bytes a character it still fits a frame.
ENGINE_RECHECK_CHARS_MAX: Final = 512 * 1024
# Rows of logits that a re-check takes in one step: 40 MB of a vocabulary of 152,000.
ENGINE_RECHECK_ROWS_MAX: Final = 64

# --- gateway: HTTP clients of this machine, or of a network that its operator chose ----------
# A prompt at its limit, every character escaped, and room for schemas and tools.
API_BODY_BYTES_MAX: Final = 4 * 1024 * 1024
# Requests that run at once; each is one of REQUESTS_OPEN_MAX.
API_REQUESTS_MAX: Final = 128
API_CONNECTIONS_MAX: Final = 512
# `n`: every choice is a job of its own.
API_CHOICES_MAX: Final = 8
# Texts that one request embeds, and those of a job of it: 16 vectors of 3,072 numbers each fit
# its answer.
API_TEXTS_PER_JOB: Final = 16
API_TEXTS_MAX: Final = API_CHOICES_MAX * API_TEXTS_PER_JOB
TOOLS_MAX: Final = 32
# Idempotency keys of a day, and the answers that they stand for.
API_KEYS_MAX: Final = 1_024
# Their requests, several where a key has choices or was retried; ~200 bytes each in a snapshot.
KEYED_REQUESTS_KEPT: Final = 4 * API_KEYS_MAX
KEYED_KEPT_NS: Final = 24 * 3_600 * NS_PER_S
API_KEY_BYTES_MAX: Final = 255
# Requests that failed and cost nothing, for who asks later what became of them; ~2 KB each.
API_FAILURES_KEPT: Final = 256
API_KEPT_BYTES_MAX: Final = 64 * 1024 * 1024
# Programs that use the tools at once, and how long one that says nothing is remembered.
MCP_SESSIONS_MAX: Final = 128
MCP_IDLE_S: Final = 600
# Calls in one JSON-RPC batch; they run one after the other.
RPC_BATCH_MAX: Final = 32
# Jobs in one answer of the history, ~450 bytes each: it has to fit a line of the control socket.
HISTORY_JOBS_MAX: Final = 1_000
# A client that takes nothing for so long has gone.
API_SEND_TIMEOUT_S: Final = 60

# --- constraints: a grammar is somebody else's program, and runs at every token -------------
# A chain of groups is read by recursion.
GRAMMAR_NESTING_MAX: Final = 50
# `x{1000}` is a thousand elements, and a thousand of those are a million.
GRAMMAR_REPETITIONS_MAX: Final = 1_000
# Characters, references and alternatives, repetitions written out; ~100 bytes each.
GRAMMAR_ELEMENTS_MAX: Final = 65_536
# Rules open inside each other while text is matched, such as arrays in arrays.
GRAMMAR_STACK_MAX: Final = 256
# Ways to read the text so far that are followed at once; a usual grammar has under 20.
GRAMMAR_READINGS_MAX: Final = 2_048
# What one job's matcher remembers; a JSON document has a few hundred states.
GRAMMAR_STATES_MAX: Final = 8_192
GRAMMAR_NODES_MAX: Final = 131_072
# Elements looked at, ~0.2 us each: at once, and for each token in the long run, so that one job
# can't hold up the others by more than ~0.1 s, nor by 10 ms at every token.
GRAMMAR_WORK_MAX: Final = 500_000
GRAMMAR_WORK_PER_TOKEN: Final = 50_000
# Subschemas and values of a JSON schema, nested so deep.
SCHEMA_NODES_MAX: Final = 2_048
SCHEMA_NESTING_MAX: Final = 64
