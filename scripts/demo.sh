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
why=${why%%$'\n'*}
echo "demo: KVM is not usable here: ${why#banger-lab: }"
echo "demo: so this runs in the lab, an emulated host that has KVM. It is some twenty times slower than hardware."
echo "demo: the image $image is bootstrapped on this machine, where the lab's cache has none, and given to the lab"
exec banger-lab run --image "$image" -- /src/scripts/demo-steps.sh "$image"
