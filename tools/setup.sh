# Make .venv if need be and install one requirements file into it.
# usage: sh tools/setup.sh REQUIREMENTS STAMP     (PYTHON=/path/to/python chooses the interpreter)
set -eu

fail() { printf 'error: %s\n' "$1" >&2; exit 1; }

fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }

find_python() {
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
        if command -v "$candidate" >/dev/null 2>&1 && fits "$candidate"; then printf '%s' "$candidate"; return; fi
    done
    fail "no Python 3.11, 3.12 or 3.13 found; install one, or name it: make test PYTHON=/path/to/python"
}

command -v git >/dev/null 2>&1 || fail "git is not installed; DVC needs it (Debian and Ubuntu: apt-get install git)"
if ! { [ -x .venv/bin/python ] && fits .venv/bin/python; }; then
    python=$(find_python)
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python has no venv module; install it (Debian and Ubuntu: apt-get install python3-venv), or name another Python: PYTHON=/path/to/python"
    rm -rf .venv
    printf 'building .venv with %s\n' "$("$python" --version)"
    "$python" -m venv .venv
fi
printf 'installing %s\n' "$1"
.venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$1" ||
    fail "pip could not install $1 (see above); check the network, the disk, and pip's index settings"
# The project itself, editable: setuptools is pinned and installed already, so nothing else is fetched.
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
touch "$2"
