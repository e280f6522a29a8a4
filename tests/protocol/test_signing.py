"""What is signed: no signature of one thing, network or field passes for another.

Source: protocol/README.md, "Signatures" and "Digests".
"""

import ast
import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import crypto, signing, transcript
from protocol.fields import LaneClaim
from protocol.messages import Receipt
from tests.protocol import reference
from tests.protocol.strategies import values
from tests.vectors.make import THINGS
from tests.vectors.samples import RECEIPT

KEY, ID, SALT = st.binary(min_size=32, max_size=32), st.integers(0, 2**63 - 1), 16
LAYOUTS = [
    name for name, _ in inspect.getmembers(signing, inspect.isfunction) if name.endswith("_bytes")
]
FIXED_BYTES = {
    "voucher_bytes": 88,
    "open_bytes": 64,
    "award_bytes": 184,
    "accept_bytes": 96,
    "chunk_bytes": 92,
    "receipt_bytes": 48,
    "receipt_ack_bytes": 48,
    "close_bytes": 56,
    "close_ack_bytes": 56,
    "close_notice_bytes": 64,
    "top_up_bytes": 56,
    "top_up_ack_bytes": 56,
    "head_bytes": 88,
    "order_bytes": 64,
    "deposit_bytes": 64,
    "settlement_bytes": 56,
    "cheque_bytes": 96,
    "bound_cheque_bytes": 128,
}
DIGESTS = ["channel_id", "lanes_root", "transcript_start", "prompt_commitment", "transcript_next"]


def function_of(name: str) -> Callable[..., bytes]:
    found: Callable[..., bytes] = getattr(signing, name, None) or getattr(transcript, name)
    return found


@cache
def inputs(name: str) -> st.SearchStrategy[dict[str, Any]]:
    """Arguments of a layout or digest, without the network."""
    special = {
        "sequence": st.integers(1, 2**32 - 1),
        "input_tokens": st.integers(0, 2**32 - 1),
        "output_tokens": st.integers(0, 2**32 - 1),
        "payer_salt": st.binary(min_size=SALT, max_size=SALT),
        "payee_salt": st.binary(min_size=SALT, max_size=SALT),
        "lanes": st.lists(values(LaneClaim), max_size=4).map(tuple),
    }
    by_type = {bytes: KEY, int: ID, str: st.text(max_size=40)}
    hints = get_type_hints(function_of(name), include_extras=True)
    found: dict[str, st.SearchStrategy[Any]] = {}
    for argument, hint in hints.items():
        if argument in special:
            found[argument] = special[argument]
        elif argument not in ("network", "return"):
            found[argument] = by_type[hint] if hint in by_type else values(hint)
    return st.fixed_dictionaries(found)


@pytest.mark.parametrize("name", LAYOUTS)
@given(data=st.data(), network=st.text(max_size=20))
def test_layouts_are_the_specification_written_by_hand(
    name: str, data: st.DataObject, network: str
) -> None:
    """Tag, then fields of fixed width: equal to the second implementation, and of one length."""
    arguments = data.draw(inputs(name))
    signed = function_of(name)(network, **arguments)
    assert signed == getattr(reference, name)(network, **arguments)
    assert len(signed) == FIXED_BYTES[name]


@pytest.mark.parametrize("name", DIGESTS)
@given(data=st.data(), network=st.text(max_size=20))
def test_digests_are_the_specification_written_by_hand(
    name: str, data: st.DataObject, network: str
) -> None:
    """Channel id, lanes root, transcript and prompt commitment, as README says them."""
    arguments = data.draw(inputs(name))
    if "network" in get_type_hints(function_of(name)):
        arguments["network"] = network
    assert function_of(name)(**arguments) == getattr(reference, name)(**arguments)


@given(values(Receipt))
def test_the_receipt_id_is_the_hash_of_its_message(receipt: Receipt) -> None:
    """README, "Receipts"."""
    assert signing.receipt_id(receipt) == reference.receipt_id(receipt)


def test_every_field_of_a_receipt_is_under_its_signature() -> None:
    """Changing any one field changes the id that both sides sign."""
    for field in fields(RECEIPT):
        old = getattr(RECEIPT, field.name)
        other: Any
        if isinstance(old, bytes):
            other = bytes(32)
        elif is_dataclass(old):
            other = replace(RECEIPT.profile, settings="threads=3")
        else:
            other = 1 if old == 2 else type(old)(old + 1)
        changed = replace(RECEIPT, **{field.name: other})
        assert signing.receipt_id(changed) != signing.receipt_id(RECEIPT), field.name


@pytest.mark.parametrize("name", [*LAYOUTS, "channel_id", "lanes_root", "transcript_start"])
@given(data=st.data())
def test_every_argument_and_the_network_change_what_is_signed(
    name: str, data: st.DataObject
) -> None:
    """A signature covers all of its thing: another value anywhere gives other bytes."""
    first, second = data.draw(inputs(name)), data.draw(inputs(name))
    function = function_of(name)
    signed = function(network="one", **first)
    assert function(network="two", **first) != signed
    for argument, value in second.items():
        changed = function(network="one", **{**first, argument: value})
        assert (changed == signed) == (value == first[argument]), argument


@given(st.fixed_dictionaries({name: inputs(name) for name in LAYOUTS}))
def test_a_signature_does_not_pass_for_another_thing(arguments: dict[str, dict[str, Any]]) -> None:
    """Whatever is signed, the first 16 bytes say what it is; nothing else has them."""
    starts = {name: function_of(name)("n", **arguments[name])[:16] for name in LAYOUTS}
    assert len({*starts.values()}) == len(LAYOUTS)


NETWORKS = st.text(min_size=1, max_size=64)


@given(NETWORKS, NETWORKS)
def test_no_two_domain_tags_are_equal(first: str, second: str) -> None:
    """Every (network, thing) has its own tag, whatever a network is called."""
    tags = {crypto.domain_tag(network, thing) for network in {first, second} for thing in THINGS}
    assert len(tags) == len(THINGS) * len({first, second})
    assert {len(tag) for tag in tags} == {16}


def test_a_network_name_cannot_imitate_a_thing() -> None:
    """Names are joined by a zero byte, which no thing contains: the last one is the seam."""
    assert crypto.domain_tag("a", "open") != crypto.domain_tag("ao", "pen")
    assert crypto.domain_tag("a\0receipt", "ack") != crypto.domain_tag("a", "receipt ack")
    assert not any("\0" in thing for thing in THINGS)


def test_the_list_of_things_is_complete() -> None:
    """Every domain tag in the code has golden vectors: read from the source itself."""
    used: set[str] = set()
    for path in Path(crypto.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("domain_tag"):
                thing = ast.literal_eval(node.args[1])  # fails unless it is a literal
                used.add(str(thing))
    assert used == set(THINGS)


@given(st.text(max_size=20), st.text(max_size=20))
def test_text_cannot_slide_between_chunks(first: str, second: str) -> None:
    """ "ab" + "c" and "a" + "bc" are different transcripts: lengths are hashed."""

    def after(*texts: str) -> bytes:
        previous = bytes(32)
        for sequence, text in enumerate(texts, start=1):
            previous = transcript.transcript_next(previous, sequence, text, 1, sequence, 1)
        return previous

    joined = first + second
    for cut in range(len(joined) + 1):
        same = (joined[:cut], joined[cut:]) == (first, second)
        assert (after(joined[:cut], joined[cut:]) == after(first, second)) == same
