# ctest: labels=program,mpi,fault timeout=400
"""A rank fails at every named point of a run, and every call of the disk fails once: the run is named the cause, goes on,
and ends with the bits of the undisturbed one."""
import re
import time
import unittest

from program import sentences, tensors
from supervised import SupervisedTest, until

STEPS, EVERY, DEADLINE = 20, 5, 3
LOST = 5
LAST = f"step-{STEPS:08d}.h5"
# Rank and passage of each point, so that it lies in the middle of the run. Rank 0 alone renames.
POINTS = {
    "forward_exchange": (3, 100),
    "gradient_sync": (3, 8),
    "checkpoint_write": (3, 40),
    "before_rename": (0, 2),
    "before_folder_sync": (0, 2),
}
# The same of the calls of the disk.
CALLS = {"file_open": (1, 3), "file_write": (1, 200), "file_sync": (1, 2), "file_rename": (0, 2)}


class Faults(SupervisedTest):
    settings = ("--checkpoint-every", EVERY, "--log-every", 1, "--collective-timeout", DEADLINE,
                "--checkpoint-timeout", DEADLINE)

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        process = cls.train(cls, "--lane-groups", 2, "--checkpoint", cls.folder / "undisturbed")
        assert process.returncode == 0, process.stderr
        cls.undisturbed = tensors(cls.folder / "undisturbed" / LAST)

    def assert_fault(self, point, action, words):
        """Of a rank of a grid of 2x2 under the supervisor."""
        rank, count = POINTS[point]
        self.runs = self.folder / f"{point}-{action}"
        self.runs.mkdir()
        self.checkpoints_of_run = self.runs / "run"
        launched = self.launch(*self.settings, ranks=4, faults=f"{point}:{action}:rank={rank}:count={count}:{self.once('mark')}")
        mark = self.runs / "mark"
        self.assertTrue(until(mark.exists), f"{point} was never passed: {launched.said()}")
        pattern = re.compile(words.format(rank=rank))
        self.assertTrue(until(lambda: pattern.search(launched.said())), f"'{pattern.pattern}' was not said: {launched.said()}")
        named = time.time()
        self.assertTrue(until(lambda: "resumed from" in launched.out.read_text()), launched.said())
        went_on = time.time()
        self.assert_ends(launched, 0)
        self.assertEqual(tensors(self.checkpoints_of_run / LAST), self.undisturbed)
        self.record(f"{action} of a rank at {point}", mark.stat().st_mtime, named, went_on)

    def assert_faults(self, action, words):
        for point in POINTS:
            with self.subTest(point=point):
                self.assert_fault(point, action, words)

    def test_killed(self):
        self.assert_faults("kill", r"process rank {rank} with PID .* signal 9 \(Killed\)[^$]*killed by SIGKILL")

    def test_crashed(self):
        self.assert_faults("crash", r"process rank {rank} with PID .* signal 11 [^$]*killed by SIGSEGV")

    def test_stopped(self):
        self.assert_faults("stop", r"rank {rank} on \S+ \(process \d+, stopped\) [^$]*step \d+")

    def test_disk(self):
        for call, (rank, count) in CALLS.items():
            for action, words in (("enospc", "No space left on device"), ("eio", "Input/output error")):
                with self.subTest(call=call, action=action):
                    folder = self.folder / f"{call}-{action}"
                    process = self.train("--model-parallel", 2, "--lane-groups", 2, "--checkpoint", folder, *self.settings,
                                         ranks=2, faults=f"{call}:{action}:rank={rank}:count={count}")
                    self.assert_done(process)
                    warning, = sentences(process)
                    for word in ("warning", ".h5 was not written", words, "training goes on"):
                        self.assertIn(word, warning)
                    self.assertEqual(tensors(folder / LAST), self.undisturbed)
                    self.assertEqual([], list(folder.glob("*.partial")))
                    self.record(f"{action} of {call}", 0, 0, 0)

    def test_a_disk_that_hangs(self):
        for ranks in (1, 2):
            for mode in ("sync", "async"):
                with self.subTest(ranks=ranks, mode=mode):
                    folder = self.folder / f"hangs-{ranks}-{mode}"
                    start = time.time()
                    process = self.train("--lane-groups", 2, "--checkpoint", folder, *self.settings, "--checkpoint-mode", mode,
                                         ranks=ranks,
                                         faults=f"file_write:hang:rank={ranks - 1}:count=200")
                    self.assertEqual(process.returncode, LOST, process.stderr)
                    said, = sentences(process)
                    self.assertRegex(said, rf"^rank {ranks - 1} on \S+: the disk of \S+\.h5\.partial has not answered for")
                    self.record(f"hang of file_write, {ranks} rank(s), {mode}", start, time.time(), time.time())


if __name__ == "__main__":
    unittest.main()
