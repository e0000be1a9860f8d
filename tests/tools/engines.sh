#!/usr/bin/env bash
# Makes the roots in which the tests start engines of other Debian releases than the machine's own, each below
# .tools/roots, and prints their paths. Without arguments: the releases that `make test` uses.
#
#   tests/tools/engines.sh [RELEASE…]
set -euo pipefail

packages=docker.io,docker-cli,containerd,podman,crun,ca-certificates,iptables

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
roots=$root/.tools/roots
# Another list of packages makes another root.
version=$(printf '%s' "$packages" | sha256sum | cut -c1-8)

refuse() {
    echo "engines.sh: no root of Debian $release: $*" >&2
    exit 1
}

# The archive of Debian that apt on this machine takes its packages from.
mirror() {
    apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(SITE)' 2>/dev/null | sed -n 's/^Debian|Debian|//p' | sed 1q
}

make_root() {
    # apt would check signatures as a user of its own, who may not be let into this directory, or at /dev/null.
    local archive begun options=(--aptopt='APT::Sandbox::User "root"')
    [ "$(id -u)" -eq 0 ] || refuse "only root can make it"
    type -P mmdebstrap >/dev/null || refuse "it is made by mmdebstrap: apt-get install mmdebstrap"
    archive=$(mirror || true)
    [ -n "$archive" ] || refuse "apt-get update has not reached an archive of Debian"
    # What a run that was killed has left. Its mounts have ended with it; nothing below another mount is ours anyway.
    rm -rf --one-file-system "$place".new.*
    begun=$(mktemp -d "$place.new.XXXXXX")
    # A mirror that is behind may have lists that are past their date, which only sid's carry.
    [ "$release" != sid ] || options+=(--aptopt='Acquire::Check-Valid-Until "false"')
    echo "making a root of Debian $release with its engines from $archive: a minute, 600 MB" >&2
    if ! mmdebstrap --quiet --variant=minbase --include="$packages" "${options[@]}" \
        "$release" "$begun" "deb $archive $release main" >&2; then
        rm -rf --one-file-system "$begun"
        refuse "mmdebstrap failed"
    fi
    chmod 755 "$begun"
    mv -T "$begun" "$place"
}

if [ $# -eq 0 ]; then
    set -- trixie
fi
mkdir -p "$roots"
for release in "$@"; do
    place=$roots/$release-$version
    # Tests run at once and may all want the same root: the first makes it, the others wait. What has this name is whole.
    exec 9>"$roots/.$release.lock"
    flock 9
    [ -d "$place" ] || make_root
    exec 9>&-
    echo "$place"
done
