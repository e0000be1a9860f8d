#!/usr/bin/env bash
# Installs releases of the official client, each in a virtual environment of its own below .tools/clients, and prints
# the path of its command. Without arguments: the releases that the tests use.
#
#   tests/tools/clients.sh [VERSION…]
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
clients=$root/.tools/clients

# Which Python a release runs on, and what must be pinned beside it.
recipe() {
    case $1 in
    20.3.10) python=3.8 extra=() ;;
    21.9.5 | 22.3.2) python=3.9 extra=(yarl==1.8.2) ;;
    23.9.10) python=3.11 extra=(yarl==1.8.2) ;;
    24.9.14) python=3.12 extra=() ;;
    25.19.2 | 26.9.6) python=3.13 extra=() ;;
    *)
        echo "clients.sh: no recipe for backend.ai-client $1" >&2
        exit 2
        ;;
    esac
}

# pyenv's shims answer to every name and then fail, so a candidate counts only if it runs.
interpreter() {
    local candidate
    for candidate in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$python".*/bin/python "$(type -P "python$python" || true)"; do
        if [ -x "$candidate" ] && "$candidate" -c "import sys, venv; assert sys.version.startswith('$python.')" 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "clients.sh: backend.ai-client $1 needs Python $python; install it with: pyenv install $python" >&2
    exit 3
}

install() {
    local version=$1 place=$clients/$1 command=$clients/$1/bin/backend.ai
    recipe "$version"
    mkdir -p "$clients"
    # Tests run at once and may all want the same release: the first installs it, the others wait.
    exec 9>"$clients/.$version.lock"
    flock 9
    if [ ! -e "$place/.complete" ]; then
        local found
        found=$(interpreter "$version")
        rm -rf "$place"
        "$found" -m venv "$place" >&2
        # Old releases need pkg_resources at run time and build their wheels without isolation in mind.
        "$place/bin/pip" install --quiet --disable-pip-version-check 'setuptools<70' wheel >&2
        "$place/bin/pip" install --quiet --disable-pip-version-check "backend.ai-client==$version" "${extra[@]}" >&2
        "$command" -h >/dev/null
        touch "$place/.complete"
    fi
    exec 9>&-
    echo "$command"
}

if [ $# -eq 0 ]; then
    set -- 20.3.10 21.9.5 22.3.2 23.9.10 24.9.14 25.19.2 26.9.6
fi
for version in "$@"; do
    install "$version"
done
