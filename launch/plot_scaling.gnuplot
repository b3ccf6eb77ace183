# Speed-up over ranks, for plot_scaling.sh, which sets: folder (with columns in SWEEP.SERIES), picture, heading.
lines_in(file) = int(system("wc -l < '" . folder . "/" . file . "'"))
rows_of(sweep) = lines_in(sweep . '.data') + lines_in(sweep . '.model_sharded') + lines_in(sweep . '.model_cell') \
  + lines_in(sweep . '.model_replicated') + lines_in(sweep . '.both_sharded') + lines_in(sweep . '.both_cell') + lines_in(sweep . '.both_replicated')
sweeps = (rows_of('strong') > 0 ? 'strong ' : '') . (rows_of('weak') > 0 ? 'weak' : '')

set terminal pngcairo size 640 * words(sweeps),600 font 'DejaVu Sans,12' linewidth 1.3 background '#ffffff'
set output picture
set multiplot layout 1,words(sweeps) title heading noenhanced font ',15'

set xlabel 'ranks' offset 0,0.2
set border 3 linecolor '#666666'
set tics nomirror textcolor '#333333'
set grid ytics linetype 1 linecolor '#e4e4e4' linewidth 0.8
set key top left Left reverse spacing 1.3 samplen 2.5
set logscale xy 2
set bmargin 4

# Both axes alike, so that perfect scaling is the diagonal.
stats folder . '/rows' using ($3 * $4) nooutput name 'RANKS'
stats folder . '/rows' using 5 nooutput name 'SPEED'
most = RANKS_max > SPEED_max ? RANKS_max : SPEED_max
fewest = RANKS_min
lowest = SPEED_min < 1 ? SPEED_min : 1
set xrange [fewest * 0.9:RANKS_max * 1.25]
set yrange [lowest * 0.9:most * 1.9]

series_names = 'data model_sharded model_cell model_replicated both_sharded both_cell both_replicated'
styles = "'linespoints linewidth 2 pointtype 7 linecolor \"#2563a8\" title \"data axis (Nx1)\"' \
  'linespoints linewidth 2 pointtype 5 linecolor \"#c2410c\" title \"model axis (1xN), sharded\"' \
  'linespoints linewidth 1.6 dashtype 4 pointtype 12 linecolor \"#c2410c\" title \"model axis (1xN), cell\"' \
  'linespoints linewidth 1.6 dashtype 2 pointtype 4 linecolor \"#c2410c\" title \"model axis (1xN), replicated\"' \
  'labels left offset 1,0 point pointtype 9 linecolor \"#3f7d20\" textcolor \"#3f7d20\" title \"both axes, sharded\"' \
  'labels left offset 1,-0.3 point pointtype 13 linecolor \"#3f7d20\" textcolor \"#3f7d20\" title \"both axes, cell\"' \
  'labels left offset 1,-0.6 point pointtype 8 linecolor \"#3f7d20\" textcolor \"#3f7d20\" title \"both axes, replicated\"'"
columns_of(style) = style[1:6] eq 'labels' ? '1:2:3' : '1:2'
do for [sweep in sweeps] {
  set title sweep eq 'strong' ? 'strong: the same batch on every grid' : 'weak: the same batch for each rank'
  set ylabel 'speed-up in tokens per second' offset 0.5,0
  drawing = 'plot x / fewest with lines dashtype 3 linecolor "#999999" title "perfect"'
  do for [i = 1:words(series_names)] {
    file = sweep . '.' . word(series_names, i)
    if (lines_in(file) > 0) {
      drawing = drawing . sprintf(", '%s/%s' using %s with %s", folder, file, columns_of(word(styles, i)), word(styles, i))
    }
  }
  eval drawing
}
unset multiplot
