# ctest: labels=program timeout=60
"""launch/compare_gpu_peers.py without PyTorch and a GPU: its arguments, who is timed and who is not and why, and what is
made of the times. Stand-ins take known times."""
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "launch" / "compare_gpu_peers.py"

LAMINA = """
values = dict(zip(sys.argv[3::2], sys.argv[4::2]))
assert values["--device"] == "cuda"
if values["--hidden"] == "7":
    sys.exit("lamina: 7 cannot be split")
times = [10.0, 12.0]
pathlib.Path(values["--json"]).write_text(json.dumps({"rows": [
    {"pass": name, "milliseconds": {"repetitions": times}, "gemm_share": 0.5} for name in ("forward", "both")]}))
"""

PYTHON = """
script, rest = pathlib.Path(sys.argv[1]).name, sys.argv[2:]
log = pathlib.Path(sys.argv[0]).parent / "turns"
if script == "check_numbers.py":
    assert rest[:2] == ["--device", "cuda"]
    for form in rest[4:]:
        if form == "jax-scan":
            print("jax-scan: No module named 'jax'", file=sys.stderr)
            continue
        deviation = 0.1 if form == "compile-step" else 1e-7
        print(json.dumps({"form": form, "agrees": deviation < 1e-5, "worst": "loss", "results": 3,
                          "deviation": deviation, "tolerance": 1e-5}))
    sys.exit(1)
for line in sys.stdin:
    asked = json.loads(line)
    with log.open("a") as file:
        file.write(asked["form"] + ":" + asked["type"] + "\\n")
    if asked["form"] == "graph":
        print(json.dumps({"error": "out of memory"}), flush=True)
    elif asked["type"] == "f16":
        sys.exit("no such type")
    else:
        print(json.dumps({"seconds": [0.024] * asked["repetitions"], "forward_seconds": [0.01], "first_seconds": 1,
                          "kernels": [["RNN_persist", 0.9]]}), flush=True)
"""


class CompareGpuPeers(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)
        for name, body in (("lamina", LAMINA), ("python", PYTHON)):
            program = self.folder / name
            program.write_text(f"#!{sys.executable}\nimport json, pathlib, sys\n{body}")
            program.chmod(0o755)

    def compare(self, *arguments):
        words = [sys.executable, SCRIPT, "--build", self.folder, "--python", self.folder / "python", "--json",
                 self.folder / "figures.json", "--rounds", 2, "--repetitions", 2, *arguments]
        return subprocess.run([str(word) for word in words], capture_output=True, text=True)

    def test_contenders_take_turns_and_who_cannot_is_said(self):
        process = self.compare("--shapes", "64x4x8")

        self.assertEqual(process.returncode, 1, process.stderr)  # one computes something else
        rows = {row["contender"]: row for row in json.loads((self.folder / "figures.json").read_text())["rows"]}
        self.assertEqual(rows["lamina"]["milliseconds"]["all"], [10, 12, 10, 12])
        self.assertAlmostEqual(rows["eager"]["ratio"], 24 / 11)
        self.assertAlmostEqual(rows["eager"]["microseconds_per_step"], 3000)
        self.assertEqual(rows["nn-lstm:f32"]["kernels"], [["RNN_persist", 0.9]])
        for name, words in (("graph", "out of memory"), ("nn-lstm:f16", "no such type"), ("jax-scan", "No module"),
                            ("compile-step", "something else than Lamina"), ("compile-step-graph", "loss differs by 0.1")):
            self.assertIn(words, rows[name]["reason"])
            self.assertIn(f"not measured: {rows[name]['reason']}", process.stdout)
        turns = (self.folder / "turns").read_text().split()
        self.assertEqual(turns, ["graph:f32", "eager:f32", "nn-lstm:f32", "nn-lstm:f16", "nn-lstm:bf16",
                                 "eager:f32", "nn-lstm:f32", "nn-lstm:bf16"])

    def test_shapes_without_time_or_for_the_slow_are_named(self):
        process = self.compare("--shapes", "7x4x8,8x4x8", "--contenders", "lamina,eager,jax-scan", "--slow-shapes", 1)
        rows = json.loads((self.folder / "figures.json").read_text())["rows"]
        self.assertIn("7 cannot be split", rows[0]["reason"])
        self.assertIsNone(rows[1]["ratio"], process.stderr)
        self.compare("--shapes", "8x4x8", "--contenders", "eager", "--minutes", 0.0000001)
        rows = json.loads((self.folder / "figures.json").read_text())["rows"]
        self.assertEqual([row["reason"] for row in rows], ["no time was left"])

    def test_what_cannot_be_meant_is_refused(self):
        for words, arguments in (("'64x4' is not", ["--shapes", "64x4"]), ("'64x4x0' is not", ["--shapes", "64x4x0"]),
                                 ("'keras' is no", ["--contenders", "keras"]), ("'eager:f8' is no", ["--contenders", "eager:f8"]),
                                 ("--widths", ["--widths", 4])):
            process = self.compare(*arguments)
            self.assertEqual((process.returncode, len(process.stderr.splitlines())), (2, 1), process.stderr)
            self.assertIn(words, process.stderr)
        process = self.compare("--build", self.folder / "none")
        self.assertEqual((process.returncode, len(process.stderr.splitlines())), (1, 1), process.stderr)


if __name__ == "__main__":
    unittest.main()
