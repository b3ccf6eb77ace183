#!/usr/bin/env bash
# The whole check of Lamina on a machine with an NVIDIA GPU, in one call: packages, build, tests, sanitizers, losses,
# benchmarks, peers. What it finds is one report, written anew after every step.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
all_steps=(packages device build tests sanitizers losses axis shared layer train peers)
work=$root/build/gpu_check
build=$root/build/cuda
prefix=$root/build/gpu_packages
report=
packages=
python=python3
text=
minutes=9.5
filter='*-*Large*:*Slow*'
wanted=()

# Seconds that a step may take; the last one may take what is left.
declare -A limits=([packages]=60 [device]=30 [build]=240 [tests]=120 [sanitizers]=120 [losses]=60 [axis]=60 [shared]=40 [layer]=90
  [train]=40 [peers]=3600)

# The quickstart's model, and for how long its losses are compared.
model=(--layers 1 --hidden 512 --embedding 128 --batch 32 --time-steps 64 --optimizer adam --learning-rate 2e-3
  --clip-norm 1 --seed 1 --lane-groups 4 --steps 200 --log-every 10 --validation-fraction 0)
layer_hidden=(1024 768 2048)
layer_batch=(32 64 16 512)
layer_steps=512

usage() {
  cat <<'USAGE'
Checks and measures Lamina on a machine with an NVIDIA GPU, in under ten minutes, and writes one report (Markdown, and
all figures beside it as JSON). CUDA's compiler, a C++ compiler and Python 3 must be there, for the peers PyTorch.

  launch/gpu_check.sh [--packages DIR] [--report FILE] [--only STEP,…] [--minutes N]
                      [--text FILE] [--python PROGRAM] [--filter PATTERNS]

  --packages DIR     where 'launch/gpu_packages.sh collect DIR' has put Debian's packages; what this machine lacks is
                     unpacked from there below build/gpu_packages
  --report FILE      (default: build/gpu_check/report.md)
  --only STEP,…      these steps only; what the report says of the others stays
  --minutes N        time for everything (default: 9.5)
  --text FILE        what is learned when losses are compared (default: the quickstart's text, or this repository's own)
  --python PROGRAM   a Python with PyTorch (default: python3)
  --filter PATTERNS  of GoogleTest: what runs under the sanitizers (default: *-*Large*:*Slow*)

Steps: packages (unpacks what is missing), device (GPU, versions), build (build/cuda), tests (ctest -L gpu), sanitizers
(compute-sanitizer: memcheck, racecheck, synccheck), losses (training on the GPU beside the CPU), axis (the persistent
time loop on two GPUs beside one, where there are two), shared (two ranks on one GPU, by NCCL over sockets beside the
host's memory), layer, train (benchmarks), peers (PyTorch and JAX beside Lamina). A step that fails or takes too long is recorded with its reason, and the others go on.

Exit codes: 0 all steps are done, 1 one failed, 2 wrong arguments, 3 there is no GPU for the steps that need one.
USAGE
}

refuse() {
  printf 'gpu_check.sh: %s; see --help.\n' "$*" >&2
  exit 2
}

# --- arguments ------------------------------------------------------------------------------------------------

read_arguments() {
  while (($#)); do
    case "$1" in
      --packages | --report | --only | --minutes | --text | --python | --filter)
        [[ -n "${2:-}" ]] || refuse "$1 needs a value"
        case "$1" in
          --packages) packages=$2 ;;
          --report) report=$2 ;;
          --only) IFS=, read -r -a wanted <<<"$2" ;;
          --minutes) minutes=$2 ;;
          --text) text=$2 ;;
          --python) python=$2 ;;
          --filter) filter=$2 ;;
        esac
        shift
        ;;
      --help | -h) usage; exit 0 ;;
      *) refuse "'$1' is no option of this script" ;;
    esac
    shift
  done
  [[ "$minutes" =~ ^[0-9]+(\.[0-9]+)?$ ]] || refuse "--minutes $minutes is no number"
  [[ -z "$text" || -r "$text" ]] || refuse "--text $text cannot be read"
  [[ -z "$packages" || -d "$packages" ]] || refuse "--packages $packages is no folder"
  local step
  for step in "${wanted[@]}"; do
    [[ " ${all_steps[*]} " == *" $step "* ]] || refuse "'$step' is no step; there are ${all_steps[*]}"
  done
  command -v "$python" >/dev/null || refuse "there is no '$python', which writes the report"
}

