# ctest: labels=program timeout=120
"""launch/compare_peers.py without PyTorch: its arguments and errors, who is timed how, and what is made of the times.
Stand-ins take known times; oneDNN's primitive is real."""
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "launch" / "compare_peers.py"
BUILD = pathlib.Path(os.environ["LAMINA_BUILD"])
CORES = len(os.sched_getaffinity(0))

# Each turn takes a millisecond more than the one before; two threads halve Lamina's times, and oneDNN's double.
STAND_INS = {
    "lamina": """
        if sys.argv[1] == "info":
            sys.exit(print("a stand-in"))
        values = dict(zip(sys.argv[3::2], sys.argv[4::2]))
        first = 10 + turn()
        times = [(first + i) / int(values["--threads"]) for i in range(int(values["--repetitions"]))]
        rows = [{"pass": "forward", "milliseconds": {"repetitions": [time / 4 for time in times]}},
                {"pass": "both", "milliseconds": {"repetitions": times}}]
        pathlib.Path(values["--json"]).write_text(json.dumps({"program": "stand-in", "rows": rows}))""",
    "time_onednn": """
        turn()
        seconds = 0.02 * int(os.environ["OMP_NUM_THREADS"])
        print(json.dumps({"seconds": [seconds] * 3, "forward_seconds": [seconds / 2] * 3, "version": "stand-in",
                          "wall_seconds": 4, "cpu_seconds": 3}))""",
    "python": """
        name, rest = pathlib.Path(sys.argv[1]).stem, sys.argv[2:]
        if name == "describe_torch":
            print(json.dumps({"torch": "stand-in", "capability": "", "blas": "", "parallel": "", "python_header": "/"}))
        elif name == "check_numbers":
            deviation = float(os.environ.get("STAND_IN_DEVIATION", 0))
            for form in rest[2:]:
                print(json.dumps({"form": form, "agrees": deviation < 1e-3, "worst": "gradient of W", "results": 3,
                                  "deviation": deviation, "tolerance": 1e-3}))
        elif rest[0] == "script":
            sys.exit("out of memory")
        else:
            turn()
            for number, line in enumerate(sys.stdin):
                seconds = [0.1 + number / 100] * int(line.split()[1])
                print(json.dumps({"seconds": seconds, "forward_seconds": seconds, "first_seconds": 7, "wall_seconds": 1,
                                  "cpu_seconds": 1}), flush=True)"""}

PREAMBLE = f"""#!{sys.executable}
import json, os, pathlib, sys

def turn():
    log = pathlib.Path(sys.argv[0]).parent / "turns"
    with log.open("a") as file:
        file.write(json.dumps([pathlib.Path(sys.argv[0]).name, len(os.sched_getaffinity(0)), sys.argv[1:]]) + "\\n")
    return sum(pathlib.Path(sys.argv[0]).name in line for line in log.read_text().splitlines()) - 1

"""


def compare(*arguments):
    return subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True)


