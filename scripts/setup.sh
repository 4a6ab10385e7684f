#!/bin/sh
# Makes .venv with fsdriver and the extras named, and installs the system packages whose programs are missing.
#   scripts/setup.sh EXTRA [PROGRAM:PACKAGE …]
# System packages come from apt only, only when missing, and only as root or through sudo without a password.
set -eu

extra=$1
shift
venv=${VENV:-.venv}
stamp=$venv/.installed-$extra

say() { printf 'setup: %s\n' "$*" >&2; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then sudo -n "$@"
    else return 1
    fi
}

apt_install() {
    if command -v apt-get >/dev/null; then
        say "installing $*"
        if as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >&2; then return 0; fi
        # A fresh image has no package lists.
        if as_root apt-get update -q >&2 &&
            as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >&2; then return 0; fi
    fi
    say "these system packages are missing and cannot be installed from here: $*"
    return 1
}

find_python() {
    for candidate in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11; do
        [ -n "$candidate" ] || continue
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

missing=
for pair in "$@"; do
    command -v "${pair%%:*}" >/dev/null || [ -x "/usr/sbin/${pair%%:*}" ] || missing="$missing ${pair##*:}"
done
# shellcheck disable=SC2086 # a list of package names
if [ -n "$missing" ]; then apt_install $missing || say "going on without:$missing"; fi

if ! "$venv/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$(find_python) || { say "Python 3.11 or later is needed; name it with PYTHON=…"; exit 1; }
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        apt_install "python$version-venv" || exit 1
    fi
    say "making $venv with $python"
    "$python" -m venv --clear "$venv"
fi

if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
    say "installing fsdriver[$extra] into $venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".[$extra]"
    touch "$stamp"
fi