is_wanted() { ((${#wanted[@]} == 0)) || [[ " ${wanted[*]} " == *" $1 "* ]]; }

# --- records, from which the report is made ---------------------------------------------------------------------

begin_records() {
  if ((${#wanted[@]} == 0)); then rm -rf -- "${work:?}"; fi
  mkdir -p "$work/steps" "$work/commands" "$work/logs" "$work/figures" "$(dirname "$report")"
}

# Of the step at hand: how it is or ended.
record() { printf '%s\t%s\t%s\n' "$1" "$((SECONDS - step_began))" "${reason:-}" >"$work/steps/$step"; }

fact() { printf '%s\t%s\n' "$1" "$2" >>"$work/facts"; }

write_report() { "$python" "$root/launch/gpu_report.py" "$work" "$report"; }

last_line() { tr '\r\t' '\n ' <"$1" | grep -v '^[[:space:]]*$' | tail -n 1 | cut -c 1-300 || true; }

# Runs a command in the time that the step has left. Its output goes to the step's log; says in `reason` why it failed.
attempt() {
  local left=$((step_ends - SECONDS)) status=0 name=${1##*/}
  printf '%q ' "$@" | sed "s# \$##; s#$root/##g" >>"$work/commands/$step"
  echo >>"$work/commands/$step"
  if ((left <= 0)); then
    reason="no time was left for '$name'"
    return 1
  fi
  timeout --kill-after=5 "$left" "$@" >"$work/last" 2>&1 || status=$?
  cat "$work/last" >>"$work/logs/$step"
  case "$status" in
    0) return 0 ;;
    124 | 137) reason="'$name' did not end within $left s" ;;
    *) reason="'$name' ended with code $status: $(last_line "$work/last")" ;;
  esac
  return 1
}

# A step returns 0 when it is done, 1 when it failed, 5 when it has nothing to do here.
run_step() {
  step=$1 step_began=$SECONDS reason=''
  is_wanted "$step" || return 0
  step_ends=$((SECONDS + limits[$step] < ends ? SECONDS + limits[$step] : ends))
  rm -f -- "$work/commands/$step" "$work/logs/$step"
  if ((step_ends - SECONDS < 3)); then
    reason='no time was left'
    record skipped
    failures+=("$step")
  else
    printf '== %s (at most %d s)\n' "$step" $((step_ends - SECONDS))
    reason='the call ended while this ran'
    record failed
    write_report
    reason=
    local status=0
    "step_$step" || status=$?
    case "$status" in
      0) record 'done' ;;
      5) record skipped ;;
      *) record failed && failures+=("$step") ;;
    esac
    printf '   %s\n' "$(tr '\t' ' ' <"$work/steps/$step")"
  fi
  write_report
}

# --- packages ---------------------------------------------------------------------------------------------------

use_packages() {
  # shellcheck disable=SC1091
  if [[ -r "$prefix/environment.sh" ]]; then source "$prefix/environment.sh"; fi
}

has_header() { "${CXX:-c++}" -E -x c++ - <<<"#include <$1>" >/dev/null 2>&1; }

cmake_is_new() {
  local version
  version=$(cmake --version | sed -nE '1s/[^0-9]*([0-9.]+).*/\1/p')
  printf '%s\n' 3.25 "$version" | sort --check=quiet --version-sort
}

missing() {
  local name
  for name in mpirun mpicc h5pcc cmake ninja; do
    command -v "$name" >/dev/null || echo "$name"
  done
  for name in dnnl.hpp hwy/highway.h gtest/gtest.h CLI/CLI.hpp fmt/format.h nlohmann/json.hpp xxhash.h zlib.h; do
    has_header "$name" || echo "$name"
  done
  if command -v cmake >/dev/null && ! cmake_is_new; then echo "cmake 3.25"; fi
}

step_packages() {
  local lacks
  lacks=$(missing | paste -s -d ' ')
  if [[ -z "$lacks" ]]; then
    reason='nothing is missing'
    return 0
  fi
  if [[ -z "$packages" ]]; then
    reason="this machine lacks $lacks, and no --packages was given"
    return 1
  fi
  attempt "$root/launch/gpu_packages.sh" unpack "$packages" "$prefix" || return 1
  use_packages
  reason="unpacked for want of $lacks"
  lacks=$(missing | paste -s -d ' ')
  [[ -z "$lacks" ]] && return 0
  reason="after unpacking there is still no $lacks"
  return 1
}

# --- the GPU ----------------------------------------------------------------------------------------------------

# Why there is no GPU; nothing where there is one.
why_no_gpu() {
  if [[ "${CUDA_VISIBLE_DEVICES-0}" =~ ^(-1.*)?$ ]]; then
    echo "CUDA_VISIBLE_DEVICES hides all"
  elif ! command -v nvidia-smi >/dev/null; then
    echo "there is no nvidia-smi"
  elif ! nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then
    echo "nvidia-smi lists none"
  fi
}

# The folder of a file of NVIDIA's Python packages.
wheel_folder() {
  "$python" - "$1" <<'PYTHON' 2>/dev/null
import glob, os, sys
for folder in sys.path:
    for file in sorted(glob.glob(os.path.join(folder, "nvidia", "**", sys.argv[1]), recursive=True)):
        sys.exit(print(os.path.dirname(file)))
PYTHON
}

# CUDA's compiler, NCCL's header and cuBLASLt: of the toolkit, or of Python packages.
use_cuda() {
  local nccl cublas headers
  export PATH=$PATH:/usr/local/cuda/bin:/usr/local/nvidia/bin
  nccl=$(wheel_folder nccl.h || true)
  cublas=$(wheel_folder 'libcublasLt.so.*' || true)
  headers=$(wheel_folder cublasLt.h || true)
  export CMAKE_INCLUDE_PATH=${CMAKE_INCLUDE_PATH:+$CMAKE_INCLUDE_PATH:}$headers
  if [[ -n "$nccl" ]]; then export NCCL_HOME=${NCCL_HOME:-${nccl%/include}}; fi
  export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}/usr/local/cuda/lib64${cublas:+:$cublas}${nccl:+:${nccl%/include}/lib}
}

step_device() {
  rm -f -- "$work/facts"
  fact Lamina "$(git -C "$root" describe --always --dirty 2>/dev/null || echo 'unknown commit')"
  fact System "$(sed -nE 's/^PRETTY_NAME="?([^"]*)"?/\1/p' /etc/os-release), $(uname -r)"
  fact CPU "$(awk -F': ' '/^model name/ { print $2; exit }' /proc/cpuinfo), $(nproc) cores"
  fact 'C++ compiler' "$("${CXX:-c++}" --version 2>/dev/null | head -n 1)"
  fact nvcc "$(nvcc --version 2>/dev/null | awk -F, '/release/ { print $2 $3 }' || true)"
  attempt nvidia-smi || return 1
  fact GPU "$(nvidia-smi --query-gpu=name,driver_version,memory.total,compute_cap,clocks.max.sm --format=csv,noheader | paste -s -d ';')"
  attempt "$python" -c 'import torch; print("PyTorch", torch.__version__, "CUDA", torch.version.cuda, "cuDNN", torch.backends.cudnn.version())' &&
    fact PyTorch "$(last_line "$work/last")"
  attempt "$python" -c 'import jax; print("JAX", jax.__version__)' && fact JAX "$(last_line "$work/last")"
  reason=
}

# --- build and tests --------------------------------------------------------------------------------------------

# Programs of the tests for GPUs, by their path. From what CTest reads, for it tells no command that is not yet built.
gpu_programs() {
  "$python" - "$build" <<'PYTHON' 2>/dev/null || true
import pathlib, re, sys
build = pathlib.Path(sys.argv[1])
text = "\n".join(file.read_text() for file in build.rglob("CTestTestfile.cmake"))
name = r'\((\[=*\[.*?\]=*\]|"[^"]*"|\S+) '
commands = dict(re.findall(rf"^add_test{name}(.*)\)$", text, re.M))
labels = dict(re.findall(rf'^set_tests_properties{name}.*? LABELS "([^"]*)"', text, re.M))
words = [word for test, command in commands.items() if "gpu" in labels.get(test, "").split(";")
         for word in re.findall(r'"([^"]*)"', command)]
print("\n".join(sorted({word for word in words if word.startswith(f"{build}/")})))
PYTHON
}

step_build() {
  local capability architecture=() programs=() targets=(lamina)
  capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d '. ')
  if [[ "$capability" =~ ^[0-9]+$ ]]; then architecture=("-DCMAKE_CUDA_ARCHITECTURES=$capability-real"); fi
  attempt env -C "$root" cmake --preset cuda -DPython3_EXECUTABLE="$(command -v "$python")" "${architecture[@]}" || return 1
  mapfile -t programs < <(gpu_programs)
  if [[ -n "${programs[*]}" ]]; then targets+=("${programs[@]##*/}"); fi
  attempt env -C "$root" cmake --build --preset cuda --parallel "$(nproc)" --target "${targets[@]}" || return 1
}

is_built() {
  [[ -x "$build/lamina" ]] && return 0
  reason="there is no build/cuda/lamina"
  return 1
}

step_tests() {
  is_built || return 5
  if [[ -z "$(gpu_programs)" ]]; then
    reason='no test has the label gpu'
    return 5
  fi
  attempt ctest --test-dir "$build" -L gpu --output-on-failure --timeout 60 || {
    reason=$(grep -E '^[0-9]+% tests passed' "$work/last" || echo "$reason")
    return 1
  }
  reason=$(grep -E '^[0-9]+% tests passed' "$work/last" || true)
}

step_sanitizers() {
  local tool program programs=() result share wrong=() ends_of_step=$step_ends runs_left
  is_built || return 5
  if ! command -v compute-sanitizer >/dev/null; then
    reason='there is no compute-sanitizer'
    return 5
  fi
  mapfile -t programs < <(gpu_programs)
  if [[ -z "${programs[*]}" ]]; then
    reason='no test has the label gpu'
    return 5
  fi
  rm -f -- "$work/figures/sanitizers"
  runs_left=$((3 * ${#programs[@]}))
  for tool in memcheck racecheck synccheck; do
    for program in "${programs[@]}"; do
      share=$((2 * (ends_of_step - SECONDS) / runs_left)) # most take less than their share
      runs_left=$((runs_left - 1))
      step_ends=$((SECONDS + share < ends_of_step ? SECONDS + share : ends_of_step))
      result='no error'
      if ! attempt compute-sanitizer --tool "$tool" --error-exitcode 9 "$program" "--gtest_filter=$filter"; then
        result=$(grep -E 'ERROR SUMMARY|RACECHECK SUMMARY' "$work/last" | tail -n 1 | sed 's/^=* *//' || true)
        result=${result:+$result; }$reason
        wrong+=("${program##*/}")
      fi
      printf '%s\t%s\t%s\n' "$tool" "${program##*/}" "$result" >>"$work/figures/sanitizers"
      write_report
    done
  done
  reason="${#wrong[@]} of $((3 * ${#programs[@]})) runs were not clean"
  ((${#wrong[@]} == 0))
}

# --- figures ----------------------------------------------------------------------------------------------------

prepare_text() {
  if [[ -n "$text" ]]; then return 0; fi
  text=$root/quickstart/kjv.txt
  if [[ -s "$text" ]]; then return 0; fi
  text=$work/text.txt
  find "$root" -maxdepth 1 -name '*.md' -print0 | sort -z | xargs -0 cat >"$text"
  find "$root/runtime" "$root/model" "$root/kernels" "$root/io" "$root/launch" \( -name '*.cpp' -o -name '*.h' \) -print0 |
    sort -z | xargs -0 cat >>"$text"
}

step_losses() {
  local device
  is_built || return 5
  prepare_text
  rm -f -- "$work/figures/losses.json"
  for device in cpu cuda; do
    rm -f -- "$work/$device.jsonl"
    attempt "$build/lamina" train --device "$device" --data "$text" "${model[@]}" --metrics "$work/$device.jsonl" || return 1
  done
  attempt "$root/launch/compare_losses.py" "$work/cpu.jsonl" "$work/cuda.jsonl" --json "$work/figures/losses.json" || {
    reason=$(last_line "$work/last")
    return 1
  }
  reason=$(last_line "$work/last")
}

# Kernels of two GPUs that store into each other's memory, beside one GPU's: the same losses to the last bit.
step_axis() {
  local ranks
  is_built || return 5
  if (($(nvidia-smi -L 2>/dev/null | grep -c '^GPU') < 2)); then
    reason='there is one GPU only'
    return 5
  fi
  prepare_text
  for ranks in 1 2; do
    rm -f -- "$work/axis-$ranks.jsonl"
    attempt mpirun -n "$ranks" "$build/lamina" train --device cuda --precision bf16 --time-loop persistent \
      --model-parallel "$ranks" --data "$text" "${model[@]}" --metrics "$work/axis-$ranks.jsonl" || return 1
  done
  attempt "$root/launch/compare_losses.py" "$work/axis-1.jsonl" "$work/axis-2.jsonl" --first-tolerance 0 --tolerance 0 || {
    reason=$(last_line "$work/last")
    return 1
  }
  reason=$(last_line "$work/last")
}

# Two ranks on one GPU, whose NCCL takes them for ranks of two hosts: the losses of ranks that exchange through the
# host's memory, to the last bit. NCCL need not allow it.
step_shared() {
  local words way short=("${model[@]/#200/10}")
  is_built || return 5
  prepare_text
  for way in staged nccl; do
    rm -f -- "$work/shared-$way.jsonl"
    words=("$build/lamina" train --device cuda --model-parallel 2 --collective-timeout 10 --data "$text" "${short[@]}"
      --metrics "$work/shared-$way.jsonl")
    if [[ "$way" == staged ]]; then
      attempt env LAMINA_NCCL=0 mpirun -n 2 "${words[@]}" || return 1
    else
      attempt env LAMINA_NCCL_SHARED_GPU=1 NCCL_NET=Socket NCCL_SOCKET_IFNAME=lo mpirun \
        -n 1 -x NCCL_HOSTID=first "${words[@]}" : -n 1 -x NCCL_HOSTID=second "${words[@]}" || {
        reason="NCCL did not let two ranks share the GPU: $reason"
        return 5
      }
    fi
  done
  attempt "$root/launch/compare_losses.py" "$work/shared-staged.jsonl" "$work/shared-nccl.jsonl" --first-tolerance 0 --tolerance 0 || {
    reason=$(last_line "$work/last")
    return 1
  }
  reason=$(last_line "$work/last")
}

step_layer() {
  local hidden batch missed=() first_reason=''
  is_built || return 5
  rm -f -- "$work"/figures/layer-*.json
  for batch in "${layer_batch[@]}"; do
    for hidden in "${layer_hidden[@]}"; do
      attempt "$build/lamina" benchmark layer --device cuda --hidden "$hidden" --batch "$batch" --steps "$layer_steps" \
        --repetitions 5 --json "$work/figures/layer-$hidden-$batch.json" || {
        missed+=("$hidden x $batch")
        first_reason=${first_reason:-$reason}
        rm -f -- "$work/figures/layer-$hidden-$batch.json"
      }
    done
  done
  reason=${first_reason:+${#missed[@]} shapes failed, the first: $first_reason}
  ((${#missed[@]} == 0))
}

step_train() {
  local hidden
  is_built || return 5
  rm -f -- "$work"/figures/train-*.json
  for hidden in 512 1024 2048; do
    attempt "$build/lamina" benchmark train --device cuda --hidden "$hidden" --embedding 128 --batch 32 --time-steps 64 \
      --steps 20 --json "$work/figures/train-$hidden.json" || {
      rm -f -- "$work/figures/train-$hidden.json"
      return 1
    }
  done
}

step_peers() {
  local seconds=$((step_ends - SECONDS))
  is_built || return 5
  if ! "$python" -c 'import torch, numpy' 2>/dev/null; then
    reason="'$python' has no PyTorch or no NumPy"
    return 5
  fi
  rm -f -- "$work/figures/peers.json"
  # A shape that was begun must end before the step does.
  attempt "$root/launch/compare_gpu_peers.py" --build "$build" --python "$(command -v "$python")" --json "$work/figures/peers.json" \
    --minutes "$(awk -v s="$seconds" 'BEGIN { print (s > 60 ? s - 40 : s / 3) / 60 }')"
}

# --- all --------------------------------------------------------------------------------------------------------

needs_gpu() {
  local name
  for name in "${all_steps[@]}"; do
    case "$name" in packages | build) ;; *) if is_wanted "$name"; then return 0; fi ;; esac
  done
  return 1
}

main() {
  read_arguments "$@"
  report=${report:-$work/report.md}
  report=$(realpath --canonicalize-missing -- "$report")
  ends=$((SECONDS + $(awk -v m="$minutes" 'BEGIN { print int(m * 60) }')))
  failures=()
  export PYTHONDONTWRITEBYTECODE=1 OMPI_MCA_btl_vader_single_copy_mechanism=none
  export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none
  if ((EUID == 0)); then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi
  begin_records
  use_packages
  use_cuda
  write_report
  run_step packages

  local why
  why=$(why_no_gpu)
  if [[ -n "$why" ]] && needs_gpu; then
    step=device step_began=$SECONDS reason="there is no GPU: $why"
    record failed
    write_report
    printf 'gpu_check.sh: there is no GPU here (%s), so nothing that needs one was run; the report is %s.\n' "$why" "$report" >&2
    exit 3
  fi

  local name
  for name in "${all_steps[@]:1}"; do run_step "$name"; done
  printf 'The report is %s.\n' "$report"
  ((${#failures[@]} == 0)) || exit 1
}

main "$@"
