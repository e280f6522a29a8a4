"""The rule of the house, read from the source: who imports whom, and what the floors below the
daemon never touch.

Source: README.md, "How it is built". Each check is a function of source text, and is itself
tested on small sources that break it.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from protocol.errors import CODES

ROOT = Path(__file__).parent.parent
PACKAGES = ("protocol", "router", "engine", "peer", "simnet")

F0 = ("units", "errors", "limits", "registry", "quantization")
F1 = ("fields", "messages", "wire", "envelope", "framing", "transcript", "crypto", "signing")
F2 = (
    *("bundle", "channel", "cheque", "lane", "job", "machine"),
    *("records", "log", "disk", "segments", "recovery"),
)

# Time, chance, the outside world: a core gets them as arguments or not at all.
BANNED_IMPORTS = (
    "asyncio",
    "datetime",
    "io",
    "logging",
    "os",
    "pathlib",
    "random",
    "secrets",
    "shutil",
    "socket",
    "structlog",
    "subprocess",
    "sys",
    "tempfile",
    "threading",
    "time",
    "trio",
    "uuid",
)
BANNED_CALLS = ("open", "print", "input", "eval", "exec", "hash", "id")
# Package -> the only folder that may import it.
ONLY_IN = {"libp2p": "peer/libp2p_adapter/", "llama_cpp": "engine/"}
# Above both: it runs the simulator's scenarios through the daemon's shell.
BOTH = "simnet/tiers/"

FILE_LINES_MAX, FUNCTION_LINES_MAX = 300, 70
# Longer than the aim, for a reason: path -> the most lines, and why.
LONG_FILES = {
    "protocol/messages.py": (650, "one catalogue: numbers and fields of all messages, no logic"),
    "router/actions.py": (460, "one catalogue: what goes into a node and comes out, no logic"),
    "protocol/fields.py": (330, "one catalogue: the parts of messages and records, no logic"),
    "protocol/records.py": (560, "one catalogue: numbers and fields of all records, no logic"),
    "protocol/limits.py": (560, "one table: every bound with its reason, no logic"),
}


def floor(module: str) -> int:
    """The floor of a module by its dotted name; -1 for what is not in the house."""
    package, _, rest = module.partition(".")
    if package not in PACKAGES:
        return -1
    name = rest.partition(".")[0]
    if package == "protocol":
        if name in F0 or not name:
            return 0
        return 1 if name in F1 else 2 if name in F2 else 99
    if package in ("router", "engine"):
        return 3
    return 5 if name == "cli" or module.startswith("simnet.tiers") else 4


def dotted(path: str) -> str:
    """`router/node.py` -> `router.node`."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imported(tree: ast.AST, modules: frozenset[str]) -> Iterator[str]:
    """Every module that a file imports, at any depth; `modules` are those of the house."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in modules else node.module


def import_faults(path: str, source: str, modules: frozenset[str]) -> list[str]:
    """What a file imports against the rule."""
    own = dotted(path)
    own_floor, own_package = floor(own), own.partition(".")[0]
    faults = []
    for name in imported(ast.parse(source), modules):
        package = name.partition(".")[0]
        where = ONLY_IN.get(package)
        if where is not None and not path.startswith(where):
            faults.append(f"{path}: only {where} imports {package}")
        if own_package in ("protocol", "router") and package in BANNED_IMPORTS:
            faults.append(f"{path}: {package} below the daemon")
        if package not in PACKAGES:
            continue
        neighbours = floor(name) == own_floor >= 3 and package != own_package
        both = {own_package, package} == {"peer", "simnet"} and not path.startswith(BOTH)
        if floor(name) > own_floor:
            faults.append(f"{path}: {name} is on floor {floor(name)}, this is {own_floor}")
        elif neighbours or both:
            faults.append(f"{path}: {name} is a neighbour's")
    return faults


def core_faults(path: str, source: str) -> list[str]:
    """What a core does that could differ from run to run, or reaches outside."""
    faults = []
    for node in ast.walk(ast.parse(source)):
        iterated: list[ast.expr] = []
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in BANNED_CALLS:
                faults.append(f"{path}:{node.lineno}: {called}()")
            if called in ("list", "tuple", "iter", "next", "enumerate", "map", "dict.fromkeys"):
                iterated = node.args
        elif isinstance(node, ast.For):
            iterated = [node.iter]
        elif isinstance(node, ast.ListComp | ast.DictComp | ast.GeneratorExp | ast.SetComp):
            iterated = [generator.iter for generator in node.generators]
        elif isinstance(node, ast.AsyncFunctionDef | ast.Await):
            faults.append(f"{path}:{node.lineno}: async below the daemon")
        faults += [f"{path}:{item.lineno}: iterates a set" for item in iterated if is_set(item)]
    return faults


def is_set(node: ast.expr) -> bool:
    """Whether an expression is plainly a set, whose order changes from run to run."""
    if isinstance(node, ast.Set | ast.SetComp):
        return True
    if isinstance(node, ast.BinOp):
        return is_set(node.left) or is_set(node.right)
    called = isinstance(node, ast.Call) and ast.unparse(node.func)
    return called in ("set", "frozenset")


def length_faults(path: str, source: str) -> list[str]:
    """Files and functions that are longer than one reads at once."""
    lines_max = LONG_FILES.get(path, (FILE_LINES_MAX, ""))[0]
    lines = source.count("\n")
    faults = [f"{path}: {lines} lines"] if lines > lines_max else []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            length = node.end_lineno - node.lineno + 1
            if length > FUNCTION_LINES_MAX:
                faults.append(f"{path}: {node.name} has {length} lines")
    return faults


def sources(*packages: str) -> list[str]:
    """Paths of a package's files, from the root."""
    found = [path for package in packages for path in (ROOT / package).rglob("*.py")]
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


