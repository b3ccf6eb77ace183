#!/usr/bin/env bash
# Draws what `lamina benchmark scaling --json` measured: speed-up over ranks, one panel for each sweep.
#   launch/plot_scaling.sh SCALING.json PICTURE.png [TITLE]
set -euo pipefail

if (($# < 2 || $# > 3)); then
  echo "usage: plot_scaling.sh SCALING.json PICTURE.png [TITLE]" >&2
  exit 2
fi
figures=$1 picture=$2 title=${3:-}
if [[ ! -r "$figures" ]]; then
  echo "plot_scaling.sh: cannot read the figures '$figures'; 'lamina benchmark scaling --json FILE' writes such a file." >&2
  exit 1
fi
if ! command -v gnuplot >/dev/null; then
  echo "plot_scaling.sh: gnuplot is not installed, and draws the picture; on Debian: apt-get install gnuplot-nox." >&2
  exit 1
fi

columns=$(mktemp -d)
trap 'rm -rf "$columns"' EXIT

# One "sweep schedule data_ranks model_ranks speed_up grid" line per row of the figures.
sed -nE 's/.*"sweep": *"([a-z]+)", *"grid": *"([0-9x]+)", *"exchange": *"([a-z]+)".*"data_ranks": *([0-9]+), *"model_ranks": *([0-9]+).*"speed_up": *([0-9.eE+-]+).*/\1 \3 \4 \5 \6 \2/p' \
  "$figures" >"$columns/rows"
if [[ ! -s "$columns/rows" ]]; then
  echo "plot_scaling.sh: '$figures' holds no row of a scaling benchmark." >&2
  exit 1
fi
if ! { : >>"$picture"; } 2>/dev/null; then
  echo "plot_scaling.sh: the picture '$picture' cannot be written; give a path that can." >&2
  exit 1
fi

# "ranks speed_up grid" lines of the rows of a sweep whose grid and schedule fit a condition, in order of ranks.
series() {
  local sweep=$1 name=$2 condition=$3
  awk -v sweep="$sweep" "\$1 == sweep && ($condition) { print \$3 * \$4, \$5, \$6 }" "$columns/rows" | sort -n >"$columns/$sweep.$name"
}
for sweep in strong weak; do
  series "$sweep" data '$4 == 1'
  for schedule in sharded cell replicated; do
    series "$sweep" "model_$schedule" "\$3 == 1 && (\$4 == 1 || \$2 == \"$schedule\")"
    series "$sweep" "both_$schedule" "\$3 > 1 && \$4 > 1 && \$2 == \"$schedule\""
  done
done

quoted() { printf "'%s'" "${1//\'/\'\'}"; }
gnuplot -e "folder=$(quoted "$columns"); picture=$(quoted "$picture"); heading=$(quoted "$title")" \
  "$(dirname "${BASH_SOURCE[0]}")/plot_scaling.gnuplot"
