"""When requests come and what they ask for: arrivals, lengths, models, caps.

Each group has streams of its own, so that a change of one group leaves the others as they were.
"""

import csv
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from protocol import limits
from protocol.errors import ConfigError
from protocol.fields import (
    ChatMessage,
    GenerationParameters,
    InferenceType,
    Prompt,
    RequestFilter,
    Strategy,
)
from protocol.units import NS_PER_MS, NS_PER_S, cost_ucr
from router.actions import Ask
from router.choosing import Choice
from router.quoting import input_tokens_bucket
from simnet.entropy import Entropy
from simnet.market.inference import (
    TOKEN_MILLIBYTES,
    TOKEN_MILLIBYTES_MAX,
    TOKEN_MILLIBYTES_MIN,
    filler,
)
from simnet.scenario import Scenario
from simnet.scenario.market import Model, Requesters, Tokens
from simnet.text_file import text_of

TRACE_ROWS_MAX = 10_000_000
TRACE_ROW = "at_s[,input_tokens,output_tokens[,model]] in the order of time"


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request to come. Lengths of 0 are drawn; `model` empty too."""

    at_ns: int
    input_tokens: int = 0
    output_tokens: int = 0
    model: str = ""


def arrivals(group: Requesters, duration_ns: int, seed: int, beside: Path) -> Iterator[Arrival]:
    """The group's requests in the order of time, in ns from the first moment."""
    if group.arrivals == "trace":
        trace = read_trace(beside / group.trace)
        yield from (arrival for arrival in trace if arrival.at_ns < duration_ns)
        return
    draw = Entropy(seed, f"arrivals {group.name}")
    bursts = group.arrivals == "bursts"
    rate = group.requests_per_s / group.burst_size if bursts else group.requests_per_s
    swing = group.day_swing_permille / 1_000 if group.arrivals == "diurnal" else 0.0
    peak = rate * (1 + swing)
    at_ns = 0
    while True:
        at_ns += round(draw.exponential(NS_PER_S / peak))
        if at_ns >= duration_ns:
            return
        if swing:
            # Thinned from the busiest moment's rate; the day starts at its average, rising.
            angle = 2 * math.pi * (at_ns / NS_PER_S) / group.day_s
            if draw.unit() * (1 + swing) > 1 + swing * math.sin(angle):
                continue
        for _ in range(group.burst_size if bursts else 1):
            yield Arrival(at_ns)


def read_trace(path: Path, models: Collection[str] = ()) -> Iterator[Arrival]:
    """The requests of a CSV file; of `models` alone, if there are any. ConfigError: the line."""
    reader = csv.reader(text_of(path).splitlines())
    last_ns = 0
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise _expected(path, reader.line_num, f"{TRACE_ROW}: {error}") from error
        if row is None:
            return
        number = reader.line_num
        if not row or row[0].lstrip().startswith("#"):
            continue
        if number == 1 and row[0].strip() == "at_s":
            continue
        if number > TRACE_ROWS_MAX:
            raise ConfigError("config.bad_value", f"{path}: over {TRACE_ROWS_MAX} lines")
        arrival = _arrival(row)
        if arrival is None or arrival.at_ns < last_ns:
            raise _expected(path, number, f"{TRACE_ROW}, not {','.join(row)[:60]!r}")
        if models and arrival.model and arrival.model not in models:
            raise _expected(path, number, f"a model of {', '.join(models)}, not {row[3][:40]!r}")
        last_ns = arrival.at_ns
        yield arrival


def _arrival(row: list[str]) -> Arrival | None:
    cells = [cell.strip() for cell in row] + ["", "", ""]
    try:
        at_ns = round(float(cells[0]) * NS_PER_S)
        lengths = [int(cell or 0) for cell in cells[1:3]]
    except (ValueError, OverflowError):
        return None
    return None if min(lengths) < 0 else Arrival(at_ns, lengths[0], lengths[1], cells[3])


def _expected(path: Path, line: int, wanted: str) -> ConfigError:
    return ConfigError("config.bad_value", f"{path}: line {line}: expected {wanted}")


