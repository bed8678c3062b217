#!/usr/bin/env bash
# The main job, shown: an image, a VM with live stages, a command in it over SSH, its end.
# Runs on this host where KVM is usable, otherwise in the lab; and says which and why.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/bin:$PATH"
image=debian:12

if why=$(banger-lab kvm 2>&1); then
  echo "demo: KVM is usable here ($why), so this runs on this host"
  exec scripts/demo-steps.sh "$image"
fi
echo "demo: KVM is not usable here ($why), so this runs in the lab, a host with KVM under emulation"
banger-lab images "$image"
exec banger-lab run --disk 8G -- /src/scripts/demo-steps.sh "$image"
