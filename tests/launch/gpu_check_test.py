# ctest: labels=program,brief timeout=240
"""launch/gpu_check.sh without a GPU: it says so, and that nothing was measured. With stand-ins for what a machine with a
GPU has: every step is recorded, whatever becomes of the others. Losses and figures are real ones, of tiny models."""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from program import PROGRAM, some_text

ROOT = pathlib.Path(__file__).resolve().parents[2]
STEPS = 11

# Lamina on the CPU, with the sizes of a test.
SMALL_LAMINA = f"""#!{sys.executable}
import os, sys
words = sys.argv[1:]
small = {{"--model-parallel": "1", "--hidden": "16", "--embedding": "16", "--batch": "4", "--time-steps": "8", "--repetitions": "2"}}
if words[0] == "benchmark":
    small["--steps"] = "3"
    if os.environ.get("STAND_IN_FAILS") in words:
        sys.exit("lamina: out of memory")
for at, word in enumerate(words[:-1]):
    words[at + 1] = small.get(word, words[at + 1])
    if word == "--device":
        words[at + 1] = "cpu"
os.execv({PROGRAM!r}, [{PROGRAM!r}, *words, "--threads", "1"])
"""

STAND_INS = {
    "nvidia-smi": """
        case "$*" in
          -L) echo "GPU 0: a stand-in" ;;
          *compute_cap\\ *|*=compute_cap*) echo 9.0 ;;
          *) echo "a stand-in, 1, 2 MiB, 9.0" ;;
        esac""",
    "cmake": """
        case "$1" in
          --version) echo "cmake version 3.25.1" ;;
          --preset)
            mkdir -p build/cuda/tests
            cat >build/cuda/tests/CTestTestfile.cmake <<TESTS
        add_test([=[kernels/some]=] "$PWD/build/cuda/tests/some_test" "--flag")
        set_tests_properties([=[kernels/some]=] PROPERTIES  ENVIRONMENT "A=b" LABELS "unit;gpu" TIMEOUT "9")
        add_test([=[kernels/other]=] "$PWD/build/cuda/tests/other_test")
        set_tests_properties([=[kernels/other]=] PROPERTIES  LABELS "unit")
        TESTS
            ;;
          --build) cp "$SMALL_LAMINA" build/cuda/lamina ;;
        esac""",
    # A rank on its own.
    "mpirun": """
        if [[ "${STAND_IN_FAILS:-}" == NCCL && -n "${LAMINA_NCCL_SHARED_GPU:-}" ]]; then
          echo "lamina: ncclInvalidUsage"
          exit 1
        fi
        words=()
        for word in "$@"; do
          [[ "$word" != : ]] || break
          if ((${#words[@]})) || [[ "$word" == */lamina ]]; then words+=("$word"); fi
        done
        exec "${words[@]}"
        """,
    "ctest": """
        echo "50% tests passed, 1 tests failed out of 2"
        exit 8""",
    "compute-sanitizer": """
        if [[ "$2" == racecheck ]]; then
          echo "========= RACECHECK SUMMARY: 3 hazards displayed"
          exit 9
        elif [[ "$2" == synccheck ]]; then
          sleep 60
        fi"""}


