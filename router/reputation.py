"""What this node knows of providers from its own jobs: a fold of its log, in integers.

One Standing a provider and model. Jobs count as a Beta distribution's evidence, in 1/1000 of a
job, halved every HALF_LIFE_NS and held under EVIDENCE_MAX, so that what a provider did last
counts most. Nobody else's word goes in. Rule: router/README.md, "Reputation".
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from protocol import limits, records
from protocol.fields import Outcome
from protocol.units import NS_PER_MS, NS_PER_S
from router.counting import AS_OTHERS, MILLI, PROMPT_EXTRA_BYTES, Counted, Counts, usual_milli

UNIT: Final = 1_000  # a job, a whole share, a full score
DAY_NS: Final = 86_400 * NS_PER_S
HALF_LIFE_NS: Final = 7 * DAY_NS
EVIDENCE_MAX: Final = 64 * UNIT
# What one good and one bad job say before any: a provider that nobody knows has 500.
PRIOR: Final = UNIT
# Below this score, with so much evidence, a provider gets no job.
EJECTED_BELOW: Final = 250
EVIDENCE_MIN: Final = 3 * UNIT
# Fewer receipts than this make a newcomer.
NEWCOMER_JOBS: Final = 3

_BAD: Final = {
    Outcome.REFUSED: UNIT // 4,
    Outcome.FAILED: UNIT,
    Outcome.LIED: 8 * UNIT,
    Outcome.UNREACHED: UNIT // 2,
}
_FEEDBACK: Final = UNIT
_GOOD_VERDICT: Final = 1
# A first token counts as kept up to a quarter and a round trip after its promise.
_GRACE_NS: Final = 100 * NS_PER_MS


def decayed(value: int, age_ns: int) -> int:
    """`value` after `age_ns`: halved each half-life, in a straight line between."""
    halvings, rest_ns = divmod(max(0, age_ns), HALF_LIFE_NS)
    value >>= min(halvings, 63)
    return value - value * rest_ns // (2 * HALF_LIFE_NS)


def kept_share(reached: int, promised: int) -> int:
    """How much of a promise was kept, in 1/1000; more than all of it is all."""
    return min(UNIT, reached * UNIT // promised) if promised > 0 else UNIT


@dataclass(slots=True)
class Standing:
    """A provider's record with one model. `good` and `bad` are decayed evidence in 1/1000 of a
    job, `up` and `down` of being there; the `_kept` shares are moving averages in 1/1000.
    `read` and `made` are the tokens that it billed for prompts and answers."""

    good: int = 0
    bad: int = 0
    up: int = 0
    down: int = 0
    ttft_kept: int = UNIT
    speed_kept: int = UNIT
    completed: int = 0
    refused: int = 0
    failed: int = 0
    lied: int = 0
    unreached: int = 0
    liked: int = 0
    disliked: int = 0
    cost_max_ucr: int = 0
    paid_ucr: int = 0
    updated_at_ns: int = 0
    read: Counted = field(default_factory=Counted)
    made: Counted = field(default_factory=Counted)

    def at(self, now_ns: int) -> tuple[int, int, int, int]:
        """`good`, `bad`, `up` and `down` as they count at `now_ns`."""
        age_ns = now_ns - self.updated_at_ns
        values = (self.good, self.bad, self.up, self.down)
        good, bad, up, down = (decayed(value, age_ns) for value in values)
        return good, bad, up, down

    def score(self, now_ns: int) -> int:
        """0 to 1000: success counts for 7 parts, promises kept and being there for 1 each."""
        good, bad, up, down = self.at(now_ns)
        success = (good + PRIOR) * UNIT // (good + bad + 2 * PRIOR)
        uptime = (up + PRIOR) * UNIT // (up + down + PRIOR)
        kept = 7 * UNIT + self.ttft_kept + self.speed_kept + uptime
        return success * kept // (10 * UNIT)

    def is_ejected(self, now_ns: int) -> bool:
        """Whether it gets no job now; evidence fades, so nobody is ejected for ever."""
        good, bad, _, _ = self.at(now_ns)
        return good + bad >= EVIDENCE_MIN and self.score(now_ns) < EJECTED_BELOW

    def counts(self, usual: Counts) -> Counts:
        """How many times the `usual` tokens it counts."""
        read = self.read.factor_milli(usual.input_milli)
        made = self.made.factor_milli(usual.output_milli)
        return AS_OTHERS if read == made == MILLI else Counts(read, made)

    @property
    def is_newcomer(self) -> bool:
        """Too few receipts to tell, and nothing against it."""
        return self.completed < NEWCOMER_JOBS and not self.bad

    def _age(self, now_ns: int) -> None:
        for counted in (self.read, self.made):
            counted.tokens_milli = decayed(counted.tokens_milli, now_ns - self.updated_at_ns)
            counted.text_bytes = decayed(counted.text_bytes, now_ns - self.updated_at_ns)
        self.good, self.bad, self.up, self.down = self.at(now_ns)
        self.updated_at_ns = max(self.updated_at_ns, now_ns)

    def _hold(self) -> None:
        total = self.good + self.bad
        if total > EVIDENCE_MAX:
            self.good = self.good * EVIDENCE_MAX // total
            self.bad = self.bad * EVIDENCE_MAX // total

    def judge(self, record: records.AwardJudged) -> None:
        """Count one award."""
        self._age(record.judged_at_ns)
        self.cost_max_ucr += record.cost_max_ucr
        self.paid_ucr += record.paid_ucr
        match record.outcome:
            case Outcome.DELIVERED:
                self.completed += 1
                self.good += UNIT
            case Outcome.REFUSED:
                self.refused += 1
            case Outcome.FAILED:
                self.failed += 1
            case Outcome.LIED:
                self.lied += 1
                self.good = 0  # an earned name is no licence
            case Outcome.UNREACHED:
                self.unreached += 1
            case Outcome.WITHDRAWN:
                pass
        self.bad += _BAD.get(record.outcome, 0)
        if record.outcome is Outcome.UNREACHED:
            self.down += UNIT
        elif record.outcome is not Outcome.WITHDRAWN:
            self.up += UNIT
        self._hold()
        self._weigh_promises(record)
        if record.input_tokens and record.prompt_bytes:
            self.read.add(record.input_tokens, record.prompt_bytes + PROMPT_EXTRA_BYTES)
        self.made.add(record.output_tokens, record.text_bytes)

    def _weigh_promises(self, record: records.AwardJudged) -> None:
        if record.ttft_ns:
            allowed_ns = record.promised_ttft_ns * 5 // 4 + _GRACE_NS
            self.ttft_kept = _moved(self.ttft_kept, kept_share(allowed_ns, record.ttft_ns))
        if record.tokens_per_s_milli:
            promised = record.promised_tokens_per_s_milli
            share = kept_share(record.tokens_per_s_milli, promised)
            self.speed_kept = _moved(self.speed_kept, share)

    def heed(self, verdict: int, sign: int, now_ns: int) -> None:
        """Count a user's verdict, or with `sign` -1 take it back."""
        self._age(now_ns)
        if verdict == _GOOD_VERDICT:
            self.liked += sign
            self.good = max(0, self.good + sign * _FEEDBACK)
        else:
            # What was delivered is worth nothing then: a failure in place of the job.
            self.disliked += sign
            self.good = max(0, self.good - sign * _FEEDBACK)
            self.bad = max(0, self.bad + sign * _FEEDBACK)
        self._hold()


