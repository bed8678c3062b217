#!/usr/bin/env bash
# What `make demo` shows, on whichever host has KVM. Leaves the host as it was.
set -euo pipefail
image=$1

say() { printf '\n\033[1m$ %s\033[0m\n' "$*"; "$@"; }

banger image show "$image" >/dev/null 2>&1 || say banger image pull "$image"
say banger image list
say banger vm create demo --image "$image" --memory 512M
trap 'banger vm delete demo --force --now --yes >/dev/null 2>&1 || true' EXIT
say banger vm ssh demo -- uname -a
say banger vm ssh demo -- systemctl is-system-running --wait
say banger op show --last
trap - EXIT
say banger vm delete demo --force --now --yes
say banger vm list