class GpuCheck(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.root = pathlib.Path(temporary.name)
        shutil.copytree(ROOT / "launch", self.root / "launch", ignore=shutil.ignore_patterns("__pycache__"))
        self.folder = self.root / "build" / "gpu_check"
        (self.root / "text.txt").write_text(some_text(3000))

    def check(self, *arguments, **environment):
        process = subprocess.run([self.root / "launch/gpu_check.sh", "--text", self.root / "text.txt", *arguments],
                                 env={**os.environ, **environment}, capture_output=True, text=True, timeout=100)
        file = self.folder / "report.md"
        return process, file.read_text() if file.exists() else ""

    def stand_ins(self):
        """A PATH that begins with them."""
        folder = self.root / "bin"
        folder.mkdir()
        for name, body in STAND_INS.items():
            (folder / name).write_text("#!/usr/bin/env bash\nset -euo pipefail\n" + body.replace("\n        ", "\n") + "\n")
        # Stands for everything that step `packages` asks for, and that only the build would use.
        for name in ("mpicc", "h5pcc", "ninja", "c++"):
            (folder / name).write_text("#!/usr/bin/env bash\nexit 0\n")
        lamina = self.root / "small_lamina"
        lamina.write_text(SMALL_LAMINA)
        for file in (lamina, *folder.iterdir()):
            file.chmod(0o755)
        return {"PATH": f"{folder}:{os.environ['PATH']}", "SMALL_LAMINA": str(lamina), "CUDA_VISIBLE_DEVICES": "0", "CXX": "c++"}

    def state(self, step):
        return (self.folder / "steps" / step).read_text().rstrip("\n").split("\t")

    def test_without_a_gpu_it_says_so_and_measures_nothing(self):
        process, report = self.check(CUDA_VISIBLE_DEVICES="")

        self.assertEqual((process.returncode, len(process.stderr.splitlines())), (3, 1), process.stderr)
        self.assertIn("there is no GPU here", process.stderr)
        self.assertIn("there is no GPU: CUDA_VISIBLE_DEVICES hides all", report)
        overview, *sections = report.split("\n## ")
        for row in overview.strip().splitlines()[6:]:  # below packages and the device
            self.assertIn("*not measured*", row)
        self.assertEqual(len(sections), STEPS)
        for section in sections[1:]:
            rows = [line for line in section.splitlines() if line.startswith("| ") and not line.startswith("|  |")]
            figures = [row for row in rows if row not in heads_of(section)]
            for row in figures:
                self.assertIn("*not measured*", row)
            self.assertTrue(figures or "*not measured*" in section, section)
        self.assertEqual(json.loads((self.folder / "report.json").read_text())["steps"]["peers"], None)

    def test_every_step_is_recorded_whatever_becomes_of_the_others(self):
        process, report = self.check("--minutes", "1.5", "--only", "packages,device,build,tests,losses,axis,layer,train",
                                     STAND_IN_FAILS="2048", **self.stand_ins())

        self.assertEqual(process.returncode, 1, process.stderr)
        states = {file.name: self.state(file.name)[0] for file in (self.folder / "steps").iterdir()}
        self.assertEqual(states, {"packages": "done", "device": "done", "build": "done", "tests": "failed", "losses": "done",
                                  "axis": "skipped", "layer": "failed", "train": "failed"})
        self.assertIn("50% tests passed", self.state("tests")[2])
        self.assertIn("they agree", self.state("losses")[2])
        self.assertEqual(self.state("axis")[2], "there is one GPU only")
        for words in ("4 shapes failed", "out of memory"):
            self.assertIn(words, self.state("layer")[2])
        for words in ("| 1024, 64 | ", "| 2048, 64 | *not measured*", "they agree.", "cmake --build --preset cuda",
                      "--target lamina some_test\n", "-DCMAKE_CUDA_ARCHITECTURES=90-real"):
            self.assertIn(words, report)
        self.assertNotIn("| 1024, 64 | *not measured*", report)
        figures = json.loads((self.folder / "report.json").read_text())
        self.assertEqual(figures["losses"]["largest_difference"], 0)
        self.assertEqual(figures["layer-768-16"]["benchmark"], "layer")

    def test_ranks_that_share_a_gpu(self):
        environment = self.stand_ins()
        process, _ = self.check("--only", "build,shared", **environment)
        self.assertEqual((process.returncode, self.state("shared")[0]), (0, "done"), self.state("shared"))
        self.assertIn("they agree", self.state("shared")[2])
        commands = (self.folder / "commands" / "shared").read_text()
        for words in ("LAMINA_NCCL=0 mpirun -n 2", "-x NCCL_HOSTID=first", ": -n 1 -x NCCL_HOSTID=second", "--steps 10 "):
            self.assertIn(words, commands)

        process, report = self.check("--only", "shared", STAND_IN_FAILS="NCCL", **environment)
        self.assertEqual((process.returncode, self.state("shared")[0]), (0, "skipped"), process.stderr)
        self.assertIn("NCCL did not let two ranks share the GPU: 'env' ended with code 1: lamina: ncclInvalidUsage", report)

    def test_sanitizers_and_time_limits(self):
        environment = self.stand_ins()
        self.check("--only", "build", **environment)
        process, report = self.check("--minutes", "0.15", "--only", "sanitizers", **environment)

        self.assertEqual(process.returncode, 1, process.stderr)
        for words in ("| memcheck | some_test | no error |", "RACECHECK SUMMARY: 3 hazards", "did not end within",
                      "2 of 3 runs were not clean", "| Build | done |"):
            self.assertIn(words, report)

    def test_what_cannot_be_meant_is_refused(self):
        for words, arguments in (("--fast is", ["--fast"]), ("'tea' is no step", ["--only", "tests,tea"]),
                                 ("needs a value", ["--report"]), ("is no number", ["--minutes", "soon"]),
                                 ("is no folder", ["--packages", "/none"]), ("no '/none'", ["--python", "/none"])):
            process, report = self.check(*arguments)
            self.assertEqual((process.returncode, len(process.stderr.splitlines()), report), (2, 1, ""), process.stderr)
            self.assertIn(words.replace("--fast is", "'--fast' is"), process.stderr)


def heads_of(section):
    """The first row of each table."""
    lines = section.splitlines()
    return [before for before, line in zip(lines, lines[1:]) if line.startswith("|---")]


if __name__ == "__main__":
    unittest.main()
