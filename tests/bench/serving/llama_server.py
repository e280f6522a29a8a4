"""llama-server from the source that the installed llama-cpp-python was built from.

`build` takes the sdist of the installed version, checked against requirements.lock, and compiles
only the server. It runs on the shared libraries of the *installed* package where they fit, so
that both contestants compute with the same machine code.
"""

import os
import re
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import llama_cpp

from engine.native import BATCH_TOKENS, MICRO_BATCH_TOKENS

ROOT = Path(__file__).resolve().parents[3]
LIBRARIES = Path(llama_cpp.__file__).parent / "lib"
# As the package's own build: release, the machine's instructions (ggml's default), shared
# libraries. Without what a server that is asked on loopback has no use for.
OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=ON",
    "-DLLAMA_CURL=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_APP=OFF",
)


def build(cache: Path) -> Path:
    """The server's path; compiled when the cache does not have it. Output goes to stderr."""
    version = llama_cpp.__version__
    target = cache / f"llama-server-{version}"
    server = target / "bin" / "llama-server"
    if server.exists():
        return server
    source = _unpack(cache, version) / "vendor" / "llama.cpp"
    for command in (
        ["cmake", "-S", source, "-B", target, *OPTIONS, *os.environ.get("CMAKE_ARGS", "").split()],
        ["cmake", "--build", target, f"-j{os.cpu_count()}", "--target", "llama-server"],
    ):
        subprocess.run(["nice", "-n", "10", *command], stdout=sys.stderr, check=True)
    return server


def _unpack(cache: Path, version: str) -> Path:
    name = f"llama_cpp_python-{version}"
    if not (cache / name).exists():
        lock = (ROOT / "requirements.lock").read_text()
        # The entry of this one package: its name, version and the digests that pip checks.
        entry = re.search(rf"^llama-cpp-python=={re.escape(version)}(.*\\\n)*.*\n", lock, re.M)
        if entry is None:
            raise RuntimeError(f"requirements.lock does not name llama-cpp-python {version}")
        cache.mkdir(parents=True, exist_ok=True)
        wanted = cache / "sdist.txt"
        wanted.write_text(entry[0])
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-q"]
        what = ["--no-deps", "--no-binary=llama-cpp-python", "--require-hashes"]
        where = [f"--dest={cache}", f"--requirement={wanted}"]
        subprocess.run([*pip, *what, *where], stdout=sys.stderr, check=True)
        with tarfile.open(cache / f"{name}.tar.gz") as archive:
            archive.extractall(cache, filter="data")
    return cache / name


class LlamaServer:
    """A running llama-server; `close` ends it. What it says is in `log`."""

    def __init__(
        self,
        binary: Path,
        model: Path,
        log: Path,
        *,
        threads: int,
        places: int,
        context_tokens: int,
    ) -> None:
        options = {
            "--model": model,
            "--host": "127.0.0.1",
            "--port": 0,
            "--threads": threads,
            "--threads-batch": threads,
            "--parallel": places,
            "--ctx-size": places * context_tokens,
            "--batch-size": BATCH_TOKENS,
            "--ubatch-size": MICRO_BATCH_TOKENS,
            "--flash-attn": "auto",
            "--cache-type-k": "f16",
            "--cache-type-v": "f16",
            # It would save what a slot held before other prompts take it: time for nothing here.
            "--cache-ram": 0,
            "--fit": "off",
        }
        switches = ["--cont-batching", "--no-kv-unified", "--no-ui", "--offline"]
        command = [str(binary), *switches]
        for option, value in options.items():
            command += [option, str(value)]
        self._log = log
        inherited = os.environ.get("LD_LIBRARY_PATH")
        paths = f"{LIBRARIES}{os.pathsep}{inherited}" if inherited else str(LIBRARIES)
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env={**os.environ, "LD_LIBRARY_PATH": paths},
            )
        self.pid = self._process.pid
        self.port = self._wait()

    def _wait(self) -> int:
        """The port, once it listens."""
        while self._process.poll() is None:
            said = self._log.read_text(errors="replace")
            if listening := re.search(r"listening on http://127\.0\.0\.1:(\d+)", said):
                return int(listening[1])
            time.sleep(0.05)
        raise RuntimeError(f"llama-server ended: {self._log.read_text(errors='replace')[-800:]}")

    @property
    def shares_libraries(self) -> bool:
        """Whether it computes with the installed package's own libraries."""
        mapped = Path(f"/proc/{self.pid}/maps").read_text()
        return all(f"{LIBRARIES}/{name}" in mapped for name in ("libllama.so", "libggml-cpu.so"))

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()
