#!/usr/bin/env bash
# What can be checked without root and without anything but this checkout, in a few minutes. It says what it left out.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# The tests beside real parts are listed where CI learns what to try twice.
real=$(sed -n "s/^filter = '''\(.*\)'''$/\1/p" .config/nextest.toml | head -1)
long='kind(test) & test(/^(attack|bad_days|crash|disk|damage)::/)'

count() { cargo nextest list --message-format oneline -E "$1" 2>/dev/null | wc -l; }

cargo fmt --check
cargo clippy --all-targets -- -D warnings
WHARF_REQUIRE_REAL=0 cargo nextest run -E "not (($real) | ($long))"

echo
echo "left out: $(count "$real") tests that need container engines, registries, official clients and root (make test gets them),"
echo "          $(count "$long") that take long: attacks, power cuts, full disks (cargo nextest run),"
echo "          and the UI's, which need Node and Chromium (make ui-test)"
