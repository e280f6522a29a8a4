#!/usr/bin/env bash
# Makes this checkout runnable, then runs the command it is given inside:
#   ./setup.sh peerd demo
#   ./setup.sh pytest
# Needs git, python3 (3.11 or newer) with venv, CA certificates, and a C/C++ compiler with Python's
# and GMP's headers, which it installs with apt where it may. All else goes into .venv.
set -euo pipefail
cd "$(dirname "$0")"

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

python=${PYTHON:-python3}
packages=(build-essential python3-dev python3-venv libgmp-dev)

command -v "$python" >/dev/null || die "python3 is missing; install it (Debian: apt-get install python3 python3-venv)"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    die "python3 is $("$python" -V 2>&1 | cut -d' ' -f2), but 3.11 or newer is needed; set PYTHON to one"

# What compiling fastecdsa (a part of libp2p) and llama.cpp takes, by trying it.
missing=()
command -v cc >/dev/null && command -v c++ >/dev/null && command -v make >/dev/null || missing+=("a C and C++ compiler with make (build-essential)")
if command -v cc >/dev/null; then
    headers=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
    echo '#include <Python.h>' | cc -I"$headers" -E - >/dev/null 2>&1 || missing+=("Python's headers (python3-dev)")
    echo '#include <gmp.h>' | cc -E - >/dev/null 2>&1 || missing+=("GMP's header (libgmp-dev)")
else
    missing+=("Python's headers (python3-dev)" "GMP's header (libgmp-dev)")
fi
"$python" -c 'import venv, ensurepip' 2>/dev/null || missing+=("Python's venv (python3-venv)")

if ((${#missing[@]})); then
    root=()
    if [ "$(id -u)" != 0 ]; then
        if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then root=(sudo); else root=(no); fi
    fi
    if command -v apt-get >/dev/null && [ "${root[*]:-}" != no ]; then
        say "installing ${packages[*]}"
        "${root[@]}" apt-get update -qq
        DEBIAN_FRONTEND=noninteractive "${root[@]}" apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
    else
        for what in "${missing[@]}"; do say "missing: $what"; done
        die "install these, on Debian as root: apt-get install ${packages[*]}"
    fi
fi

# The environment is complete when its stamp is that of the lock file and of this project.
stamp=$(cat requirements.lock pyproject.toml | sha256sum | cut -d' ' -f1)
if [ "$(cat .venv/stamp 2>/dev/null)" != "$stamp" ]; then
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    say "installing the locked packages; llama.cpp and fastecdsa are compiled, about 5 minutes on 2 cores"
    .venv/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
    .venv/bin/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
    echo "$stamp" >.venv/stamp
fi

export PATH="$PWD/.venv/bin:$PATH"
if (($#)); then exec "$@"; fi
say "ready; try: ./setup.sh peerd demo"
