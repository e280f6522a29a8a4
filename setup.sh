#!/usr/bin/env bash
# Makes this checkout runnable, then runs the command it is given inside:
#   ./setup.sh peerd demo
#   ./setup.sh pytest
#   CMAKE_ARGS="-DGGML_CUDA=on" ./setup.sh    # llama.cpp for a GPU; remembered, CMAKE_ARGS= undoes it
# Needs git, python3 (3.11 or newer) with venv, CA certificates, and a C/C++ compiler with Python's
# and GMP's headers, which it installs with apt where it may. All else goes into .venv.
set -euo pipefail
cd -P "$(dirname "$0")"

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

python=${PYTHON:-python3}
command -v "$python" >/dev/null ||
    die "$python is missing; install it (Debian, as root: apt-get install python3 python3-venv)"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    die "$python is $("$python" -V 2>&1 | cut -d' ' -f2), but 3.11 or newer is needed; set PYTHON to one"

missing=() # Debian's packages: and what for

# Sees what compiling llama.cpp and fastecdsa (a part of libp2p) lacks.
look() {
    local headers
    headers=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
    { command -v cc && command -v c++ && command -v make; } >/dev/null ||
        missing+=("build-essential: a C and C++ compiler with make")
    [ -e "$headers/Python.h" ] || missing+=("python3-dev: Python's headers")
    "$python" -c 'import venv, ensurepip' 2>/dev/null || missing+=("python3-venv: Python's venv")
    { echo '#include <gmp.h>' | cc -E - || ls /usr/include/gmp.h || ls /usr/include/*/gmp.h; } \
        >/dev/null 2>&1 || missing+=("libgmp-dev: GMP's header")
}

# Installs what is missing, or names it and stops.
provide() {
    local packages=("${missing[@]%%:*}") root=() output
    [ "$(id -u)" = 0 ] || root=(sudo -n)
    if ! command -v apt-get >/dev/null || ! "${root[@]}" true 2>/dev/null; then
        for what in "${missing[@]}"; do say "missing: ${what#*: } (${what%%:*})"; done
        die "install what is missing; on Debian, as root: apt-get install ${packages[*]}"
    fi
    say "installing with apt: ${packages[*]}"
    output=$({
        "${root[@]}" apt-get update -qq || true # an older list may do
        "${root[@]}" env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends "${packages[@]}"
    } 2>&1) || die "apt-get failed:"$'\n'"$output"
}

# Fills .venv with what the lock file names, and with this checkout. Of llama.cpp only the library
# is compiled: its tools and their common part, which nothing here uses, take longer than all else.
# (CMake puts a toolchain file's variables before the options that its wheel forces on.) What
# CMAKE_ARGS changes must not come from pip's cache, nor stay there.
fill() {
    local pip=(.venv/bin/python -m pip --disable-pip-version-check)
    printf 'set(%s OFF)\n' LLAMA_BUILD_COMMON LLAVA_BUILD >.venv/llama.cmake
    CMAKE_TOOLCHAIN_FILE=${CMAKE_TOOLCHAIN_FILE:-$PWD/.venv/llama.cmake} \
        "${pip[@]}" install ${CMAKE_ARGS:+--no-cache-dir} --use-pep517 --require-hashes \
        -r requirements.lock |
        sed -un 's/^ *Building wheel for \([^ ]*\).*: /setup: building \1: /p' >&2 &&
        "${pip[@]}" install -q --no-deps --no-build-isolation -e .
}

# What .venv was made for: this place, its Python, CMAKE_ARGS if any, and the lock file. Written when
# it is complete.
stamp() {
    local files
    files=$(cat requirements.lock pyproject.toml | sha256sum)
    echo "$PWD, $(.venv/bin/python -V 2>/dev/null)${CMAKE_ARGS:+, $CMAKE_ARGS}: ${files%% *}"
}

exec 9<setup.sh # one set-up at a time
flock -n 9 || { say "waiting for another set-up of this checkout"; flock 9; }
export CMAKE_ARGS=${CMAKE_ARGS-$(cat .venv/cmake-args 2>/dev/null || true)}
want=$(stamp)
have=$(cat .venv/stamp 2>/dev/null || true)
if [ "$have" != "$want" ]; then
    look
    ((${#missing[@]} == 0)) || provide
    # Another lock file is caught up with; anything else, or what was left half done, starts over.
    [ "${have%:*}" = "${want%:*}" ] || "$python" -m venv --clear .venv
    rm -f .venv/stamp
    say "installing packages into .venv; compiling llama.cpp takes about 3 minutes on 2 cores"
    printf '%s' "$CMAKE_ARGS" >.venv/cmake-args
    fill || die "pip failed, see above; a new run starts over"
    stamp >.venv/stamp
    say "done in $((SECONDS / 60)) min $((SECONDS % 60)) s"
fi
exec 9<&-

export PATH="$PWD/.venv/bin:$PATH"
if (($#)); then exec "$@"; fi
say "ready; try: ./setup.sh peerd demo"
