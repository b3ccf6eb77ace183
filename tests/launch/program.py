"""Runs the built program, alone or under mpirun, for the tests beside this file."""
import functools
import hashlib
import json
import os
import pathlib
import random
import subprocess
import tempfile
import unittest

PROGRAM = os.environ["LAMINA_PROGRAM"]
SIZES = {"--batch": 4, "--time-steps": 8}
TRAINING = {"--hidden": 16, "--embedding": 16, "--steps": 20, "--threads": 1, **SIZES}
VALIDATION_FRACTION = 0.05


def flags(settings):
    return [part for setting in settings.items() for part in setting]


def command(*arguments, ranks=1):
    """Without mpirun for one rank."""
    start = [] if ranks == 1 else ["mpirun", "-n", ranks]
    return [str(part) for part in (*start, PROGRAM, *arguments)]


def lamina(*arguments, ranks=1, faults=""):
    """The finished process; `faults` as runtime/fault_point.h has them."""
    return subprocess.run(command(*arguments, ranks=ranks), capture_output=True, timeout=100,
                          env={**os.environ, "LAMINA_FAULTS": faults})


def tensors(file):
    """Path and digest of every tensor of a checkpoint; the digests do not depend on the grid."""
    shown = subprocess.run([PROGRAM, "checkpoint", "inspect", file, "--json"], check=True, capture_output=True)
    return [(tensor["path"], tensor["digest"]) for tensor in json.loads(shown.stdout)["tensors"]]


def with_defaults(defaults, arguments):
    """Flags and `arguments`, which win over `defaults`."""
    return [*flags({name: value for name, value in defaults.items() if name not in arguments}), *arguments]


def training(data, *arguments):
    """Arguments of a tiny training; `arguments` win over TRAINING."""
    return ["train", "--data", data, *with_defaults(TRAINING, arguments)]


def sentences(process):
    """What the program said on stderr, among mpirun's own lines."""
    lines = (line for line in process.stderr.decode().splitlines() if "fails on purpose" not in line)
    return [line.removeprefix("lamina: ") for line in lines if line.startswith("lamina: ")]


def mount_small_disk(test, folder, kibibytes):
    """A file system of its own in `folder`, which is made, until `test` ends; the test skips where that is not allowed."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "tmpfs", folder]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        test.skipTest("a small file system cannot be mounted here")
    test.addCleanup(subprocess.run, ["umount", folder], check=True)
    return folder


def digests(folder):
    """Every file below `folder` and what is in it."""
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def some_text(characters):
    draw = random.Random(7)
    words = ["the", "quick", "brown", "fox", "jümps", "over", "lazy", "dogs"]
    text = ""
    while len(text) < characters:
        text += draw.choice(words) + draw.choice(" \n")
    return text[:characters]


class Run:
    """A folder with a text and, in `checkpoints`, the steps 0, 10 and 20 of a tiny model trained on it."""

    def __init__(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.folder = pathlib.Path(self.temporary.name)
        self.text, self.metrics = self.folder / "text.txt", self.folder / "metrics.jsonl"
        self.checkpoints = self.folder / "checkpoints"
        self.text.write_text(some_text(4000))
        self.process = lamina(*training(self.text, "--checkpoint", self.checkpoints, "--checkpoint-every", 10,
                                        "--metrics", self.metrics))
        assert self.process.returncode == 0, self.process.stderr.decode()


trained = functools.cache(Run)


class ProgramTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.run_of = trained()
        cls.folder, cls.text, cls.checkpoints = cls.run_of.folder, cls.run_of.text, cls.run_of.checkpoints

    def train(self, *arguments, ranks=1, faults=""):
        return lamina(*training(self.text, *arguments), ranks=ranks, faults=faults)

    def assert_done(self, process):
        self.assertEqual(process.returncode, 0, process.stderr.decode())
        return process.stdout.decode()

    def assert_refused(self, process, code, words):
        """One sentence with `words` on stderr for the whole job, and this exit code."""
        said = sentences(process)
        self.assertEqual(len(said), 1, process.stderr.decode())
        for word in words:
            self.assertIn(str(word), said[0])
        self.assertEqual(process.returncode, code, said[0])
