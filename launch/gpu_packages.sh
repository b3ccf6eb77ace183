#!/usr/bin/env bash
# Takes Lamina's Debian 12 packages to a machine with a GPU that has neither them nor a network nor root rights.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

usage() {
  cat <<'USAGE'
launch/gpu_packages.sh collect DIR [--without-cmake]
    on Debian 12: downloads the packages that building and testing Lamina takes, and what they need, into DIR
    (57 MB; 35 MB without CMake, where the other machine has CMake 3.25 or newer); installs nothing

launch/gpu_packages.sh unpack DIR PREFIX
    on the other machine: unpacks them below PREFIX and changes nothing else; 'source PREFIX/environment.sh' then
    makes them found

The other machine needs a C library of Debian 12's age (glibc 2.36) or newer, dpkg-deb or ar and tar, and a C++
compiler of its own. Libraries that it has itself are used in place of the unpacked ones.
USAGE
}

fail() {
  echo "gpu_packages.sh: $*" >&2
  exit 1
}

refuse() {
  echo "gpu_packages.sh: $*; see --help." >&2
  exit 2
}

# --- collect --------------------------------------------------------------------------------------------------

# Parts of any system that has a compiler, and what a build without Fortran and X11 does without. A whole name.
left_out='libc6(-dev)?|libc-dev-bin|linux-libc-dev|lib(std)?c\+\+.*|libgcc.*|gcc.*|g\+\+.*|cpp.*|c-compiler|binutils.*'
left_out+='|lib(gomp1|quadmath0|atomic1|crypt1|crypt-dev|nsl-dev|nsl2|tirpc.*|gfortran.*|flang.*|llvm.*|js-.*)'
left_out+='|gfortran.*|flang.*|perl.*|libperl.*|python3.*|dpkg|debconf.*|cdebconf|passwd|adduser|openssh-client|procps|tar'
left_out+='|init-system-helpers|auto(conf|make)|autotools-dev|m4|libltdl-dev|libhwloc-plugins|rpcsvc-proto'
left_out+='|clang-format|git|libselinux1|libpam.*|libaudit.*|libsystemd0|libacl1|libjpeg.*|libhdf5-openmpi-.*cpp.*'

# What the packages need, of alternatives the first.
needs_of() {
  apt-cache depends --important --no-pre-depends "$@" 2>/dev/null |
    awk '/Depends:/ { if (!alternative) print $2; alternative = /^ *\|/ }' | grep -v '^<' | sort -u || true
}

is_left_out() {
  [[ "$1" =~ ^($left_out)$ || ( -n "$without_cmake" && "$1" == cmake ) ]]
}

