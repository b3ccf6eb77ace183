# ctest: labels=program,mpi,slurm,fault timeout=900
"""The batch template on a real Slurm of two nodes: a preempted job saves, is requeued, goes on and ends with the bits of
the undisturbed run."""
import pathlib
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "support"))

from program import PROGRAM, ProgramTest, tensors, training
from slurm import Slurm, missing
from supervised import PATIENCE, until

TEMPLATE = ROOT / "launch" / "cluster" / "slurm.sbatch"
STEPS = 8000
# The nodes are this machine, and talk over loopback.
ENVIRONMENT = {"LAMINA": PROGRAM, "OMPI_MCA_oob_tcp_if_include": "lo", "OMPI_MCA_btl_tcp_if_include": "lo"}


class SlurmTest(ProgramTest):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory(prefix="lamina-slurm-")
        self.addCleanup(self.temporary.cleanup)
        self.place = pathlib.Path(self.temporary.name)
        self.log, self.checkpoints_of_run = self.place / "log", self.place / "run"

    def submit(self, slurm, *arguments, options=()):
        more = training(self.text, "--steps", STEPS, "--model-parallel", 2, "--lane-groups", 2, "--checkpoint-every", 1000, "--log-every", 1000,
                        "--checkpoint", self.checkpoints_of_run, *arguments)[1:]
        return slurm.submit("--nodes=2", "--ntasks-per-node=1", "--time=10", f"--output={self.log}", *options, TEMPLATE, *more,
                            environment=ENVIRONMENT)

    def wait_for(self, words, times=1):
        def said():
            return self.log.exists() and self.log.read_text().count(words) >= times
        self.assertTrue(until(said, PATIENCE), f"not {times} times '{words}' in:\n{self.log.exists() and self.log.read_text()}")

    def assert_completes(self, slurm, job, restarts):
        until(lambda: slurm.state(job) not in ("RUNNING", "PENDING", "COMPLETING", "REQUEUED"), PATIENCE)
        shown = slurm.show(job)
        self.assertEqual((shown.get("JobState"), shown.get("Restarts")), ("COMPLETED", str(restarts)), self.log.read_text())

    def assert_same_bits(self):
        whole = self.place / "whole"
        self.assert_done(self.train("--steps", STEPS, "--lane-groups", 2, "--checkpoint", whole))
        last = f"step-{STEPS:08d}.h5"
        self.assertEqual(tensors(whole / last), tensors(self.checkpoints_of_run / last))

    def test_a_preempted_job_saves_is_requeued_and_goes_on_with_the_same_bits(self):
        with Slurm(self.place) as slurm:
            job = self.submit(slurm, options=["--partition=low"])
            self.wait_for("step-00000000.h5")
            slurm.submit("--partition=high", "--nodes=2", "--ntasks-per-node=2", "--output=/dev/null", "--wrap=sleep 1")
            self.wait_for("stopped on request")
            self.wait_for("resumed from")
            self.assert_completes(slurm, job, restarts=1)
        self.assert_same_bits()


if __name__ == "__main__":
    why = missing()
    if why:
        print(why)
        sys.exit(0)
    unittest.main()
