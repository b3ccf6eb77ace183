# ctest: labels=unit timeout=60
"""launch/compare_losses.py on made-up metrics."""
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "launch" / "compare_losses.py"


class CompareLosses(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)

    def file(self, name, losses):
        path = self.folder / name
        lines = [json.dumps({"step": step, "loss": loss}) for step, loss in losses.items()]
        path.write_text("\n".join([*lines, json.dumps({"step": 20, "validation_loss": 1.0})]) + "\n")
        return path

    def compare(self, first, second, *arguments):
        words = [sys.executable, SCRIPT, first, second, "--json", self.folder / "figures.json", *arguments]
        return subprocess.run([str(word) for word in words], capture_output=True, text=True)

    def test_runs_that_agree(self):
        process = self.compare(self.file("a", {1: 4.0, 10: 3.0}), self.file("b", {1: 4.0002, 10: 2.98, 20: 9.0}))

        self.assertEqual(process.returncode, 0, process.stdout)
        found = json.loads((self.folder / "figures.json").read_text())
        self.assertAlmostEqual(found["first_difference"], 0.0002 / 4)
        self.assertEqual((found["at_step"], len(found["rows"]), found["agree"]), (10, 2, True))
        self.assertIn("they agree", process.stdout)

    def test_runs_that_do_not(self):
        first = {1: 4.0, 10: 3.0}
        for second in ({1: 4.001, 10: 3.0}, {1: 4.0, 10: 3.1}, {1: 4.0, 10: float("nan")}):
            process = self.compare(self.file("a", first), self.file("b", second))
            self.assertEqual(process.returncode, 1, second)
            self.assertIn("they do not agree", process.stdout)
        self.assertEqual(self.compare(self.file("a", first), self.file("b", {1: 4.0, 10: 3.1}), "--tolerance", 0.1).returncode, 0)

    def test_what_cannot_be_compared(self):
        good = self.file("a", {1: 4.0})
        (self.folder / "torn").write_text('{"step": 1, "lo')
        (self.folder / "empty").write_text("")
        for other, words in ((self.folder / "none", "cannot be read"), (self.folder / "torn", "cannot be read"),
                             (self.folder / "empty", "no record"), (self.file("b", {2: 4.0}), "in common")):
            process = self.compare(good, other)
            self.assertEqual((process.returncode, len(process.stderr.splitlines())), (2, 1), process.stderr)
            self.assertIn(words, process.stderr)


if __name__ == "__main__":
    unittest.main()
