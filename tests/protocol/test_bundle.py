"""The settlement bundle: what it proves, and that nothing in it can be changed unseen.

Source: protocol/README.md, "Settlement bundle".
"""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import limits
from protocol.bundle import ReceiptPage, SettlementBundle, check_bundle, encode_bundle, pages_of
from protocol.errors import RemoteError
from tests.protocol import reference
from tests.protocol.bundles import PAYER, WITNESSES, evidence, order, voucher, whole
from tests.vectors import samples as s
from tests.vectors.make import PATH

WHOLE = whole()
DATA = encode_bundle(WHOLE)
EMPTY = replace(WHOLE, raised=None, backing=None, voucher=None, pages=(), closed=None)


def refusal(data: bytes) -> str:
    with pytest.raises(RemoteError) as caught:
        check_bundle(data)
    assert caught.value.code.startswith("bundle.")
    return caught.value.code


def test_a_whole_bundle_says_what_it_proves() -> None:
    """The debt is the voucher's; jobs that the payee alone signed are told apart."""
    found = check_bundle(DATA)
    assert (found.deposit_ucr, found.owed_ucr, found.backed_ucr) == (
        3_000_000,
        2_500_000,
        3_000_000,
    )
    assert (found.agreed_jobs, found.agreed_ucr) == (2, 52_507)
    assert (found.claimed_jobs, found.claimed_ucr) == (1, 9)
    assert found.witnesses == tuple(one.public_key for one in WITNESSES)
    assert found.closed_ucr == 52_507


def test_an_opening_alone_proves_no_debt() -> None:
    found = check_bundle(encode_bundle(EMPTY))
    assert (found.deposit_ucr, found.owed_ucr, found.closed_ucr) == (2_000_000, 0, None)
    assert (found.agreed_jobs, found.witnesses) == (0, ())


def test_it_is_canonical_msgpack() -> None:
    """Equal to the second implementation, which was written from the page alone."""
    assert reference.pack(WHOLE) == DATA
    golden = json.loads(PATH.read_text())["bundles"]["whole"]["hex"]
    assert bytes.fromhex(golden) == DATA


def test_every_byte_counts() -> None:
    """Each byte of the file changed, one at a time: every change is found."""
    for place in range(len(DATA)):
        changed = bytearray(DATA)
        changed[place] ^= 1 << place % 8
        refusal(bytes(changed))


@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
def test_any_change_of_a_byte_is_found(place: int, change: int) -> None:
    changed = bytearray(DATA)
    changed[place] ^= change
    refusal(bytes(changed))


@given(st.integers(0, len(DATA) - 1), st.binary(max_size=8))
def test_a_cut_or_longer_file_is_found(length: int, more: bytes) -> None:
    """Truncated anywhere, or with bytes behind it."""
    refusal(DATA[:length])
    if more:
        assert refusal(DATA + more) == "bundle.malformed"


@pytest.mark.parametrize(
    ("bundle", "code"),
    [
        (replace(WHOLE, version=2), "bundle.version"),
        (replace(WHOLE, network="other"), "bundle.bad_signature"),
        (replace(WHOLE, raised=None), "bundle.mismatch"),  # the voucher is over the first deposit
        (replace(WHOLE, voucher=voucher(3_000_001)), "bundle.mismatch"),
        (replace(EMPTY, pages=pages_of([evidence(2, 1), evidence(1, 1)])), "bundle.mismatch"),
        (replace(EMPTY, pages=pages_of([evidence(1, 1), evidence(1, 1)])), "bundle.mismatch"),
        (
            replace(EMPTY, pages=(ReceiptPage((evidence(1, 1),)), ReceiptPage((evidence(2, 1),)))),
            "bundle.mismatch",
        ),
        (
            replace(
                EMPTY,
                backing=replace(
                    order(5), order=replace(order(5).order, payee_salt=s.fill(0x51, 16))
                ),
            ),
            "bundle.mismatch",
        ),
        (
            replace(EMPTY, backing=replace(order(5), signatures=order(5).signatures[::-1])),
            "bundle.mismatch",
        ),
        (replace(EMPTY, backing=replace(order(5), order=order(6).order)), "bundle.bad_signature"),
        (
            replace(EMPTY, voucher=replace(voucher(5), signature=PAYER.sign(b"x"))),
            "bundle.bad_signature",
        ),
    ],
)
def test_parts_that_do_not_belong_together(bundle: SettlementBundle, code: str) -> None:
    """Each is well formed, and some are well signed: only together they make no sense."""
    assert refusal(encode_bundle(bundle)) == code


def test_the_newest_receipts_are_kept() -> None:
    """As many as a file may hold; and a file that is full is within its bound."""
    one = evidence(1, 1)
    most = limits.ARRAY_ITEMS_MAX * limits.BUNDLE_PAGES_MAX
    pages = pages_of([one] + [replace(one, payer_signature=b"")] * most)
    assert len(pages) == limits.BUNDLE_PAGES_MAX
    assert all(not kept.payer_signature for page in pages for kept in page.receipts)
    assert len(encode_bundle(replace(WHOLE, pages=pages))) < limits.BUNDLE_BYTES_MAX
