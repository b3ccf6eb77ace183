# ctest: labels=program,mpi timeout=240
"""Killing the job at any moment never loses the newest complete checkpoint, and the finished run has the same bits."""
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import tempfile
import time
import unittest

PROGRAM = os.environ["LAMINA_PROGRAM"]
STEPS = 30


def train(folder, *more):
    return ["mpirun", "-n", "2", PROGRAM, "train", "--data", str(folder / "text"), "--model-parallel", "2",
            "--hidden", "64", "--embedding", "32", "--batch", "8", "--time-steps", "16", "--steps", str(STEPS),
            "--threads", "1", "--lane-groups", "2", "--log-every", "1000", "--keep", "0", *more]


def verified(path):
    return subprocess.run([PROGRAM, "checkpoint", "verify", str(path)], capture_output=True, text=True)


def tensors(file):
    text = subprocess.run([PROGRAM, "checkpoint", "inspect", str(file), "--json"], capture_output=True, text=True,
                          check=True).stdout
    return [(t["path"], t["digest"]) for t in json.loads(text)["tensors"]]


class Kill(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.folder = pathlib.Path(self.temporary.name)
        draw = random.Random(1)
        (self.folder / "text").write_text("".join(draw.choice("abcdefgh \n") for _ in range(20000)))
        self.addCleanup(self.temporary.cleanup)

    def run_and_kill(self, command, checkpoints, pause):
        """Kills a rank `pause` seconds after it announced `checkpoints`; the newest announced step, and whether the
        run came to its end all the same."""
        job = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        lines = []
        for line in job.stdout:
            lines.append(line)
            if sum(said.startswith("checkpoint ") for said in lines) == checkpoints:
                break
        time.sleep(pause)
        threads = pathlib.Path(f"/proc/{job.pid}/task").glob("*/children")
        ranks = [child for thread in threads for child in thread.read_text().split()]
        for rank in ranks[:1]:
            try:
                os.kill(int(rank), signal.SIGKILL)
            except ProcessLookupError:
                pass  # it had just ended
        lines += job.communicate(timeout=60)[0].splitlines()
        steps = [int(step) for line in lines if line.startswith("checkpoint ") for step in re.findall(r"step-(\d+)", line)]
        return max(steps, default=-1), job.returncode == 0

    def test_no_kill_loses_a_checkpoint(self):
        whole, killed = self.folder / "whole", self.folder / "killed"
        subprocess.run(train(self.folder, "--checkpoint", str(whole)), check=True, capture_output=True)

        draw, ended, kills = random.Random(2), False, 0
        while not ended:
            self.assertLess(kills, 60, "the run never got to its end")
            command = train(self.folder, "--checkpoint", str(killed), "--checkpoint-every", "1", "--resume")
            announced, ended = self.run_and_kill(command, draw.randrange(1, 7), draw.uniform(0, 0.03))
            kills += not ended
            newest = max(killed.glob("step-*.h5"), default=None)
            if announced >= 0:
                self.assertGreaterEqual(int(newest.stem[5:]), announced)
            if newest:
                result = verified(newest)
                self.assertEqual(result.returncode, 0, result.stderr)

        self.assertGreater(kills, 2, "nothing was killed: the test shows nothing")
        name = f"step-{STEPS:08d}.h5"
        self.assertEqual(tensors(whole / name), tensors(killed / name))


if __name__ == "__main__":
    unittest.main()
