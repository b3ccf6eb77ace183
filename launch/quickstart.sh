#!/usr/bin/env bash
# From a bare Debian 12 machine to a trained model: packages, build, text, training, resuming, evaluation,
# generated text, loss curve. A second run installs nothing and trains anew.
set -euo pipefail

# --- what is trained ------------------------------------------------------------------------------------------
layers=1
hidden=512
embedding=128
batch=32
time_steps=64
steps=3000
learning_rate=2e-3
# A schedule that does not look at the last step, for the first half is run without knowing of the second.
schedule=(--learning-rate-schedule step --decay-every 600 --decay-factor 0.6 --warmup 100)
log_every=50
prompt="And it came to pass"
length=400

make_short() {
  hidden=64
  embedding=32
  batch=16
  time_steps=32
  steps=80
  schedule=(--learning-rate-schedule step --decay-every 30 --decay-factor 0.6 --warmup 10)
  log_every=10
  length=120
}

# --- how it is run --------------------------------------------------------------------------------------------
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=$root/quickstart
preset=release
ranks=
short=
lane_groups=4  # fixed: every number of ranks gives the same model, bit for bit

usage() {
  cat <<'USAGE'
Installs what Lamina needs, builds it, and trains a small model on the King James text:
about three minutes of training on four cores.

  launch/quickstart.sh [--short] [--ranks N] [--folder DIR] [--preset NAME]

  --short       a tiny model and few steps, to see that everything works
  --ranks N     processes: 1, 2, 4 or 8 (default: 4, fewer on fewer cores)
  --folder DIR  where text, checkpoints, metrics and the loss curve go (default: quickstart/)
  --preset NAME the build that is used: release (default) or dev
  --help        this text
USAGE
}

heading() { printf '\n== %s\n' "$*"; }

fail() {
  printf 'quickstart: %s\n' "$*" >&2
  exit 1
}

refuse() {
  printf 'quickstart: %s; see --help.\n' "$*" >&2
  exit 2
}

read_arguments() {
  while (($#)); do
    case "$1" in
      --short) short=yes ;;
      --ranks | --folder)
        [[ -n "${2:-}" ]] || refuse "$1 needs a value"
        if [[ "$1" == --ranks ]]; then ranks=$2; else folder=$(realpath --canonicalize-missing -- "$2"); fi
        shift
        ;;
      --preset)
        preset=${2:-}
        case "$preset" in
          release | dev) shift ;;
          *) refuse "'$preset' is no preset; choose release or dev" ;;
        esac
        ;;
      --help | -h) usage; exit 0 ;;
      *) refuse "'$1' is no option of this script" ;;
    esac
    shift
  done
}

choose_grid() {
  if [[ -z "$ranks" ]]; then
    local cores
    cores=$(nproc)
    ranks=$((cores >= 4 ? 4 : cores >= 2 ? 2 : 1))
  fi
  case "$ranks" in
    1) data_ranks=1 model_ranks=1 ;;
    2) data_ranks=1 model_ranks=2 ;;
    4) data_ranks=2 model_ranks=2 ;;
    8) data_ranks=4 model_ranks=2 ;;
    *) refuse "--ranks $ranks cannot be placed on a grid; choose 1, 2, 4 or 8" ;;
  esac
}

prepare_mpi() {
  export OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_btl_vader_single_copy_mechanism=none
  if ((EUID == 0)); then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  fi
}

build() {
  local configure=(cmake --preset "$preset")
  [[ -d "$root/build/$preset" ]] || configure+=(-DLAMINA_TESTS=OFF) # tests that somebody built stay
  (cd "$root" && "${configure[@]}" && cmake --build --preset "$preset" --target lamina)
}

# The text without its verse labels, if it is the one we know.
take_text() {
  bible -f 'Gen1:1-Rev22:21' | LC_ALL=C sed -E 's/^[0-9]?[A-Za-z]+[0-9]+:[0-9]+ //' >"$text.partial" || return 1
  local verses characters kinds
  verses=$(wc -l <"$text.partial")
  characters=$(wc -c <"$text.partial")
  kinds=$(($(LC_ALL=C fold -w 1 "$text.partial" | LC_ALL=C sort -u | wc -l) + 1)) # and the end of line
  if ((verses != 31102 || kinds != 63 || characters < 4000000 || characters > 4300000)); then
    fail "the text of 'bible' has $verses verses, $characters characters and $kinds different ones;" \
      "31102, about 4.1 million and 63 were expected; is another edition than Debian's bible-kjv installed?"
  fi
  mv "$text.partial" "$text"
}

