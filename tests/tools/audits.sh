#!/usr/bin/env bash
# Installs the audits of GraphQL over HTTP below .tools/audits.
#
#   tests/tools/audits.sh
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
place=$root/.tools/audits
wanted=graphql-http@1.23.1

mkdir -p "$place"
exec 9>"$place/.lock"
flock 9
if [ "$(cat "$place/.complete" 2>/dev/null || true)" != "$wanted" ]; then
    npm install --no-save --no-audit --no-fund --silent --prefix "$place" "$wanted" graphql@16
    echo "$wanted" >"$place/.complete"
fi
