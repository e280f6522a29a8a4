"""The tables of a run: their columns, types and meaning, in one place.

Each is a Parquet file of the run directory. Times are ns of virtual time since the start of the
run, durations ns, amounts ucr; a node is its number, -1 for none. A request is named by its ask:
its number in the run, from 1.
"""

from typing import Final

INT, BYTE, TEXT, FLAG = "int64", "uint8", "string", "bool"

Columns = tuple[tuple[str, str, str], ...]

TABLES: Final[dict[str, Columns]] = {
    "nodes": (
        ("node", INT, "its number"),
        ("role", TEXT, "provider, requester or relay"),
        ("group", TEXT, "the scenario's group"),
        ("region", TEXT, "where it is"),
        ("access", TEXT, "class of its own link"),
        ("degree", INT, "connections"),
        ("gpu", TEXT, "a provider's class of machine"),
        ("models", TEXT, "what it sells, by commas"),
        ("adversary", TEXT, "what it does against the rules; empty when honest"),
    ),
    "messages": (
        ("message", INT, "number of a gossip message"),
        ("kind", TEXT, "type of what is in it"),
        ("origin", INT, "who published it"),
        ("at_ns", INT, "when"),
        ("bytes", INT, "its length"),
        ("reached", INT, "nodes whose admission let it through"),
        ("duplicates", INT, "copies that came to nodes that had it"),
    ),
    "deliveries": (
        ("message", INT, "number of the gossip message"),
        ("node", INT, "who got it"),
        ("source", INT, "from whom"),
        ("hops", BYTE, "how many hops from its origin"),
        ("latency_ns", INT, "from its publication until it was admitted"),
    ),
    "requests": (
        ("ask", INT, "number of the request"),
        ("node", INT, "who asks"),
        ("group", TEXT, "the asker's group"),
        ("model", TEXT, "the model"),
        ("at_ns", INT, "when it was asked"),
        ("input_tokens", INT, "length of the prompt"),
        ("output_tokens", INT, "length of the answer, if nothing ends it"),
        ("output_tokens_max", INT, "what was allowed"),
        ("price_max_ucr", INT, "the cap"),
        ("skipped", FLAG, "not asked: the budget is spent"),
    ),
    "bids": (
        ("ask", INT, "number of the request"),
        ("provider", INT, "who bids"),
        ("at_ns", INT, "since the request was published"),
        ("input_price_ucr", INT, "for 1,000,000 tokens"),
        ("output_price_ucr", INT, "for 1,000,000 tokens"),
        ("ttft_ns", INT, "promised time to the first token"),
        ("tokens_per_s_milli", INT, "promised tokens in 1,000 s"),
        ("cost_max_ucr", INT, "worst case of this job"),
        ("score", INT, "lower is better"),
        ("code", TEXT, "why it does not count; empty when it does"),
    ),
    "awards": (
        ("ask", INT, "number of the request"),
        ("provider", INT, "to whom"),
        ("attempt", INT, "from 1"),
        ("at_ns", INT, "since the request was published"),
        ("opened_channel", FLAG, "a channel was opened with it"),
        ("deposit_ucr", INT, "the channel's"),
        ("regret_permille", INT, "how much worse it scores than the best seller then"),
    ),
    "jobs": (
        ("ask", INT, "number of the request"),
        ("node", INT, "who asked"),
        ("group", TEXT, "the asker's group"),
        ("model", TEXT, "the model"),
        ("provider", INT, "of the last award"),
        ("outcome", TEXT, "done, failed or open (when the run ended)"),
        ("code", TEXT, "why it failed"),
        ("at_ns", INT, "when it was asked"),
        ("bids", INT, "bids that came"),
        ("attempts", INT, "awards that went out"),
        ("award_ns", INT, "request to the last award; -1 for none"),
        ("first_text_ns", INT, "request to the first text; -1 for none"),
        ("end_ns", INT, "request to its end"),
        ("input_tokens", INT, "as the receipt says"),
        ("output_tokens", INT, "as the receipt says"),
        ("paid_ucr", INT, "price of what was delivered"),
    ),
    "settlements": (
        ("at_ns", INT, "when the payer had the payee's agreement"),
        ("payer", INT, "who paid"),
        ("payee", INT, "who earned"),
        ("settled_ucr", INT, "what the payee got"),
        ("refund_ucr", INT, "what came back of the deposit"),
    ),
    "series": (
        ("at_ns", INT, "when"),
        ("node", INT, "which"),
        ("alive", FLAG, "whether it runs"),
        ("mesh", INT, "peers in its mesh"),
        ("jobs", INT, "jobs on its machine"),
        ("machine_busy_permille", INT, "places in use"),
        ("output_price_ucr", INT, "of its first model; 0 for none"),
        ("cpu_permille", INT, "processor in use since the last row"),
        ("channels", INT, "open channels"),
        ("spent_ucr", INT, "as payer"),
        ("earned_ucr", INT, "as payee"),
        ("locked_ucr", INT, "of its deposits, in open channels"),
        ("unpaid_ucr", INT, "delivered, and no voucher for it yet"),
    ),
}
