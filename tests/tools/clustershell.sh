#!/usr/bin/env bash
# Installs ClusterShell, whose notation for sets of nodes ours extends, in a virtual environment below
# .tools/clustershell, and prints the path of the Python interpreter that has it.
set -euo pipefail

version=1.9.3
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
place=$root/.tools/clustershell

# Any Python 3 that has venv will do; pyenv's shims answer to every name and then fail, so each is tried.
interpreter() {
    local candidate
    for candidate in $(type -aP python3 || true) "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.*/bin/python; do
        if [ -x "$candidate" ] && "$candidate" -c 'import ensurepip, sys, venv; assert sys.version_info >= (3, 6)' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "clustershell.sh: no Python 3 with venv; on Debian: apt-get install python3-venv" >&2
    exit 3
}

mkdir -p "$place"
# Tests run at once: the first installs it, the others wait.
exec 9>"$place/.lock"
flock 9
if [ ! -e "$place/$version/.complete" ]; then
    found=$(interpreter)
    rm -rf "${place:?}/$version"
    "$found" -m venv "$place/$version" >&2
    "$place/$version/bin/pip" install --quiet --disable-pip-version-check "ClusterShell==$version" >&2
    "$place/$version/bin/python" -c 'import ClusterShell.NodeSet' >&2
    touch "$place/$version/.complete"
fi
exec 9>&-
echo "$place/$version/bin/python"
