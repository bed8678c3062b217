#!/usr/bin/env bash
# A short smoke test of the banger that is installed on this host: a VM is made, asked, used over SSH where
# its image offers that, and deleted, and nothing of it stays. An image may be given; else it is the first there is.
set -euo pipefail

name=verify-$$
fail() { echo "FAIL $1" >&2; exit 1; }
ok() { echo "ok   $1"; }
clean_up() { banger vm delete --yes --force --now "$name" >/dev/null 2>&1 || true; }
trap clean_up EXIT

command -v banger >/dev/null || fail "banger is not on PATH: run sudo bin/banger setup"
banger status >/dev/null || fail "no daemon answers" # doctor alone does not start one
banger doctor >/dev/null || { banger doctor >&2 || true; fail "doctor found what has to be mended first"; }
ok "doctor"

image=${1:-$(banger image list -o name | head -n 1)}
[ -n "$image" ] || fail "there is no image: run banger image pull debian:12"

banger vm create "$name" --image "$image" --memory 512M >/dev/null 2>&1 || { banger vm create "$name" --image "$image" --memory 512M >&2 || true; fail "create from $image"; }
ok "create from $image"
banger vm ping "$name" >/dev/null || fail "ping"
ok "ping"
if banger image show "$image" -o json | grep -q '"port": 22\b'; then
  [ "$(banger vm ssh "$name" -- uname -s)" = Linux ] || fail "ssh"
  ok "ssh"
fi
banger vm stop "$name" >/dev/null 2>&1 || fail "stop"
banger vm start "$name" >/dev/null 2>&1 || fail "start"
ok "stop and start"
dir=$(banger vm show "$name" -o json | sed -n 's/^  "dir": "\(.*\)",*$/\1/p')
banger vm delete --yes --force --now "$name" >/dev/null || fail "delete"
! banger vm show "$name" >/dev/null 2>&1 || fail "it is still listed after delete"
[ -n "$dir" ] && [ ! -e "$dir" ] || fail "$dir is still there"
ok "delete leaves nothing"
