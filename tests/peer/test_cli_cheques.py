"""`peerd cheques`, `history` and `balance` over a log with cheques, without a daemon.

Source: README, "Commands".
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import structlog
from click.testing import CliRunner, Result

from peer.cheque_headers import read_headers
from peer.cli import peerd
from peer.cli.identity import initialize
from peer.client import Cheques
from peer.config import load_config
from peer.daemon import LOG_DIRECTORY
from peer.identity import load_key, peer_id
from peer.journal import Journal
from peer.settings import daemon_settings
from protocol import signing
from protocol.cheque import check_cheque, write_cheque
from protocol.crypto import Signer, verify
from protocol.errors import ConfigError
from protocol.records import ChequeCharged, ChequesPaid, ChequeTaken, encode_record
from router.cheques import ChequeTerms
from tests.vectors.samples import RECEIPT

Invoke = Callable[..., Result]
USER = Signer(bytes(32))


@pytest.fixture
def invoke() -> Iterator[Invoke]:
    """`peerd` in this process; its settings of the logs are undone."""
    yield lambda *arguments: CliRunner().invoke(peerd, [str(part) for part in arguments])
    structlog.reset_defaults()


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A node whose log has a whole answer, one that failed, one that runs, and a payment."""
    identity = initialize(tmp_path / "shop")
    signer = load_key(tmp_path / "shop")
    assert peer_id(signer.public_key) == identity
    journal = Journal.open(
        tmp_path / "shop" / LOG_DIRECTORY,
        network="main",
        owner=signer.public_key,
        on_entry=lambda entry: None,
    )
    for nonce in (1, 2, 3):
        cheque = write_cheque(USER, "main", signer.public_key, nonce=nonce, amount_ucr=900)
        taken = ChequeTaken(cheque, "embedded", 15, 60, 800, nonce)
        journal.append_nowait(*encode_record(taken))
        if nonce == 1:
            cid = signing.cheque_id("main", cheque)
            receipt = replace(
                RECEIPT,
                cid=cid,
                lane=0,
                price_ucr=700,
                payer=USER.public_key,
                payee=signer.public_key,
            )
            layout = signing.receipt_bytes("main", signing.receipt_id(receipt))
            done = ChequeCharged(USER.public_key, 1, 700, "", receipt, signer.sign(layout), 5)
            journal.append_nowait(*encode_record(done))
    failed = ChequeCharged(USER.public_key, 2, 0, "engine.crashed", None, b"", 6)
    journal.append_nowait(*encode_record(failed))
    journal.append_nowait(*encode_record(ChequesPaid(USER.public_key, 300, 7)))
    journal.close()
    return tmp_path / "shop"


def test_what_users_owe_and_what_proves_it(shop: Path, invoke: Invoke, tmp_path: Path) -> None:
    """List, balance, history and export, from the log."""
    (user,) = json.loads(invoke("cheques", "list", "--data", shop, "--json").stdout)["users"]
    assert user == {
        "user": peer_id(USER.public_key),
        "owed_ucr": 400,
        "running_ucr": 800,
        "earned_ucr": 700,
        "answers": 1,
    }
    assert "0.0004" in invoke("cheques", "list", "--data", shop).stdout
    balance = json.loads(invoke("balance", "--data", shop, "--json").stdout)
    assert (balance["earned_ucr"], balance["cheques_ucr"]) == (700, 700)
    assert "0.0007 credits earned by cheques" in invoke("balance", "--data", shop).stdout
    jobs = json.loads(invoke("history", "--data", shop, "--json").stdout)["jobs"]
    assert [(job["cost_ucr"], job["error"]) for job in jobs] == [
        (700, None),
        (0, "engine.crashed"),
    ]
    assert {job["peer"] for job in jobs} == {peer_id(USER.public_key)}
    file = tmp_path / "cheques.json"
    assert invoke("cheques", "export", "-o", file, "--data", shop).exit_code == 0
    exported = json.loads(file.read_text())
    assert file.stat().st_mode & 0o777 == 0o600
    assert exported == json.loads(invoke("cheques", "export", "--data", shop).stdout)
    assert exported == json.loads(invoke("cheques", "export", "--json", "--data", shop).stdout)
    told = invoke("cheques", "export", "--json", "-o", file, "--data", shop).stdout
    assert json.loads(told) == {"file": str(file), "cheques": 3}
    first, _, running = exported["cheques"]
    cheque = write_cheque(USER, "main", load_key(shop).public_key, nonce=1, amount_ucr=900)
    assert (first["signature"], first["amount_ucr"]) == (cheque.signature.hex(), 900)
    assert (running["cost_ucr"], running["receipt"]) == (None, None)


def test_a_cheque_from_the_command_line(shop: Path, invoke: Invoke) -> None:
    """Its headers, one a line, as `curl -H @-` takes them; a wrong amount is wrong use."""
    node = load_key(shop).public_key
    done = invoke("cheques", "write", peer_id(node), "0.5", "--data", shop)
    lines = [line.split(": ") for line in done.stdout.splitlines()]
    cheque = read_headers({name.lower(): value for name, value in lines})
    check_cheque("main", node, cheque, cheque.nonce, verify)
    assert (cheque.user, cheque.amount_ucr) == (node, 500_000)
    wrong = invoke("cheques", "write", peer_id(node), "a lot", "--data", shop)
    assert "config.bad_value" in f"{wrong.exception}"


@pytest.mark.parametrize(
    ("cheques", "said"),
    [
        ({"newcomer": "1", "newcomers": "1"}, r"cheques\.total is 0"),
        ({"users": {peer_id(USER.public_key): "1"}}, r"cheques\.total is 0"),
        ({"total": "1", "newcomer": "1"}, r"goes with cheques\.newcomers"),
        ({"total": "1", "newcomers": "1"}, r"goes with cheques\.newcomers"),
        ({"total": "1", "users": {"me": "1"}}, "no.* ed25519 peer id"),
        ({"total": "1", "users": {peer_id(USER.public_key): "x"}}, "amount in credits"),
    ],
)
def test_limits_that_can_t_be_meant_are_refused(
    tmp_path: Path, cheques: dict[str, object], said: str
) -> None:
    """Before anything starts; no limits at all are how a node is by itself."""
    assert daemon_settings(tmp_path, load_config(None, {}, {})).cheques == ChequeTerms()
    with pytest.raises(ConfigError, match=said):
        daemon_settings(tmp_path, load_config(None, {"cheques": cheques}, {}))


def test_no_two_cheques_have_one_nonce(shop: Path) -> None:
    cheques = Cheques(peer_id(bytes([7]) * 32), shop)
    nonces = [int(cheques.headers("0.01")["X-Peerd-Nonce"]) for _ in range(1_000)]
    assert nonces == sorted(set(nonces))