FILES = sources(*PACKAGES)
CORES = sources("protocol", "router")
MODULES = frozenset(map(dotted, FILES))


def read(path: str) -> str:
    return (ROOT / path).read_text()


@pytest.mark.parametrize("path", FILES)
def test_a_file_imports_only_from_its_floor_and_those_beneath(path: str) -> None:
    """And libp2p and llama_cpp from one folder each, and no clock or chance in a core."""
    assert import_faults(path, read(path), MODULES) == []


@pytest.mark.parametrize("path", CORES)
def test_a_core_is_deterministic_and_closed(path: str) -> None:
    """No files, no sets in an order of their own, no tasks: simnet replays what peerd did."""
    assert core_faults(path, read(path)) == []


def test_every_error_code_is_raised_somewhere() -> None:
    """A code that nothing raises would promise an error that nobody gets."""
    sources = [read(path) for path in FILES if path != "protocol/errors.py"]
    unused = [code for code in CODES if not any(f'"{code}"' in source for source in sources)]
    assert unused == []


@pytest.mark.parametrize("path", FILES)
def test_files_and_functions_can_be_read(path: str) -> None:
    """300 and 70 lines; what is longer is in LONG_FILES with its reason."""
    assert length_faults(path, read(path)) == []


def test_every_module_of_the_protocol_has_a_floor() -> None:
    """A new file is put on a floor by hand: nothing is above all by accident."""
    assert [path for path in CORES if floor(dotted(path)) == 99] == []


def test_the_exceptions_are_needed() -> None:
    """An entry for a file that is short, or gone, is taken out again."""
    for path in LONG_FILES:
        assert read(path).count("\n") > FILE_LINES_MAX, path


# --- the checks can fail -------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A source in a file, and whether it breaks the rule of imports."""

    path: str
    source: str
    allowed: bool


