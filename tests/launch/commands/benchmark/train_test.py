# ctest: labels=program timeout=60
"""lamina benchmark train on a tiny model: tokens per second, and shares of time that add up."""
import json
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
from program import lamina, sentences, some_text, with_defaults

KINDS = ["gemm", "pointwise", "exchange", "waiting", "input", "optimizer", "other"]


class BenchmarkTrain(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)

    def measure(self, *arguments, ranks=1):
        tiny = {"--hidden": 16, "--embedding": 8, "--batch": 4, "--time-steps": 5, "--steps": 3, "--untimed-steps": 1,
                "--threads": 1}
        return lamina("benchmark", "train", *with_defaults(tiny, arguments), ranks=ranks)

    def test_figures(self):
        for ranks, arguments in ((1, ("--threads", 2, "--layers", 2)), (2, ("--model-parallel", 2, "--exchange", "replicated")),
                                 (2, ("--model-parallel", 2, "--exchange", "cell")),
                                 (2, ("--model-parallel", 2, "--layers", 3, "--layer-order", "wavefront")),
                                 (2, ("--passes", 2, "--vocabulary", 3))):
            with self.subTest(ranks=ranks, arguments=arguments):
                file = self.folder / "figures.json"
                done = self.measure(*arguments, "--json", file, ranks=ranks)

                self.assertEqual((done.returncode, sentences(done)), (0, []), done.stderr.decode())
                found = json.loads(file.read_text())
                self.assertEqual((found["benchmark"], found["ranks"], len(found["rows"])), ("train", ranks, 1))
                row = found["rows"][0]
                self.assertEqual(row["data_ranks"] * row["model_ranks"], ranks)
                self.assertEqual((row["batch"], row["time_steps"]), (4, 5))
                self.assertEqual(len(row["milliseconds"]["repetitions"]), 3)
                self.assertAlmostEqual(row["tokens_per_second"] * row["milliseconds"]["median"], 4 * 5 * 1e3, delta=1e-6)
                self.assertEqual(list(row["shares"]), KINDS)
                self.assertAlmostEqual(sum(row["shares"].values()), 1)
                for kind in ("gemm", "pointwise", "input", "optimizer", "other"):
                    self.assertGreater(row["shares"][kind], 0, kind)
                exchanged = row["shares"]["exchange"]
                self.assertEqual(exchanged > 0, ranks > 1)
                self.assertAlmostEqual(row["exposed_communication"], exchanged + row["shares"]["waiting"])
                self.assertAlmostEqual(row["gemm_limit_share"],
                                       row["gemm_milliseconds"]["median"] / row["milliseconds"]["median"])
                shown = [line.split() for line in done.stdout.decode().splitlines()]
                self.assertEqual([line[0] for line in shown if line and line[0] in KINDS], KINDS)

    def test_a_text_of_ones_own(self):
        text = self.folder / "text.txt"
        text.write_text(some_text(500))
        done = self.measure("--data", text, "--json", self.folder / "figures.json")
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        self.assertEqual(json.loads((self.folder / "figures.json").read_text())["rows"][0]["vocabulary"],
                         len(set(text.read_text())))

    def test_what_cannot_be_measured(self):
        for arguments, words in ((("--steps", 0), "--steps"), (("--untimed-steps", -1), "--untimed-steps"),
                                 (("--hidden", 20), "--hidden must be a multiple of --unit-blocks (8), not 20"),
                                 (("--vocabulary", 1), "--vocabulary"), (("--vocabulary", 60000), "--vocabulary"),
                                 (("--batch", 2**31 - 1, "--time-steps", 2**31 - 1), "--batch must be at most 1048576"),
                                 (("--batch", 2**20, "--time-steps", 64), "67108864 characters a step"),
                                 (("--data", self.folder / "none"), "none"), (("--batch", 0), "--batch"),
                                 (("--model-parallel", 2), "--model-parallel 2"), (("--metrics", "x"), "no flag"),
                                 (("--json", self.folder), "cannot be written")):
            with self.subTest(arguments=arguments):
                done = self.measure(*arguments)
                said = sentences(done)
                self.assertEqual((done.returncode, len(said)), (2, 1), done.stderr.decode())
                self.assertIn(words, said[0])
                self.assertEqual(done.stdout, b"")


if __name__ == "__main__":
    unittest.main()