# The part that training holds out by default: the last 5 % (of bytes, which here are characters).
hold_out() {
  tail -c $(($(wc -c <"$text") * 5 / 100)) "$text" >"$held_out"
}

train() {
  mpirun -n "$ranks" --oversubscribe --bind-to none "$lamina" train --data "$text" --validation-fraction 0.05 \
    --model-parallel "$model_ranks" --lane-groups "$lane_groups" \
    --layers "$layers" --hidden "$hidden" --embedding "$embedding" --batch "$batch" --time-steps "$time_steps" \
    --optimizer adam --learning-rate "$learning_rate" "${schedule[@]}" --clip-norm 1 --seed 1 \
    --checkpoint "$checkpoints" --checkpoint-every $((steps / 4)) --metrics "$metrics" --log-every "$log_every" \
    "$@" </dev/null
}

number() { sed -nE "s/.*\"$1\": *([0-9.eE+-]+).*/\1/p" "$2" | tail -n 1; }

check_end() {
  local step
  step=$(number step "$metrics")
  [[ "$step" == "$steps" ]] || fail "the metrics end at step '$step' instead of $steps: it did not resume to the end."
}

summarize() {
  heading "Done in $((SECONDS / 60)) min $((SECONDS % 60)) s"
  printf '  %-14s %s\n' \
    "Held-out text" "$(LC_ALL=C printf '%.3f' "$(number bits_per_character "$evaluation")") bits per character" \
    "Training" "$steps steps in $training_seconds s on a ${data_ranks}x$model_ranks grid (data x model), resumed at step $((steps / 2))" \
    "Loss curve" "$picture" \
    "Generated text" "$generated" \
    "Checkpoints" "$checkpoints" \
    "Metrics" "$metrics"
}

main() {
  read_arguments "$@"
  [[ -z "$short" ]] || make_short
  choose_grid
  prepare_mpi
  lamina=$root/build/$preset/lamina
  text=$folder/kjv.txt held_out=$folder/held_out.txt checkpoints=$folder/checkpoints
  metrics=$folder/metrics.jsonl evaluation=$folder/evaluation.json generated=$folder/generated.txt
  picture=$folder/loss.png
  mkdir -p -- "$folder" || fail "cannot make the folder '$folder'; choose another with --folder."

  heading "Packages"
  "$root/launch/packages.sh" build quickstart || fail "the packages could not be installed."
  echo "All there."

  heading "Build"
  build || fail "the build failed; its first error is above."

  heading "Text"
  [[ -s "$text" ]] || take_text || fail "the text could not be taken from 'bible'."
  hold_out || fail "the held-out text could not be written to '$held_out'."
  echo "King James text in $text; its last 5 % are held out."

  heading "Training, first half: steps 1 to $((steps / 2)) of $steps"
  [[ ! -d "$checkpoints" ]] || echo "Starting anew; the checkpoints of an earlier run are replaced."
  local start=$SECONDS
  train --steps $((steps / 2)) --overwrite || fail "training failed; the reason is above."

  heading "Training, second half: resumed from the checkpoint of step $((steps / 2))"
  train --steps "$steps" --resume || fail "resuming failed; the reason is above."
  check_end
  training_seconds=$((SECONDS - start))

  heading "Evaluation on the held-out text"
  "$lamina" evaluate --checkpoint "$checkpoints" --data "$held_out" --batch 16 --json >"$evaluation" ||
    fail "the evaluation failed; the reason is above."
  cat "$evaluation"

  heading "Generated text"
  "$lamina" generate --checkpoint "$checkpoints" --prompt "$prompt" --length "$length" --temperature 0.7 --seed 1 |
    tee "$generated" || fail "no text could be generated; the reason is above."

  heading "Loss curve"
  "$root/launch/plot_loss.sh" "$metrics" "$picture" \
    "King James text: LN-LSTM of $layers x $hidden units on a ${data_ranks}x$model_ranks grid" $((steps / 2)) ||
    fail "the loss curve could not be drawn; the reason is above."
  echo "$picture"

  summarize
}

main "$@"
