# ctest: labels=program timeout=60
"""lamina benchmark layer on tiny layers: a row for each pass of each combination, as table and as JSON."""
import itertools
import json
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
from program import lamina, sentences, with_defaults

PASSES = ("forward", "backward", "both")


class BenchmarkLayer(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)

    def measure(self, *arguments, ranks=1):
        tiny = {"--hidden": "16,32", "--batch": "2,4", "--steps": "2,3", "--repetitions": 2, "--threads": 1}
        return lamina("benchmark", "layer", *with_defaults(tiny, arguments), ranks=ranks)

    def test_figures(self):
        for ranks, arguments in ((1, ()), (1, ("--normalization", "none", "--inputs", 24, "--threads", 2)),
                                 (2, ("--exchange", "replicated")), (2, ("--exchange", "cell")), (2, ("--model-parallel", 1))):
            with self.subTest(ranks=ranks, arguments=arguments):
                file = self.folder / "figures.json"
                done = self.measure(*arguments, "--json", file, ranks=ranks)

                self.assertEqual((done.returncode, sentences(done)), (0, []), done.stderr.decode())
                found = json.loads(file.read_text())
                self.assertEqual((found["benchmark"], found["ranks"]), ("layer", ranks))
                self.assertEqual(found["model_ranks"], 1 if "--model-parallel" in arguments else ranks)
                self.assertEqual([(row["hidden"], row["batch"], row["time_steps"], row["pass"]) for row in found["rows"]],
                                 list(itertools.product((16, 32), (2, 4), (2, 3), PASSES)))
                for row in found["rows"]:
                    self.assertEqual(row["inputs"], 24 if "--inputs" in arguments else row["hidden"])
                    self.check_row(row)
                self.check_sums(found["rows"])
                table = [line.split() for line in done.stdout.decode().splitlines()]
                rows = [line for line in table if line and line[0] in PASSES]
                self.assertEqual([line[:4] for line in rows],
                                 [[row["pass"], *(str(row[key]) for key in ("hidden", "batch", "time_steps"))]
                                  for row in found["rows"]])

    def check_row(self, row):
        for key in ("milliseconds", "gemm_milliseconds", "packing_milliseconds"):
            times = row[key]
            self.assertEqual(len(times["repetitions"]), 2)
            self.assertGreater(times["min"], 0)
            self.assertEqual((times["min"], times["max"]), (min(times["repetitions"]), max(times["repetitions"])))
            self.assertAlmostEqual(times["median"], sum(times["repetitions"]) / 2)
        self.assertAlmostEqual(row["gemm_share"], row["gemm_milliseconds"]["median"] / row["milliseconds"]["median"])
        self.assertAlmostEqual(row["microseconds_per_step"], row["milliseconds"]["median"] * 1e3 / row["time_steps"])
        flops = row["gemm_gflops_per_second"] * row["gemm_milliseconds"]["median"] * 1e6
        self.assertAlmostEqual(flops, self.flops_of(row), delta=flops * 1e-9)

    def flops_of(self, row):
        """W_x x and W_h h of all steps; backward their transposes, W_h's of all steps but one, and the weights'."""
        units, lanes, steps = row["hidden"], row["batch"], row["time_steps"]
        x, h = (2 * steps * lanes * 4 * units * width for width in (row["inputs"], units))
        backward = 2 * x + h + h * (steps - 1) / steps
        return {"forward": x + h, "backward": backward, "both": x + h + backward}[row["pass"]]

    def check_sums(self, rows):
        for forward, backward, both in zip(*[iter(rows)] * 3):
            for i in range(2):
                parts = [row["milliseconds"]["repetitions"][i] for row in (forward, backward, both)]
                self.assertAlmostEqual(parts[0] + parts[1], parts[2])

    def test_what_cannot_be_measured(self):
        for arguments, words in ((("--hidden", "16,abc"), "'16,abc'"), (("--hidden", 0), "--hidden must be whole"),
                                 (("--batch", "4,-1"), "--batch must be whole"), (("--batch", ""), "--batch must be"),
                                 (("--hidden", "16,20"), "multiples of --unit-blocks (8), not 20"),
                                 (("--inputs", 12), "--inputs must be a multiple"), (("--steps", "3,0"), "--steps must be whole"),
                                 (("--repetitions", 0), "--repetitions"), (("--threads", -1), "--threads"),
                                 (("--normalization", "batch"), "batch"), (("--units", 8), "no flag '--units'"),
                                 (("--unit-blocks", 0), "--unit-blocks"), (("--model-parallel", 2), "--model-parallel 2"),
                                 (("--json", self.folder), "cannot be written"),
                                 (("--json", self.folder / "none" / "figures.json"), "cannot be written")):
            with self.subTest(arguments=arguments):
                done = self.measure(*arguments)
                said = sentences(done)
                self.assertEqual((done.returncode, len(said)), (2, 1), done.stderr.decode())
                self.assertIn(words, said[0])
                self.assertEqual(done.stdout, b"")

    def test_lanes_that_do_not_divide(self):
        done = self.measure("--model-parallel", 1, "--batch", 3, ranks=2)
        self.assertEqual(done.returncode, 2)
        self.assertEqual(len(sentences(done)), 1)
        self.assertIn("--batch 3", sentences(done)[0])


if __name__ == "__main__":
    unittest.main()
