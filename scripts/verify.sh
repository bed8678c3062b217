#!/usr/bin/env bash
# A short smoke test of the banger that is installed on this host: a VM is made, asked, used over SSH where
# its image offers that, and deleted, and nothing of it stays. An image may be given; else it is the first there is.
#
# With --nat the guest connects to the host's first resolver by the host's NAT, which is turned off and on again meanwhile;
# --nat=HOST:PORT has it connect elsewhere.
set -euo pipefail

nat=
case ${1-} in
  --nat)
    nat=$(awk '$1 == "nameserver" && $2 !~ /^(127\.|::1|fe80:)/ { print $2; exit }' /etc/resolv.conf /run/systemd/resolve/resolv.conf 2>/dev/null)
    [ -n "$nat" ] || { echo "FAIL the host has no resolver but itself: give --nat=HOST:PORT" >&2; exit 1; }
    case $nat in *:*) nat="[$nat]:53" ;; *) nat=$nat:53 ;; esac
    shift ;;
  --nat=*) nat=${1#--nat=}; shift ;;
esac

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
reaches() { banger net explain "$name" "$nat" --probe >/dev/null 2>&1; }
if [ -n "$nat" ]; then
  reaches || { banger net explain "$name" "$nat" --probe >&2 || true; fail "reach $nat by NAT"; }
  for turn in off on off on; do
    banger vm set "$name" --nat $turn --nat6 $turn >/dev/null 2>&1 || fail "turn NAT $turn"
    if reaches; then is=on; else is=off; fi
    [ $is = $turn ] || { banger net explain "$name" "$nat" --probe >&2 || true; fail "with NAT $turn the guest acts as if it were $is"; }
  done
  ok "NAT on and off, to $nat"
fi
banger vm stop "$name" >/dev/null 2>&1 || fail "stop"
banger vm start "$name" >/dev/null 2>&1 || fail "start"
ok "stop and start"
dir=$(banger vm show "$name" -o json | sed -n 's/^  "dir": "\(.*\)",*$/\1/p')
banger vm delete --yes --force --now "$name" >/dev/null || fail "delete"
! banger vm show "$name" >/dev/null 2>&1 || fail "it is still listed after delete"
[ -n "$dir" ] && [ ! -e "$dir" ] || fail "$dir is still there"
ok "delete leaves nothing"