def draw_tokens(draw: Entropy, tokens: Tokens) -> int:
    """A length: log-normal about the median, at most the longest."""
    if not tokens.spread_permille:
        return min(tokens.median, tokens.max)
    sigma = tokens.spread_permille / 1_000
    return max(1, min(tokens.max, round(tokens.median * math.exp(sigma * draw.normal()))))


class Asking:
    """Makes the asks of one group; paths in the scenario start from `beside`."""

    def __init__(self, scenario: Scenario, group: Requesters, seed: int, beside: Path) -> None:
        self.group = group
        self._duration_ns, self._seed = scenario.duration_s * NS_PER_S, seed
        self._beside = beside
        self._models = {model.name: model for model in scenario.models}
        self._names = [name for name in self._models if not group.models or name in group.models]
        self._weights = [group.models.get(name, 0) if group.models else 1 for name in self._names]
        self._draw = Entropy(seed, f"asks {group.name}")
        self._texts = Entropy(seed, f"texts {group.name}")
        self._choice = Choice(
            reputation_weight=group.reputation_weight,
            race=group.race,
            hedge_factor_milli=10 * group.hedge_percent,
            hedge_floor_ns=group.hedge_floor_ms * NS_PER_MS,
            elsewhere=group.fallbacks,
            fallbacks=group.fallbacks,
        )

    def arrivals(self) -> Iterator[Arrival]:
        """The group's requests, in the order of time."""
        return arrivals(self.group, self._duration_ns, self._seed, self._beside)

    def make(self, number: int, arrival: Arrival) -> tuple[Ask, int]:
        """The ask, and how many tokens its answer will have."""
        group, draw = self.group, self._draw
        picked = self._names[draw.pick(self._weights)]
        model = self._models.get(arrival.model or picked)
        if model is None:
            raise ConfigError("config.bad_value", f"the trace asks for model {arrival.model!r}")
        drawn = draw_tokens(draw, group.input_tokens), draw_tokens(draw, group.output_tokens)
        output_tokens = arrival.output_tokens or drawn[1]
        allowed = output_tokens * group.output_allowance_permille // 1_000
        allowed = min(allowed, limits.OUTPUT_TOKENS_MAX, model.context_tokens // 2)
        input_tokens = min(arrival.input_tokens or drawn[0], model.context_tokens - allowed - 8)
        text = filler(max(1, input_tokens), self._token_millibytes())
        message = ChatMessage("user", text)
        prompt = Prompt(InferenceType.CHAT, (message,))
        ask = Ask(
            ask_id=number,
            model=model.name,
            prompt=prompt,
            parameters=GenerationParameters(allowed, 0, 0, 1_000, number & limits.U32_MAX, ()),
            price_max_ucr=self._price_max_ucr(model, prompt, allowed),
            timeout_ns=group.timeout_s * NS_PER_S,
            bid_window_ns=group.bid_window_ms * NS_PER_MS,
            strategy=Strategy(group.price_weight, 1_000 - group.price_weight),
            filters=RequestFilter(b"", (), ()),
            deposit_ucr=group.deposit_ucr,
            advance_max_ucr=group.advance_ucr,
            use_offers=group.use_offers,
            early_close_bids=group.early_close_bids,
            choice=self._choice,
        )
        return ask, min(output_tokens, allowed)

    def _token_millibytes(self) -> int:
        """What language a request is in, or code: how long its tokens are."""
        spread = self.group.text_spread_permille
        if not spread:
            return TOKEN_MILLIBYTES
        size = round(TOKEN_MILLIBYTES * math.exp(spread / 1_000 * self._texts.normal()))
        return max(TOKEN_MILLIBYTES_MIN, min(TOKEN_MILLIBYTES_MAX, size))

    def _price_max_ucr(self, model: Model, prompt: Prompt, output_tokens: int) -> int:
        """The cap: of what the worst case would usually cost."""
        usual = cost_ucr(
            input_tokens_bucket(prompt),
            output_tokens,
            model.input_price_ucr,
            model.output_price_ucr,
        )
        return max(1, usual * self.group.price_max_permille // 1_000)