KNOWN = frozenset({"protocol.limits", "protocol.wire", "router.node", "peer.cli", "engine.served"})
IMPORT_CASES = [
    Case("protocol/units.py", "from typing import NewType", True),
    Case("protocol/units.py", "from protocol import limits", True),
    Case("protocol/units.py", "from protocol.fields import U8", False),
    Case("protocol/units.py", "from protocol import wire", False),
    Case("protocol/wire.py", "from protocol.machine import apply", False),
    Case("protocol/records.py", "from protocol import wire", True),
    Case("protocol/log.py", "import router.node", False),
    Case("protocol/new.py", "import hashlib", True),
    Case("protocol/wire.py", "import protocol.new", False),
    Case("router/node.py", "from protocol.wire import decode", True),
    Case("router/node.py", "from router.provider import Provider", True),
    Case("router/node.py", "from engine.interface import Engine", False),
    Case("engine/served.py", "from router import actions", False),
    Case("router/node.py", "from peer.journal import Journal", False),
    Case("router/node.py", "import trio", False),
    Case("router/node.py", "from time import monotonic_ns", False),
    Case("router/node.py", "import os.path", False),
    Case("router/node.py", "def f():\n    import random", False),
    Case("router/node.py", "if TYPE_CHECKING:\n    from pathlib import Path", False),
    Case("engine/served.py", "import trio", True),
    Case("engine/served.py", "import llama_cpp._internals", True),
    Case("router/node.py", "import llama_cpp", False),
    Case("simnet/world.py", "import llama_cpp", False),
    Case("peer/daemon.py", "from router.node import Node", True),
    Case("peer/daemon.py", "from engine.served import Served", True),
    Case("peer/daemon.py", "from libp2p import new_host", False),
    Case("peer/libp2p_adapter/host.py", "from libp2p import new_host", True),
    Case("tests_of/libp2p_adapter.py", "import libp2p.crypto", False),
    Case("peer/daemon.py", "from simnet.world import World", False),
    Case("simnet/world.py", "from peer.journal import Journal", False),
    Case("simnet/world.py", "from router.node import Node", True),
    Case("peer/daemon.py", "from peer.cli import main", False),
    Case("peer/daemon.py", "from peer import cli", False),
    Case("peer/cli.py", "from peer.daemon import Daemon", True),
    Case("peer/cli/__init__.py", "from peer.cli.run import run", True),
    Case("peer/cli.py", "from simnet.world import World", False),
    Case("simnet/cli.py", "from peer.journal import Journal", False),
    Case("simnet/cli.py", "from peer.cli import main", False),
    Case("simnet/tiers/shell.py", "from peer.daemon import Daemon", True),
    Case("simnet/tiers/shell.py", "from simnet.simulation import Simulation", True),
    Case("simnet/tiers/shell.py", "from peer.cli import main", False),
    Case("simnet/tiers/shell.py", "from libp2p import new_host", False),
    Case("simnet/cli/sweep.py", "from simnet.tiers.shell import ShellDaemon", True),
    Case("simnet/runs/runner.py", "from simnet.tiers.shell import ShellDaemon", False),
    Case("simnet/runs/runner.py", "from simnet.tiers import shell", False),
    Case("peer/daemon.py", "from simnet.tiers.shell import ShellDaemon", False),
]


@pytest.mark.parametrize("case", IMPORT_CASES, ids=lambda case: f"{case.path} {case.source}")
def test_the_check_of_imports_can_fail(case: Case) -> None:
    """Small sources on both sides of each line of the rule."""
    faults = import_faults(case.path, case.source, KNOWN)
    assert (faults == []) == case.allowed, faults


@pytest.mark.parametrize(
    ("source", "allowed"),
    [
        ("for x in sorted(set(items)): pass", True),
        ("x in {1, 2}", True),
        ("for x in {1: 2}: pass", True),
        ("for x in set(items): pass", False),
        ("for x in {1, 2}: pass", False),
        ("[x for x in {y for y in items}]", False),
        ("{x: 1 for x in frozenset(items)}", False),
        ("sum(x for x in set(a) | set(b))", False),
        ("for x in known - set(b): pass", False),
        ("list(set(items))", False),
        ("tuple({1, 2})", False),
        ("dict.fromkeys(set(items))", False),
        ("open('file')", False),
        ("file.open()", True),
        ("print(1)", False),
        ("hash('text')", False),
        ("async def f(): pass", False),
    ],
)
def test_the_check_of_cores_can_fail(source: str, allowed: bool) -> None:
    """`hash` and `id` differ from run to run as the order of sets does."""
    assert (core_faults("router/x.py", source) == []) == allowed


def test_the_check_of_lengths_can_fail() -> None:
    """At the aim it passes, a line over it does not, nor a class's method or a nested one."""
    body = "    pass\n"
    assert length_faults("a.py", "x = 1\n" * 300) == []
    assert length_faults("a.py", "x = 1\n" * 301) != []
    assert length_faults("a.py", "def f():\n" + body * 69) == []
    assert length_faults("a.py", "def f():\n" + body * 70) != []
    assert length_faults("a.py", "class A:\n    async def f():\n" + "        pass\n" * 70) != []
    assert length_faults("protocol/messages.py", "x = 1\n" * 650) == []
    assert length_faults("protocol/messages.py", "x = 1\n" * 651) != []


def test_the_house_is_not_empty() -> None:
    """The checks above run over files that exist."""
    assert {path.partition("/")[0] for path in FILES} == set(PACKAGES)
    assert len(CORES) > 25