class ComparePeers(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)
        for name, body in STAND_INS.items():
            program = self.folder / name
            program.write_text(PREAMBLE + body.replace("\n        ", "\n"))
            program.chmod(0o755)

    def refused(self, code, words, *arguments):
        process = compare("--build", self.folder, "--folder", self.folder / "peers", *arguments)
        self.assertEqual((process.returncode, len(process.stderr.splitlines())), (code, 1), process.stderr)
        self.assertIn(words, process.stderr)
        self.assertEqual(process.stdout, "")

    def test_help(self):
        process = compare("--help")
        self.assertEqual((process.returncode, process.stderr), (0, ""))
        self.assertIn("launch/compare_peers.py", process.stdout)

    def test_what_cannot_be_meant_is_refused(self):
        for words, arguments in (("--widths", ["--widths", 4]), ("'16,x'", ["--batch", "16,x"]),
                                 ("'0'", ["--hidden", 0]), ("'2,3' is not one", ["--rounds", "2,3"]),
                                 ("'keras' is no", ["--contenders", "keras"]),
                                 (f"--cores {CORES + 1} is more", ["--cores", f"1,{CORES + 1}"])):
            self.refused(2, words, *arguments)
            self.refused(2, "see --help", *arguments)

    def test_what_is_missing_is_said(self):
        self.refused(1, "build --preset release", "--build", self.folder / "none")
        self.refused(1, "has no PyTorch that works", "--contenders", "lamina,eager", "--python", "/bin/false")
        self.refused(1, "cannot be run: No such file", "--contenders", "nn-lstm", "--python", self.folder / "none")

    def test_nothing_is_timed_where_numbers_differ(self):
        os.environ["STAND_IN_DEVIATION"] = "0.25"
        self.addCleanup(os.environ.pop, "STAND_IN_DEVIATION")
        process = compare("--build", self.folder, "--python", self.folder / "python", "--contenders", "lamina,eager")
        self.assertEqual((process.returncode, process.stdout), (1, ""))
        said = process.stderr.splitlines()[-1]
        for words in ("PyTorch LN-LSTM, eager differs from Lamina", "gradient of W by 0.25", "1e-03"):
            self.assertIn(words, said)
        self.assertFalse((self.folder / "turns").exists())

    def test_a_contender_that_fails_is_named_with_its_reason(self):
        process = compare("--build", self.folder, "--python", self.folder / "python", "--contenders", "lamina,script",
                          "--hidden", 16, "--batch", 4, "--cores", 1)
        self.assertEqual(process.returncode, 1)
        for words in ("TorchScript ended with code 1", "16 units, batch 4", "out of memory"):
            self.assertIn(words, process.stderr.splitlines()[-1])

    def measure(self, *arguments):
        file = self.folder / "figures.json"
        process = compare("--build", self.folder, "--contenders", "lamina,onednn", "--hidden", 16, "--batch", 4,
                          "--json", file, *arguments)
        self.assertEqual(process.returncode, 0, process.stderr)
        return process.stdout, json.loads(file.read_text())

    def turns(self):
        return [json.loads(line) for line in (self.folder / "turns").read_text().splitlines()]

    def test_contenders_take_turns_and_medians_are_compared(self):
        table, figures = self.measure("--cores", 1, "--rounds", 3, "--repetitions", 3)

        self.assertEqual([name for name, _, _ in self.turns()], ["lamina", "time_onednn"] * 3)
        ours, theirs = figures["rows"]
        times = [10, 11, 12, 11, 12, 13, 12, 13, 14]
        self.assertEqual([round(time, 6) for time in ours["milliseconds"]["all"]], times)
        for key, value in (("median", statistics.median(times)), ("min", 10), ("max", 14)):
            self.assertAlmostEqual(ours["milliseconds"][key], value)
        self.assertAlmostEqual(ours["forward_milliseconds"], 3)
        self.assertAlmostEqual(ours["microseconds_per_step"], 12000 / 64)
        self.assertEqual(ours["ratio"], 1)
        self.assertAlmostEqual(theirs["ratio"], 20 / 12)
        self.assertEqual(theirs["core_share"], 0.75)
        self.assertIn("0.75   1.667", table)

    def test_one_process_of_pytorch_serves_all_turns(self):
        _, figures = self.measure("--contenders", "lamina,eager", "--python", self.folder / "python", "--cores", 1,
                                  "--rounds", 3, "--repetitions", 2)

        self.assertEqual([name for name, _, _ in self.turns()], ["lamina", "python", "lamina", "lamina"])
        self.assertEqual([check["form"] for check in figures["checks"]], ["eager"])
        theirs = figures["rows"][1]
        self.assertEqual([round(time) for time in theirs["milliseconds"]["all"]], [100, 100, 110, 110, 120, 120])
        self.assertEqual(theirs["first_seconds"], 7)

    @unittest.skipIf(CORES < 2, "there is one core")
    def test_the_best_thread_setting_counts(self):
        _, figures = self.measure("--cores", "1,2", "--rounds", 1, "--repetitions", 1)

        self.assertEqual([(row["cores"], row["contender"], row["threads"]) for row in figures["rows"]],
                         [(1, "lamina", 1), (1, "onednn", 1), (2, "lamina", 2), (2, "onednn", 1)])
        self.assertEqual([cores for _, cores, _ in self.turns()], [1, 1, 2, 2])

    def test_onednns_primitive_is_timed(self):
        (self.folder / "time_onednn").unlink()
        (self.folder / "time_onednn").symlink_to(BUILD / "time_onednn")

        _, figures = self.measure("--contenders", "onednn", "--cores", 1, "--rounds", 2, "--repetitions", 2)

        row, = figures["rows"]
        self.assertEqual(len(row["milliseconds"]["all"]), 4)
        self.assertGreater(row["milliseconds"]["min"], 0)
        self.assertGreater(row["core_share"], 0)
        self.assertLess(row["forward_milliseconds"], row["milliseconds"]["max"])


if __name__ == "__main__":
    unittest.main()
