# ctest: labels=program,mpi,fault timeout=120
"""SIGUSR1 asks a job to save and end; the run that goes on has the same bits."""
import os
import pathlib
import re
import signal
import subprocess
import unittest

from program import ProgramTest, command, tensors, training

STEPS = 400


class Preemption(ProgramTest):
    def preempted(self, ranks, *arguments):
        """Code and output of a job that gets SIGUSR1 after its first status line."""
        job = subprocess.Popen(command(*training(self.text, "--steps", STEPS, "--lane-groups", 2, *arguments), ranks=ranks),
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        lines = []
        for line in job.stdout:
            lines.append(line)
            if f"/{STEPS}  loss" in line:
                os.kill(job.pid, signal.SIGUSR1)
                break
        out, error = job.communicate(timeout=60)
        return job.returncode, "".join(lines) + out, error

    def test_a_preempted_run_is_saved_and_goes_on_with_the_same_bits(self):
        last = f"step-{STEPS:08d}.h5"
        whole, parts = self.folder / "whole", self.folder / "parts"
        self.assert_done(self.train("--steps", STEPS, "--lane-groups", 2, "--checkpoint", whole))

        code, out, error = self.preempted(2, "--checkpoint", parts)
        self.assertEqual(code, 4, error)
        stopped = int(re.search(r"stopped on request at step (\d+), saved", out).group(1))
        self.assertLess(stopped, STEPS)
        self.assertTrue((parts / f"step-{stopped:08d}.h5").exists())

        code, _, error = self.preempted(1, "--checkpoint", parts, "--resume")
        self.assertEqual(code, 4, error)
        self.assert_done(self.train("--steps", STEPS, "--checkpoint", parts, "--resume", "--model-parallel", 2, ranks=2))
        self.assertEqual(tensors(whole / last), tensors(parts / last))

    def test_without_a_folder_it_says_that_nothing_is_saved(self):
        code, _, error = self.preempted(2)
        self.assertEqual(code, 7)
        self.assertIn("nothing is saved without --checkpoint", error)

    def test_a_disk_that_is_full_then_keeps_the_older_checkpoint(self):
        folder = self.folder / "full"
        self.assert_done(self.train("--steps", 2, "--lane-groups", 2, "--checkpoint", folder))
        os.environ["LAMINA_FAULTS"] = "file_rename:enospc:times=0"
        self.addCleanup(os.environ.pop, "LAMINA_FAULTS")
        code, _, error = self.preempted(2, "--checkpoint", folder, "--resume")
        self.assertEqual(code, 7, error)
        self.assertIn("No space left", error)
        self.assertEqual([file.name for file in sorted(pathlib.Path(folder).iterdir())],
                         ["step-00000000.h5", "step-00000002.h5"])

    def test_a_disk_that_cannot_be_read_does_not_set_checkpoints_aside(self):
        folder = self.folder / "unreadable"
        self.assert_done(self.train("--steps", 2, "--lane-groups", 2, "--checkpoint", folder))
        for call in ("file_read", "file_open"):
            process = self.train("--steps", 4, "--checkpoint", folder, "--resume", ranks=2, faults=f"{call}:eio:rank=1:times=0")
            self.assert_refused(process, 2, ["step-00000002.h5", "Input/output error", "the file stays as it is"])
        self.assertEqual([file.name for file in sorted(pathlib.Path(folder).iterdir())],
                         ["step-00000000.h5", "step-00000002.h5"])
        self.assert_done(self.train("--steps", 4, "--checkpoint", folder, "--resume", ranks=2))


if __name__ == "__main__":
    unittest.main()
