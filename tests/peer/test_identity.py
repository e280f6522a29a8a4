"""The node's key file and the names made from it.

Source: peer/identity.py; libp2p's specification of peer ids.
"""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from libp2p.crypto.ed25519 import Ed25519PublicKey
from libp2p.crypto.rsa import create_new_key_pair
from libp2p.peer.id import ID

from peer.identity import KEY_FILE, create_key, load_key, peer_id, public_key
from protocol.crypto import Signer
from protocol.errors import ConfigError

seeds = st.binary(min_size=32, max_size=32)


@given(seeds)
def test_peer_id_is_the_one_of_libp2p(seed: bytes) -> None:
    """The same text as libp2p's own for the key; and back."""
    key = Signer(seed).public_key
    assert peer_id(key) == str(ID.from_pubkey(Ed25519PublicKey.from_bytes(key)))
    assert public_key(peer_id(key)) == key


@pytest.mark.parametrize("identity", ["", "0OIl", "é", "12D3KooW", "QmNo", "1" * 60])
def test_text_that_is_no_peer_id(identity: str) -> None:
    """Not base58, too short, another multihash."""
    with pytest.raises(ConfigError) as caught:
        public_key(identity)
    assert caught.value.code == "config.bad_value"


def test_peer_id_of_another_kind_of_key() -> None:
    """RSA nodes exist; they are not nodes of ours."""
    identity = str(ID.from_pubkey(create_new_key_pair(2_048).public_key))
    with pytest.raises(ConfigError, match="not an ed25519"):
        public_key(identity)


@given(seeds, st.data())
def test_typing_error_is_found_or_names_another_key(seed: bytes, data: st.DataObject) -> None:
    """A changed letter never names the same node."""
    identity = peer_id(Signer(seed).public_key)
    place = data.draw(st.integers(0, len(identity) - 1))
    letter = data.draw(
        st.sampled_from("123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz")
    )
    changed = identity[:place] + letter + identity[place + 1 :]
    try:
        assert (public_key(changed) == public_key(identity)) == (changed == identity)
    except ConfigError:
        assert changed != identity


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o277])
def test_new_key_is_the_owners_alone(tmp_path: Path, umask: int) -> None:
    """Mode 0600 at most under any umask, and the key that was returned is the one that is read."""
    previous = os.umask(umask)
    try:
        made = create_key(tmp_path)
    finally:
        os.umask(previous)
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600 & ~umask
    assert load_key(tmp_path).public_key == made.public_key


def test_new_keys_differ_and_none_is_replaced(tmp_path: Path) -> None:
    """A second one in the same place is refused and changes nothing."""
    (tmp_path / "other").mkdir()
    made = create_key(tmp_path)
    assert create_key(tmp_path / "other").public_key != made.public_key
    with pytest.raises(ConfigError) as caught:
        create_key(tmp_path)
    assert caught.value.code == "config.exists"
    assert load_key(tmp_path).public_key == made.public_key


@pytest.mark.parametrize("bit", [0o040, 0o020, 0o010, 0o004, 0o002, 0o001])
def test_any_right_of_others_is_refused(tmp_path: Path, bit: int) -> None:
    """Reading, writing or executing, by group or others."""
    create_key(tmp_path)
    (tmp_path / KEY_FILE).chmod(0o600 | bit)
    with pytest.raises(ConfigError) as caught:
        load_key(tmp_path)
    assert caught.value.code == "config.key_mode"
    (tmp_path / KEY_FILE).chmod(0o400)
    load_key(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "zz" * 32, "00" * 31, "00" * 33, "00" * 32 + " 00", "0x" + "00" * 32]
)
def test_file_that_holds_no_seed(tmp_path: Path, text: str) -> None:
    """Refused by a code, and the text is not repeated."""
    path = tmp_path / KEY_FILE
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ConfigError) as caught:
        load_key(tmp_path)
    assert caught.value.code == "config.key_bad"
    assert not text or text not in str(caught.value)


def test_known_seed_gives_the_known_name(tmp_path: Path) -> None:
    """RFC 8032, 7.1, test 1; the newline of an editor does no harm."""
    seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
    key = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    path = tmp_path / KEY_FILE
    path.write_text(f"{seed}\n")
    path.chmod(0o600)
    assert load_key(tmp_path).public_key.hex() == key
