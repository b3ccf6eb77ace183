#!/usr/bin/env bash
# Draws the loss curve of a run: bits per character over steps, training and validation.
#   launch/plot_loss.sh METRICS.jsonl PICTURE.png [TITLE [RESUMED_STEP]]
set -euo pipefail

if (($# < 2 || $# > 4)); then
  echo "usage: plot_loss.sh METRICS.jsonl PICTURE.png [TITLE [RESUMED_STEP]]" >&2
  exit 2
fi
metrics=$1 picture=$2 title=${3:-} resumed_step=${4:-0}
if [[ ! -r "$metrics" ]]; then
  echo "plot_loss.sh: cannot read the metrics '$metrics'; 'lamina train --metrics FILE' writes such a file." >&2
  exit 1
fi

if ! [[ "$resumed_step" =~ ^[0-9]+$ ]]; then
  echo "plot_loss.sh: RESUMED_STEP is the step at which the run was resumed, a whole number, not '$resumed_step'." >&2
  exit 2
fi

columns=$(mktemp -d)
trap 'rm -rf "$columns"' EXIT

# One "step value" line per record that has the key with a number; both orders of the two keys.
curve() {
  local number='(-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?) *[,}]'
  sed -nE -e "s/.*\"step\": *([0-9]+) *,.*\"$1\": *$number.*/\1 \2/p" \
    -e "s/.*\"$1\": *$number.*\"step\": *([0-9]+) *[,}].*/\4 \1/p" "$metrics"
}
curve bits_per_character >"$columns/training"
curve validation_bits_per_character >"$columns/validation"
if [[ ! -s "$columns/training" ]]; then
  echo "plot_loss.sh: '$metrics' holds no record of training." >&2
  exit 1
fi
if ! command -v gnuplot >/dev/null; then
  echo "plot_loss.sh: gnuplot is not installed, and draws the picture; on Debian: apt-get install gnuplot-nox." >&2
  exit 1
fi
if ! { : >>"$picture"; } 2>/dev/null; then
  echo "plot_loss.sh: the picture '$picture' cannot be written; give a path that can." >&2
  exit 1
fi

quoted() { printf "'%s'" "${1//\'/\'\'}"; }
gnuplot -e "folder=$(quoted "$columns"); picture=$(quoted "$picture"); heading=$(quoted "$title");
  resumed=$resumed_step" "$(dirname "${BASH_SOURCE[0]}")/plot_loss.gnuplot"
