#!/usr/bin/env bash
# Makes sure that every program which building, testing and the demo need is there: installs Debian
# packages when it may, and says exactly which are missing when it may not.
set -euo pipefail

# program:package
needs=(
  git:git gcc:gcc make:make
  qemu-system-x86_64:qemu-system-x86 mmdebstrap:mmdebstrap
  mke2fs:e2fsprogs xz:xz-utils busybox:busybox-static
  ip:iproute2 ssh:openssh-client python3:python3 pip3:python3-pip
)

export PATH="$PATH:/usr/sbin:/sbin"
packages=()
for need in "${needs[@]}"; do
  command -v "${need%%:*}" >/dev/null || packages+=("${need#*:}")
done

if [ ${#packages[@]} -gt 0 ]; then
  sudo=()
  if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null || ! sudo -n true 2>/dev/null; then
      echo "setup: these packages are missing and need root to install:" >&2
      echo "  sudo apt-get install --no-install-recommends ${packages[*]}" >&2
      exit 1
    fi
    sudo=(sudo)
  fi
  if ! command -v apt-get >/dev/null; then
    echo "setup: programs of these Debian packages are missing, install their like: ${packages[*]}" >&2
    exit 1
  fi
  echo "setup: installing ${packages[*]}"
  "${sudo[@]}" apt-get update -qq
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi

want=$(awk '$1 == "go" {print $2}' go.mod)
if ! command -v go >/dev/null; then
  echo "setup: Go $want or newer is missing; install it from your distribution or from go.dev" >&2
  exit 1
fi