collect() {
  local folder=$1 package names
  command -v apt-get >/dev/null || fail "this machine has no apt-get; collect on Debian 12."
  names=$("$root/launch/packages.sh" --list build test) || fail "the names of the packages could not be listed."
  local -A seen=()
  local open=() taken=() found=()
  mapfile -t open <<<"$names"
  while ((${#open[@]})); do
    taken=()
    for package in "${open[@]}"; do
      if [[ -z "${seen[$package]:-}" ]] && ! is_left_out "$package"; then taken+=("$package"); fi
      seen[$package]=yes
    done
    open=()
    ((${#taken[@]})) || break
    found+=("${taken[@]}")
    mapfile -t open < <(needs_of "${taken[@]}")
  done
  mkdir -p -- "$folder"
  (cd "$folder" && rm -f -- ./*.deb && apt-get download -qq -o APT::Sandbox::User="$(id -un)" "${found[@]}") ||
    fail "the packages could not be downloaded; does 'apt-get update' work here?"
  echo "$(find "$folder" -name '*.deb' | wc -l) packages, $(du -sh "$folder" | cut -f 1), in $folder"
}

# --- unpack ---------------------------------------------------------------------------------------------------

extract() {
  if command -v dpkg-deb >/dev/null; then
    dpkg-deb --extract "$1" "$prefix"
    return
  fi
  local data
  data=$(ar t "$1" | grep '^data\.') && ar p "$1" "$data" >"$prefix/$data" && tar --extract --file "$prefix/$data" \
    --directory "$prefix" && rm -- "$prefix/$data"
}

# Packages are made for /usr; what Debian's scripts would link at installation is linked here.
arrange() {
  local name target
  mkdir -p "$prefix/bin"
  for name in mpirun:orterun mpiexec:orterun mpicc:opal_wrapper mpicxx:opal_wrapper mpic++:opal_wrapper; do
    target=${name#*:}
    ln -sfn "../usr/bin/$target" "$prefix/bin/${name%%:*}"
  done
  for name in orted orterun; do ln -sfn "../usr/bin/$name" "$prefix/bin/$name"; done
  # The compiler wrapper that CMake's FindHDF5 asks.
  sed "s#/usr\b#$prefix/usr#g; 1s#.*#\#!/bin/sh#" "$prefix/usr/bin/h5pcc.openmpi" >"$prefix/bin/h5pcc"
  chmod +x "$prefix/bin/h5pcc"
  ln -sfn h5pcc "$prefix/bin/h5cc"
}

# What belongs into /lib, which is /usr/lib, and links to there.
merge_lib() {
  local link target
  if [[ -d "$prefix/lib" ]]; then
    cp --archive "$prefix/lib/." "$prefix/usr/lib/"
    rm -r "${prefix:?}/lib"
  fi
  find "$lib" -type l -lname '/*' | while read -r link; do
    target=$(basename "$(readlink "$link")")
    [[ ! -e "$lib/$target" ]] || ln -sfn "$target" "$link"
  done
}

# A library that the machine has is taken from there: an older one would be found first by other programs too.
prefer_own_libraries() {
  local name path
  while read -r name path; do
    [[ -L "$lib/$name" ]] && ln -sfn "$path" "$lib/$name"
  done < <({ ldconfig -p 2>/dev/null || /sbin/ldconfig -p; } | awk '/x86-64/ && !seen[$1]++ { print $1, $NF }' |
    grep -v -e '^libmpi' -e '^libopen-' -e '^libhdf5' -e '^libompi' | grep '\.so\.')
  return 0
}

write_environment() {
  cat >"$prefix/environment.sh" <<SETTINGS
# Lamina's packages below $prefix, for: source $prefix/environment.sh
export OPAL_PREFIX=$prefix/usr PMIX_MCA_pcompress_base_silence_warning=1
export OMPI_MCA_mca_base_component_show_load_errors=0  # of networks that are not here
export PATH=$prefix/bin:\$PATH:$prefix/usr/bin
export LD_LIBRARY_PATH=$lib:$lib/openmpi/lib\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}
export CPATH=$prefix/usr/include\${CPATH:+:\$CPATH}
export LIBRARY_PATH=$lib:$lib/openmpi/lib:$lib/hdf5/openmpi\${LIBRARY_PATH:+:\$LIBRARY_PATH}
export CMAKE_PREFIX_PATH=$prefix/usr\${CMAKE_PREFIX_PATH:+:\$CMAKE_PREFIX_PATH}
export CMAKE_LIBRARY_PATH=$lib CMAKE_INCLUDE_PATH=$prefix/usr/include
export HDF5_ROOT=$prefix MPI_HOME=$prefix/usr
SETTINGS
}

unpack() {
  local folder=$1 package
  [[ "$(uname -m)" == x86_64 ]] || fail "the packages are for x86_64, this machine is $(uname -m)."
  compgen -G "$folder/*.deb" >/dev/null || fail "there is no package in '$folder'; 'collect' fills it."
  mkdir -p -- "$2"
  prefix=$(cd "$2" && pwd)
  lib=$prefix/usr/lib/x86_64-linux-gnu
  for package in "$folder"/*.deb; do
    extract "$package" || fail "'$package' cannot be unpacked."
  done
  merge_lib
  arrange
  prefer_own_libraries
  write_environment
  echo "source $prefix/environment.sh"
}

case "${1:-}" in
  collect)
    (($# == 2)) || [[ $# == 3 && "${3:-}" == --without-cmake ]] || refuse "'collect' takes a folder, and --without-cmake"
    without_cmake=${3:-}
    collect "$2"
    ;;
  unpack)
    (($# == 3)) || refuse "'unpack' takes a folder and a prefix"
    unpack "$2" "$3"
    ;;
  --help | -h) usage ;;
  *) refuse "'${1:-}' is not 'collect' or 'unpack'" ;;
esac
