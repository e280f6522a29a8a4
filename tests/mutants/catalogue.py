"""The mutants: each breaks one rule that money or the log hangs on, and names who should see it.

`old` occurs exactly once in its file; a change there means to look at the mutant too.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Mutant:
    """One line made wrong; `tests` are the files of which one has to fail."""

    name: str
    why: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


_WINDOW = "tests/router/test_window.py"
_MARKET = "tests/simnet/test_market_machine.py"
_PAIR = "tests/simnet/test_pair_machine.py"
_CHEQUES = ("tests/router/test_cheques.py", "tests/router/test_cheque_machine.py")
_QUORUM = ("tests/router/test_quorum.py", "tests/router/test_quorum_machine.py")

MUTANTS: Final = (
    Mutant(
        "lazy reserve",
        "a chunk leaves without a record that says so: after a crash W is lent again",
        "router/payee.py",
        "self._context.append(Reserved(channel.cid, lane.lane, target))",
        "lane.reserved_ucr = target",
        (_WINDOW, _PAIR),
    ),
    Mutant(
        "window twice",
        "the payee sends 2 W ahead of what is paid (I3)",
        "router/payee.py",
        "return min(channel.total_ucr + window, channel.deposit_ucr)",
        "return min(channel.total_ucr + 2 * window, channel.deposit_ucr)",
        (_WINDOW, _PAIR),
    ),
    Mutant(
        "accept lower total",
        "an old voucher replaces a better one (I5)",
        "router/payee.py",
        "if voucher.total_ucr <= best_ucr:",
        "if voucher.total_ucr < 0:",
        ("tests/router/test_dishonest_payer.py",),
    ),
    Mutant(
        "close below what is due",
        "the payer closes at what it likes",
        "router/payee.py",
        "if message.total_ucr < channel.due_ucr:  # more",
        "if message.total_ucr < 0:  # more",
        ("tests/router/test_dishonest_payer.py",),
    ),
    Mutant(
        "over the deposit",
        "the payer signs more than it put in (I1)",
        "router/payer.py",
        "target = min(target_ucr, most, channel.deposit_ucr)",
        "target = min(target_ucr, most)",
        (_WINDOW, "tests/router/test_top_ups.py", "tests/router/test_channels.py", _PAIR),
    ),
    Mutant(
        "over the advance",
        "the payer signs more than A ahead of what it received (I4)",
        "router/payer.py",
        "target = min(target_ucr, most, channel.deposit_ucr)",
        "target = min(target_ucr, channel.deposit_ucr)",
        (_WINDOW, "tests/router/test_channels.py", _PAIR),
    ),
    Mutant(
        "voucher without a record",
        "what was signed is not in the log (I2)",
        "router/payer.py",
        "self._context.append(VoucherIssued(channel.cid, target, channel.claims()))",
        "self._context.ledger.apply(VoucherIssued(channel.cid, target, channel.claims()))",
        ("tests/simnet/test_write_ahead.py", _PAIR),
    ),
    Mutant(
        "send before sync",
        "what stands behind a record leaves before the record is durable",
        "peer/driver.py",
        "elif not self._waiting and self._watermark <= self._journal.durable_sequence:",
        "elif True:",
        ("tests/peer/test_driver.py",),
    ),
    Mutant(
        "send on the next stream",
        "what waited for the disk comes out on a stream that it was not made for",
        "peer/driver.py",
        "isinstance(action, Send | CloseSession) and action.session == ended",
        "False",
        ("tests/peer/test_driver.py",),
    ),
    Mutant(
        "retry fsync",
        "after a failed sync the next one succeeds, though the data is gone",
        "protocol/segments.py",
        "        self._disk.fdatasync(self._handle)\n        self._offset += len(data)",
        "        try:\n"
        "            self._disk.fdatasync(self._handle)\n"
        "        except OSError:\n"
        "            self._disk.fdatasync(self._handle)\n"
        "        self._offset += len(data)",
        ("tests/peer/test_journal_faults.py", "tests/peer/test_journal_crashes.py"),
    ),
    Mutant(
        "go on after a failed commit",
        "a log that failed once takes more records",
        "peer/journal.py",
        "            self._failure = failure\n",
        "            self._failure = None\n",
        ("tests/peer/test_journal_faults.py", "tests/peer/test_journal.py"),
    ),
    Mutant(
        "skip chain check",
        "records can be swapped for others with a good checksum",
        "protocol/log.py",
        "if blake2b(body, digest_size=HEAD_BYTES, key=head).digest() != chain:",
        "if False:",
        ("tests/protocol/test_log.py",),
    ),
    Mutant(
        "a hole is a torn tail",
        "damage in the middle of the log cuts off all that follows, silently",
        "protocol/log.py",
        "        if later is not None:\n",
        "        if False:\n",
        ("tests/protocol/test_log.py",),
    ),
    Mutant(
        "rounding down",
        "the payee gives a part of each price away",
        "protocol/units.py",
        "return Ucr(-(-total // TOKENS_PER_PRICE))",
        "return Ucr(total // TOKENS_PER_PRICE)",
        ("tests/protocol/test_units.py",),
    ),
    Mutant(
        "resume at another price",
        "the chunks that come again are dearer",
        "router/serving.py",
        "            for chunk in self._unsent(channel, lane, claim) or ():\n"
        "                self._context.send(session, chunk)\n",
        "            for chunk in self._unsent(channel, lane, claim) or ():\n"
        "                chunk = Chunk(*[getattr(chunk, name) for name in chunk.__slots__])\n"
        '                object.__setattr__(chunk, "due_ucr", chunk.due_ucr + 1)\n'
        "                self._context.send(session, chunk)\n",
        ("tests/router/test_resuming.py",),
    ),
    Mutant(
        "denied amounts forgotten",
        "a payer that takes W, denies it and comes back is lent W again",
        "router/settling.py",
        "if settling.denied:",
        "if False:",
        ("tests/router/test_denials.py",),
    ),
    Mutant(
        "the payer's word above all",
        "what a voucher covers is lowered because the payer says so",
        "router/settling.py",
        "cut = min(max(0, due_ucr - least_ucr), self.uncovered)",
        "cut = max(0, due_ucr - least_ucr)",
        ("tests/router/test_dishonest_payer.py",),
    ),
    Mutant(
        "the payer's word for nothing",
        "a payee whose log was put back does not take over what the payer owns up to",
        "router/settling.py",
        "if settled > channel.settled_due_ucr:",
        "if False:",
        ("tests/router/test_rollbacks.py",),
    ),
    Mutant(
        "adopt what we never signed",
        "a payee invents a voucher and the payer makes it its own",
        "router/reestablish.py",
        "if not context.verify(context.public_key, signed, voucher.signature):",
        "if False:",
        ("tests/router/test_reconnects.py",),
    ),
    Mutant(
        "ignore challenge response",
        "a close with an old total stands, whatever voucher is shown",
        "router/challenges.py",
        "        if voucher.total_ucr <= channel.total_ucr:\n            return\n",
        "        if channel.state is ChannelState.CHALLENGE:\n            return\n",
        ("tests/router/test_challenges.py", "tests/router/test_lifetimes.py"),
    ),
    Mutant(
        "a witness ignores the response",
        "the quorum pays out what the close began with",
        "router/witness.py",
        "if better is not None or begins:",
        "if begins:",
        _QUORUM,
    ),
    Mutant(
        "a witness answers before it persists",
        "after a crash it signs another order of the same number",
        "router/witness.py",
        "            self._sign(cid, order)\n",
        "            early = signing.deposit_bytes(\n"
        "                context.network, cid, order.deposit_ucr, order.sequence\n"
        "            )\n"
        "            early = messages.LockReceipt(\n"
        "                cid, order.deposit_ucr, order.sequence, context.signer.sign(early)\n"
        "            )\n"
        "            context.send(session, early)\n"
        "            self._sign(cid, order)\n",
        _QUORUM,
    ),
    Mutant(
        "a witness that persists nothing",
        "its promise to lock funds dies with its process",
        "router/witness.py",
        "self._context.append(FundsLocked(order))",
        "self._context.ledger.apply(FundsLocked(order))",
        _QUORUM,
    ),
    Mutant(
        "refund twice",
        "what was paid out is given back to the payer as well",
        "router/vault.py",
        "rest_ucr = self.account(held.payer), held.deposit_ucr - held.paid_ucr",
        "rest_ucr = self.account(held.payer), held.deposit_ucr",
        _QUORUM,
    ),
    Mutant(
        "release twice",
        "a deposit that was settled is released again with the order that raised it",
        "router/vault.py",
        "account.pending_ucr = 0  # it is",
        "pass  # it is",
        ("tests/router/test_vault.py",),
    ),
    Mutant(
        "over a payer's limit",
        "each channel of a payer gets the whole limit",
        "router/anchor.py",
        "if deposit_ucr - held_ucr > self.deposit_max_ucr(ledger, payer):",
        "if deposit_ucr - held_ucr > self.limit_ucr(payer):",
        ("tests/router/test_credit.py", "tests/router/test_channels.py"),
    ),
    Mutant(
        "head equivocation ignored",
        "a peer that keeps two logs is dealt with as before",
        "router/heads.py",
        "elif head.head != held.head:",
        "elif False:",
        ("tests/router/test_heads.py",),
    ),
    Mutant(
        "a nonce pays twice",
        "a cheque that comes again is served again",
        "router/cheques.py",
        "if book.account(cheque.user).used(cheque.nonce):",
        "if False:",
        _CHEQUES,
    ),
    Mutant(
        "old nonces forgotten",
        "a cheque is good again once enough others were taken",
        "router/cheque_book.py",
        "return nonce <= self.floor or",
        "return False or",
        _CHEQUES,
    ),
    Mutant(
        "an answer's price in memory alone",
        "the answer's end leaves, and a restart charges nothing for it",
        "router/cheques.py",
        "context.append(ChequeCharged(",
        "context.ledger.apply(ChequeCharged(",
        _CHEQUES,
    ),
    Mutant(
        "over a user's limit",
        "what runs does not count",
        "router/cheque_book.py",
        "return self.owed_ucr + sum(self.held.values())",
        "return self.owed_ucr",
        _CHEQUES,
    ),
    Mutant(
        "charged over what was held",
        "an engine that counts wrong makes an answer dearer than the cheque",
        "router/cheque_job.py",
        "return min(made, self.most_ucr)",
        "return made",
        _CHEQUES,
    ),
    Mutant(
        "spends what never arrived",
        "a channel that the payee never took is settled at what was signed in advance",
        "router/challenges.py",
        "if unknown and not channel.due_ucr and not self._anchor.pays_out:",
        "if False:",
        ("tests/router/test_challenges.py", "tests/router/test_lifetimes.py"),
    ),
    Mutant(
        "dispute keeps what was paid",
        "a verdict takes money back off the jobs that run on the channel",
        "router/audits.py",
        "kept = min(lane.held_ucr, lane.due_ucr, unpaid)",
        "kept = min(lane.held_ucr, lane.due_ucr)",
        ("tests/router/test_holdback.py",),
    ),
    Mutant(
        "a close forgets open lanes",
        "what a crash in mid-close left open counts as never sent",
        "protocol/channel.py",
        "self.settled_due_ucr = self.reserved_ucr if payee else self.due_ucr",
        "self.settled_due_ucr = self.settled_due_ucr",
        ("tests/router/test_challenges.py", "tests/router/test_lifetimes.py"),
    ),
    Mutant(
        "agreement not believed",
        "a payee put back to before a close settles at its voucher, not at what both signed",
        "router/challenges.py",
        "elif channel.agreed_signature:",
        "elif False:",
        ("tests/router/test_challenges.py", "tests/router/test_lifetimes.py"),
    ),
)