def usual(sellers: Sequence[Standing]) -> Counts:
    """Tokens a KiB, in 1/1000, as most of one model's sellers count them; 0: not known."""
    read, made = ([one.read for one in sellers], [one.made for one in sellers])
    return Counts(usual_milli(read), usual_milli(made))


def _moved(average: int, sample: int) -> int:
    """The average over about the last eight."""
    return (7 * average + sample + 4) // 8


@dataclass(slots=True)
class Rated:
    """Whose answer a receipt is for; `verdict` 0 while its user said nothing."""

    provider: bytes
    model: str
    verdict: int = 0


@dataclass(slots=True)
class Reputation:
    """All standings of this node's log, its last receipts, and what it spent a day."""

    standings: dict[tuple[bytes, str], Standing] = field(default_factory=dict)
    rated: dict[bytes, Rated] = field(default_factory=dict)
    spent_by_day: dict[int, int] = field(default_factory=dict)

    def apply(self, record: Any) -> bool:
        """Fold one record in; False when it is none of these."""
        match record:
            case records.AwardJudged():
                self._judge(record)
            case records.FeedbackGiven():
                self._heed(record)
            case records.AwardMade():
                pass  # why it was made says nothing of the provider
            case _:
                return False
        return True

    def standing(self, provider: bytes, model: str) -> Standing:
        """What is known of a provider; that of a stranger when nothing is."""
        return self.standings.get((provider, model)) or Standing()

    def sellers(self, model: str) -> list[Standing]:
        """Of all that are known to sell a model."""
        return [one for (_, name), one in self.standings.items() if name == model]

    def spent_ucr(self, now_ns: int) -> int:
        """What the jobs that ended on this UTC day cost."""
        return self.spent_by_day.get(now_ns // DAY_NS, 0)

    def _touch(self, key: tuple[bytes, str]) -> Standing:
        standing = self.standings.pop(key, None) or Standing()
        self.standings[key] = standing
        if len(self.standings) > limits.STANDINGS_KEPT:
            del self.standings[next(iter(self.standings))]
        return standing

    def _judge(self, record: records.AwardJudged) -> None:
        self._touch((record.provider, record.model)).judge(record)
        if record.receipt_id:
            self.rated[record.receipt_id] = Rated(record.provider, record.model)
            if len(self.rated) > limits.RATED_KEPT:
                del self.rated[next(iter(self.rated))]
        if record.paid_ucr:
            day = record.judged_at_ns // DAY_NS
            self.spent_by_day[day] = self.spent_by_day.get(day, 0) + record.paid_ucr
            if len(self.spent_by_day) > limits.SPENT_DAYS_KEPT:
                del self.spent_by_day[min(self.spent_by_day)]

    def _heed(self, record: records.FeedbackGiven) -> None:
        rated = self.rated.get(record.receipt_id)
        if rated is None or rated.verdict == record.verdict:
            return
        standing = self._touch((rated.provider, rated.model))
        if rated.verdict:
            standing.heed(rated.verdict, -1, record.given_at_ns)
        standing.heed(record.verdict, 1, record.given_at_ns)
        rated.verdict = record.verdict
