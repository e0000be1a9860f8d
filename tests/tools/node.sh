#!/usr/bin/env bash
# Looks for the Node that the browser tests run in, and says what is to be done when there is none. It installs none:
# Debian's is older than the UI's tools need.
#
#   tests/tools/node.sh
set -euo pipefail

# As ui/package.json has it.
wanted=20.19
found=$(node --version 2>/dev/null | tr -d v || true)
if [ "$(printf '%s\n' "$wanted" "${found:-0}" | sort -V | head -1)" = "$wanted" ] && type -P npm >/dev/null; then
    exit 0
fi
echo "node.sh: the browser tests need Node $wanted or newer, with npm (found: ${found:-none}); get it from" \
    "https://nodejs.org, or leave them out: make parts lint unit" >&2
exit 1
