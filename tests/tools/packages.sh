#!/usr/bin/env bash
# Sees to the Debian packages whose programs the tests run: installs what is missing where that is allowed, and says
# what to install where it isn't.
#
#   tests/tools/packages.sh
set -euo pipefail

# program:package
wanted=(docker-registry:docker-registry htpasswd:apache2-utils openssl:openssl dockerd:docker.io docker:docker.io
    skopeo:skopeo podman:podman crun:crun containerd:containerd ctr:containerd mmdebstrap:mmdebstrap
    chromium:chromium)

missing=()
for pair in "${wanted[@]}"; do
    type -P "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
# A browser without any font shows nothing but boxes, and lays pages out as nobody sees them.
if [ -z "$(find /usr/share/fonts -name '*.ttf' -print -quit 2>/dev/null)" ]; then
    missing+=(fonts-dejavu-core)
fi
if [ ${#missing[@]} -eq 0 ]; then
    exit 0
fi

if [ "$(id -u)" -eq 0 ]; then
    root=()
elif sudo -n true 2>/dev/null; then
    root=(sudo -n)
else
    echo "packages.sh: the tests need: ${missing[*]}; install them with: apt-get install ${missing[*]}" >&2
    exit 1
fi
if ! type -P apt-get >/dev/null; then
    echo "packages.sh: the tests need: ${missing[*]} (Debian's names); there is no apt-get here to install them" >&2
    exit 1
fi

echo "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
# The packages of the registry and of the engines start services of their own, which nobody here asked for.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee "$policy" >/dev/null
    "${root[@]}" chmod +x "$policy"
    trap '"${root[@]}" rm -f "$policy"' EXIT
fi
"${root[@]}" apt-get update -qq
"${root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}"
