"""What happens when a step finds no room in the context: idle beginnings go, then young jobs.

Each place has cells of its own, which is faster than sharing them, and a job's tokens fit one:
so this is rare. It always ends: whoever loses a place is not let in again before another has
finished. Must not know queues. Rule: engine/README.md, "A full context".
"""

from itertools import chain

from engine.native import ContextFull, NativeModel, Row
from engine.places import Places
from engine.sequence import Sequence


def compute(
    model: NativeModel, places: Places, running: list[Sequence], rows: list[Row]
) -> tuple[list[Row], list[Sequence]]:
    """Compute a step: the rows that were, and who lost its place to them, the youngest first.

    They leave `running` and begin again: what they had been fed they are fed once more. When
    nothing fits, not even the oldest alone, all of them have lost, and no row was computed.
    """
    losers: list[Sequence] = []
    while rows:
        try:
            model.decode(rows)
            break
        except ContextFull:
            if places.evict():
                continue
        youngest = running.pop()
        place = youngest.place
        unread = chain.from_iterable(row.tokens for row in rows if row.sequence == place)
        youngest.rewind(places.give_up(place), unread)
        rows = [row for row in rows if row.sequence != place]
        losers.append(youngest)
    return rows, losers
