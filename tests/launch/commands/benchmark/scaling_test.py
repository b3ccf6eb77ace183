# ctest: labels=program timeout=120
"""lamina benchmark scaling on tiny models: a row for each grid and schedule, and a picture of them."""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
from program import command, lamina, sentences, with_defaults

PLOT = pathlib.Path(__file__).parents[4] / "launch" / "plot_scaling.sh"


def plot(*arguments, path=None):
    environment = {**os.environ, "PATH": str(path)} if path else None
    return subprocess.run([str(part) for part in (PLOT, *arguments)], capture_output=True, text=True, env=environment)


class BenchmarkScaling(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)

    def measure(self, *arguments, ranks=1):
        tiny = {"--hidden": 16, "--embedding": 8, "--batch": 4, "--time-steps": 4, "--steps": 2, "--untimed-steps": 0,
                "--threads": 1, "--repetitions": 1}
        return lamina("benchmark", "scaling", *with_defaults(tiny, arguments), ranks=ranks)

    def test_figures(self):
        file = self.folder / "figures.json"
        done = self.measure("--grids", "1x1,2x1,1x2", "--json", file)

        self.assertEqual((done.returncode, sentences(done)), (0, []), done.stderr.decode())
        found = json.loads(file.read_text())
        of_sweep = [("1x1", "sharded"), ("2x1", "sharded"), ("1x2", "sharded"), ("1x2", "cell"), ("1x2", "replicated")]
        self.assertEqual([(row["sweep"], row["grid"], row["exchange"]) for row in found["rows"]],
                         [(sweep, *point) for sweep in ("strong", "weak") for point in of_sweep])
        base = {row["sweep"]: row for row in found["rows"] if row["grid"] == "1x1"}
        for row in found["rows"]:
            self.assertEqual(row["ranks"], row["data_ranks"] * row["model_ranks"])
            self.assertEqual(row["batch"], 4 * (row["ranks"] if row["sweep"] == "weak" else 1))
            self.assertAlmostEqual(row["speed_up"], row["tokens_per_second"] / base[row["sweep"]]["tokens_per_second"])
            self.assertAlmostEqual(row["efficiency"], row["speed_up"] / row["ranks"])
            self.assertTrue(0 <= row["exposed_communication"] < 1)
            self.assertEqual(row["exposed_communication"] > 0, row["ranks"] > 1)
            self.assertGreater(row["gemm_limit_share"], 0)
            self.assertEqual(len(row["milliseconds"]["repetitions"]), 1)
        shown = [line.split() for line in done.stdout.decode().splitlines()]
        self.assertEqual([line[:2] for line in shown if line and line[0] in base],
                         [[row["sweep"], row["grid"]] for row in found["rows"]])
        self.draw(file)

    def draw(self, file):
        picture = self.folder / "picture.png"
        if not shutil.which("gnuplot"):
            self.assertIn("gnuplot is not installed", plot(file, picture).stderr)
            return
        self.assertIn("cannot be written", plot(file, self.folder / "none" / "picture.png").stderr)
        drawn = plot(file, picture, "it's a title")
        self.assertEqual((drawn.returncode, drawn.stderr), (0, ""))
        self.assertTrue(picture.read_bytes().startswith(b"\x89PNG"))

    def test_one_sweep_and_schedule(self):
        file = self.folder / "figures.json"
        done = self.measure("--grids", "1x2", "--sweep", "weak", "--schedules", "replicated", "--json", file)
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        rows = json.loads(file.read_text())["rows"]
        self.assertEqual([(row["sweep"], row["exchange"], row["speed_up"]) for row in rows], [("weak", "replicated", 1)])

    def test_what_cannot_be_measured(self):
        for arguments, words in ((("--grids", "1x1,2"), "'1x1,2'"), (("--grids", "1x3"), "power of two"),
                                 (("--grids", "0x1"), "--grids"), (("--grids", "1x16"), "--unit-blocks 8"),
                                 (("--grids", "8x1", "--batch", 4), "--batch 4"), (("--repetitions", 0), "--repetitions"),
                                 (("--batch", 2**31 - 1), "--batch must be at most 1048576"),
                                 (("--grids", "2x1", "--sweep", "weak", "--batch", 2**20), "2097152 lanes"),
                                 (("--grids", "4096x4096"), "'4096x4096'"),
                                 (("--hidden", 20), "--hidden must be a multiple"), (("--mpirun", ""), "--mpirun"),
                                 (("--exchange", "sharded"), "no flag '--exchange'"),
                                 (("--mpirun", "no-such-mpirun"), "no-such-mpirun cannot be started"),
                                 (("--json", self.folder / "none" / "figures.json"), "cannot be written")):
            with self.subTest(arguments=arguments):
                grids = () if "--grids" in arguments else ("--grids", "1x1")
                done = self.measure(*arguments, *grids)
                said = sentences(done)
                self.assertEqual((done.returncode, len(said)), (2, 1), done.stderr.decode())
                self.assertIn(words, said[0])
                self.assertEqual(done.stdout, b"")

    def test_inside_a_job_it_is_refused(self):
        done = self.measure(ranks=2)
        self.assertEqual((done.returncode, sentences(done)),
                         (2, ["lamina benchmark scaling starts mpirun itself: start it without mpirun"]))

    def test_help(self):
        shown = subprocess.run(command("benchmark", "scaling", "--help"), capture_output=True, text=True)
        self.assertEqual(shown.returncode, 0)
        for flag in ("--grids", "--sweep", "--schedules", "--hidden", "--json"):
            self.assertIn(flag, shown.stdout)
        self.assertNotIn("--model-parallel", shown.stdout)

    def test_figures_that_cannot_be_drawn(self):
        empty = self.folder / "empty.json"
        empty.write_text("{}")
        self.assertEqual(plot("one").returncode, 2)
        for arguments, path, words in (((self.folder / "none", "x.png"), None, "cannot read the figures"),
                                       ((empty, "x.png"), self.tools(), "gnuplot is not installed")):
            drawn = plot(*arguments, path=path)
            self.assertEqual((drawn.returncode, len(drawn.stderr.splitlines())), (1, 1), drawn.stderr)
            self.assertIn(words, drawn.stderr)
        if shutil.which("gnuplot"):
            self.assertIn("holds no row of a scaling benchmark", plot(empty, self.folder / "x.png").stderr)

    def tools(self):
        """A folder with what scripts use, but no gnuplot."""
        tools = self.folder / "tools"
        tools.mkdir()
        for name in ("bash", "env", "mktemp", "rm", "sed", "awk", "sort", "dirname"):
            (tools / name).symlink_to(shutil.which(name))
        return tools


if __name__ == "__main__":
    unittest.main()
