#!/usr/bin/env bash
# Installs the Debian 12 packages that Lamina needs: those that are missing, and nothing when none is.
#   launch/packages.sh [--list] SET...     sets: build, test, quickstart; --list names them and installs nothing
set -euo pipefail

build=(g++ cmake ninja-build libopenmpi-dev openmpi-bin libhdf5-openmpi-dev libdnnl-dev libhwy-dev libcli11-dev
  libfmt-dev nlohmann-json3-dev libxxhash-dev zlib1g-dev)
test=(libgtest-dev libgmock-dev clang-format python3 python3-h5py git)
quickstart=(bible-kjv bible-kjv-text gnuplot-nox)

fail() {
  echo "packages.sh: $*" >&2
  exit 1
}

is_installed() {
  [[ "$(dpkg-query --show --showformat '${db:Status-Status}' "$1" 2>/dev/null)" == installed ]]
}

list=
if [[ "${1:-}" == --list ]]; then
  list=yes
  shift
fi
wanted=()
for set in "$@"; do
  case "$set" in
    build) wanted+=("${build[@]}") ;;
    test) wanted+=("${test[@]}") ;;
    quickstart) wanted+=("${quickstart[@]}") ;;
    *) echo "packages.sh: '$set' is no set of packages; there are build, test and quickstart." >&2; exit 2 ;;
  esac
done

if [[ -n "$list" ]]; then
  printf '%s\n' "${wanted[@]}"
  exit 0
fi

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
  fail "this machine has no apt-get; Lamina's scripts are for Debian 12, elsewhere install the counterparts of" \
    "'${wanted[*]}' and build with 'cmake --preset release && cmake --build --preset release'."
fi

missing=()
for package in "${wanted[@]}"; do
  is_installed "$package" || missing+=("$package")
done
((${#missing[@]})) || exit 0

as_root=()
if ((EUID != 0)); then
  command -v sudo >/dev/null ||
    fail "installing '${missing[*]}' takes root or sudo, and there is neither; ask who looks after this machine."
  as_root=(sudo)
fi

echo "Installing ${#missing[@]} packages: ${missing[*]}"
apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Acquire::Retries=3
  -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0)
"${apt[@]}" update || fail "apt-get update failed; is there a network, and a package source in /etc/apt?"
"${apt[@]}" install --yes --no-install-recommends "${missing[@]}" >/dev/null ||
  fail "apt-get could not install '${missing[*]}'; Lamina's package names are those of Debian 12."
