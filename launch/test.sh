#!/usr/bin/env bash
# Sets up this machine, builds Lamina and runs its tests.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
preset=dev
filter=()

usage() {
  cat <<'USAGE'
Installs what the tests need, builds, and runs them through ctest.

  launch/test.sh [--preset NAME] [--quick]

  --preset NAME  dev (default: warnings are errors), release, asan (address and undefined behaviour) or tsan
                 (threads); the sanitized ones run the tests that need no mpirun
  --quick        only the tests that need no mpirun and no whole program
  --help         this text
USAGE
}

fail() {
  printf 'test.sh: %s\n' "$*" >&2
  exit 1
}

refuse() {
  printf 'test.sh: %s; see --help.\n' "$*" >&2
  exit 2
}

while (($#)); do
  case "$1" in
    --preset)
      preset=${2:-}
      case "$preset" in
        dev | release | asan | tsan) shift ;;
        *) refuse "'$preset' is no preset; choose dev, release, asan or tsan" ;;
      esac
      ;;
    --quick) filter=(--label-exclude 'mpi|program|slow') ;;
    --help | -h) usage; exit 0 ;;
    *) refuse "'$1' is no option of this script" ;;
  esac
  shift
done

cd "$root"
launch/packages.sh build test || fail "the packages could not be installed."
cmake --preset "$preset" -DLAMINA_TESTS=ON || fail "cmake could not configure the preset '$preset'."
cmake --build --preset "$preset" || fail "the build of the preset '$preset' failed; its first error is above."
ctest --preset "$preset" --output-on-failure --parallel "$(nproc)" --output-junit tests.xml "${filter[@]}"
