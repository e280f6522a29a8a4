"""Units of time and money, and the one cost formula.

Integers only. 1 credit = 1,000,000 ucr. Prices are ucr per 1,000,000 tokens. Knows nothing else.
"""

from typing import NewType

Ns = NewType("Ns", int)
Ucr = NewType("Ucr", int)

UCR_PER_CREDIT = 1_000_000
TOKENS_PER_PRICE = 1_000_000

NS_PER_US = 1_000
NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000


def cost_ucr(
    input_tokens: int, output_tokens: int, input_price_ucr: int, output_price_ucr: int
) -> Ucr:
    """Cost in ucr of a job, rounded up once, on the total.

    Prices are ucr per 1,000,000 tokens; all arguments are >= 0. 1,500 in and 500 out at
    15 and 60 credits per million cost 52,500 ucr.
    """
    total = input_tokens * input_price_ucr + output_tokens * output_price_ucr
    return Ucr(-(-total // TOKENS_PER_PRICE))


def format_credits(ucr: int) -> str:
    """An amount in ucr as credits with exact decimals: 52500 -> "0.0525", 1000000 -> "1"."""
    sign = "-" if ucr < 0 else ""
    whole, part = divmod(abs(ucr), UCR_PER_CREDIT)
    if not part:
        return f"{sign}{whole}"
    return f"{sign}{whole}.{part:06d}".rstrip("0")


def parse_credits(text: str) -> Ucr:
    """The inverse of `format_credits` for amounts >= 0; ValueError on anything else."""
    whole, _, part = text.strip().partition(".")
    digits_ok = whole.isascii() and whole.isdigit() and len(whole) <= 12
    part_ok = len(part) <= 6 and (not part or (part.isascii() and part.isdigit()))
    if not digits_ok or not part_ok:
        raise ValueError(f"{text!r} is not an amount in credits, such as 0.25")
    return Ucr(int(whole) * UCR_PER_CREDIT + int(part.ljust(6, "0")))


def milliseconds(duration_ns: int) -> float:
    """A duration for people and reports, in ms with three decimals."""
    return round(duration_ns / NS_PER_MS, 3)
