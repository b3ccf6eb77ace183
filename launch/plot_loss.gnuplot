# The loss curve, for plot_loss.sh, which sets: folder (with the columns "training" and "validation"), picture,
# heading, resumed (a step, or 0).
set terminal pngcairo size 1100,660 font 'DejaVu Sans,13' linewidth 1.3 background '#ffffff'
set output picture
training = folder . '/training'
validation = folder . '/validation'

set title heading noenhanced font ',15' offset 0,0.3
set xlabel 'step' offset 0,0.2
set ylabel 'bits per character' offset 0.5,0
set border 3 linecolor '#666666'
set tics nomirror textcolor '#333333'
set grid ytics linetype 1 linecolor '#e4e4e4' linewidth 0.8
set rmargin 5
set key top right reverse Left spacing 1.3 samplen 2.5
set xrange [0:*]

# The axis begins at the half bit below the lowest point.
stats training using 2 nooutput name 'TRAINING'
lowest = TRAINING_min
validations = int(system("wc -l < '" . validation . "'"))
if (validations > 0) {
  stats validation using 1 nooutput name 'STEPS'
  stats validation using 2 nooutput name 'VALIDATION'
  stats validation using 2 every ::(validations - 1) nooutput name 'LAST'
  lowest = VALIDATION_min < lowest ? VALIDATION_min : lowest
  set label sprintf('%.2f', LAST_max) at STEPS_max, LAST_max center offset 0,1 textcolor '#c2410c' front
}
set yrange [ceil(lowest * 2 - 1) / 2.0:*]
if (resumed > 0) {
  set arrow from resumed, graph 0 to resumed, graph 1 nohead dashtype 3 linecolor '#999999'
  set label 'resumed' at resumed, graph 0.97 offset 0.7,0 textcolor '#777777' font ',11'
}

if (validations > 0) {
  plot training using 1:2 with lines linewidth 2 linecolor '#2563a8' title 'training', \
       validation using 1:2 with linespoints linewidth 1.6 pointtype 7 pointsize 1.1 linecolor '#c2410c' \
         title 'held-out text'
} else {
  plot training using 1:2 with lines linewidth 2 linecolor '#2563a8' title 'training'
}
