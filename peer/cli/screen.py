"""What a person sees while a request runs: bids, the award, the answer, the bill."""

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from protocol.units import format_credits

Json = dict[str, Any]

PIPE_COLUMNS = 160
_ROLES = {
    "race": ", in a race",
    "hedge": " too: the first is late",
    "continue": ", to go on with the answer",
}


def short(identity: str) -> str:
    """A peer id or digest that fits a line: the libp2p prefix says nothing, the end does."""
    return identity if len(identity) <= 12 else f"…{identity[-8:]}"


class Listing(Table):
    """A table that cuts no cell: where the terminal is narrow, they go on in the next line."""

    def __init__(self, title: str) -> None:
        super().__init__(title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False)
        self.pad_edge, self.collapse_padding = False, True

    def add_column(self, *header: Any, **options: Any) -> None:
        """As Table's."""
        super().add_column(*header, overflow="fold", **options)


def table_console() -> Console:
    """For tables: as wide as the terminal, and wide enough for all in a file or a pipe."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PIPE_COLUMNS)


def bids_table(bids: list[Json], winner: str | None) -> Table:
    """The bids, best score first, the winner marked."""
    table = Listing("bids")
    table.add_column("")
    table.add_column("provider")
    table.add_column("quant")
    for name in ("in /1M", "out /1M", "first token", "tokens/s", "at most"):
        table.add_column(name, justify="right")
    for bid in sorted(bids, key=lambda bid: (bid["refused"] is not None, bid["score"])):
        mark = "✓" if bid["provider"] == winner else ("✗" if bid["refused"] else "")
        table.add_row(
            mark,
            short(bid["provider"]),
            bid["quantization"],
            format_credits(bid["input_price_ucr"]),
            format_credits(bid["output_price_ucr"]),
            f"{bid['ttft_ms']:.0f} ms",
            f"{bid['tokens_per_s']:.0f}",
            format_credits(bid["cost_max_ucr"]),
        )
    return table


class Screen:
    """Prints a request's events: progress on stderr, the answer alone on stdout.

    `explains` is set where a daemon can be asked about the request afterwards.
    """

    def __init__(self) -> None:
        self.progress = Console(stderr=True, highlight=False)
        self._answer = Console(highlight=False, markup=False, soft_wrap=True)
        self._bids: list[Json] = []
        self._open_line = False
        self._request_id = ""
        self.explains = False

    def show(self, event: Json) -> None:
        """Print one event, if it says something to a person."""
        kind = event["event"]
        if kind == "published":
            self._request_id = event["request_id"]
        elif kind == "bid":
            self._bids.append(event)
            refused = f" ({event['refused']})" if event["refused"] else ""
            self.progress.print(
                f"+{event['at_ms']:.0f} ms  bid from {short(event['provider'])}{refused}"
            )
        elif kind == "award":
            if self._bids:
                self.progress.print(bids_table(self._bids, event["provider"]))
            why = _ROLES.get(event["role"], "" if self._bids else ", by its standing offer")
            self.progress.print(
                f"+{event['at_ms']:.0f} ms  awarded to {short(event['provider'])}{why}"
            )
        elif kind == "text":
            self._answer.print(event["text"], end="")
            self._open_line = True
        elif kind == "retry":
            self.progress.print(f"{short(event['provider'])} failed: {event['code']}; next bid")
        elif kind == "auction":
            self.progress.print("all that bid failed; a second auction, for everybody else")
        elif kind == "continuing":
            # On stderr alone: the answer's line goes on.
            self.progress.print(
                f"\n{short(event['provider'])} broke off: {event['code']}; "
                f"{event['output_tokens']} tokens are kept and paid, going on elsewhere"
            )
        elif kind == "quote":
            self._quote(event["bids"])
        elif kind == "done":
            self.end_answer()
            self._bill(event)
        elif kind == "failed":
            self.end_answer()
        elif kind == "settled":
            self.progress.print(
                f"channel closed: {format_credits(event['settled_ucr'])} credits settled, "
                f"{format_credits(event['refund_ucr'])} back"
            )

    def end_answer(self) -> None:
        """Finish the answer's last line."""
        if self._open_line:
            self._answer.print()
            self._open_line = False

    def _quote(self, bids: list[Json]) -> None:
        self.progress.print(bids_table(bids, bids[0]["provider"]))
        self._answer.print(f"{format_credits(bids[0]['cost_max_ucr'])} credits at most")

    def _bill(self, event: Json) -> None:
        receipt = event["receipt"]
        lanes = [receipt, *event["parts"]]
        read = sum(lane["input_tokens"] for lane in lanes)
        made = sum(lane["output_tokens"] for lane in lanes)
        self.progress.print(
            f"{read} tokens in, {made} out · {format_credits(event['cost_ucr'])} credits · "
            f"provider {short(receipt['payee'])} · {event['at_ms'] / 1000:.2f} s\n"
            f"receipt {receipt['receipt_id']}"
        )
        if self.explains:
            self.progress.print(f"why this provider: peerd explain {self._request_id[:16]}")
