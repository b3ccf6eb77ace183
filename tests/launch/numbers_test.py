# ctest: labels=program,mpi,fault timeout=120
"""Numbers that go wrong on one rank: not finite, or not the same as on the rank that must hold them alike."""
import unittest

from program import ProgramTest, lamina, sentences, tensors

LAST = "step-00000020.h5"


class Numbers(ProgramTest):
    def train_on_grid(self, name, *arguments, faults=""):
        """On two data ranks by two model ranks."""
        return self.train("--checkpoint", self.folder / name, "--checkpoint-every", 5, "--model-parallel", 2,
                          "--lane-groups", 2, *arguments, ranks=4, faults=faults)

    def test_a_gradient_that_is_not_finite_stops_the_run_naming_tensor_and_rank(self):
        process = self.train_on_grid("stop", faults="gradient:corrupt:rank=2:count=8")
        self.assert_refused(process, 6, ["the gradient of embedding", "rank 2", "step 8", "--learning-rate"])
        self.assertTrue((self.folder / "stop" / "step-00000005.h5").exists(), "the checkpoint on its way was lost")

    def test_a_parameter_that_is_not_finite_is_the_cause_of_what_follows(self):
        process = self.train("--learning-rate", 1e38, "--optimizer", "sgd", "--clip-norm", 0)
        self.assert_refused(process, 6, ["is not finite on rank 0", "step"])

    def test_no_checkpoint_is_written_of_parameters_that_are_not_finite(self):
        for policy in "stop", "skip":
            folder = self.folder / f"huge-{policy}"
            process = self.train("--learning-rate", 1e300, "--optimizer", "sgd", "--clip-norm", 0, "--checkpoint", folder,
                                 "--checkpoint-every", 1, "--non-finite", policy)
            self.assert_refused(process, 6, ["parameter", "is not finite on rank 0"])
            self.assert_done(lamina("generate", "--checkpoint", folder, "--length", 3))

    def test_a_skipped_update_leaves_the_run_going(self):
        process = self.train_on_grid("skip", "--non-finite", "skip", faults="gradient:corrupt:rank=1:count=8")
        self.assert_done(process)
        warning, = sentences(process)
        for word in ("warning", "gradient", "rank 1", "step 8", "skipped"):
            self.assertIn(word, warning)

    def test_skipping_for_ever_ends(self):
        process = self.train_on_grid("skips", "--non-finite", "skip", faults="gradient:corrupt:rank=0:count=3:times=0")
        self.assertEqual(process.returncode, 6, process.stderr.decode())
        self.assertIn("step 12, the tenth in a row", sentences(process)[-1])

    def test_rolling_back_a_passing_fault_gives_the_same_bits(self):
        self.assert_done(self.train_on_grid("undisturbed"))
        process = self.train_on_grid("rollback", "--non-finite", "rollback", "--metrics", self.folder / "rollback.jsonl",
                                     "--log-every", 1, faults="gradient:corrupt:rank=3:count=8")
        out = self.assert_done(process)
        self.assertIn("step-00000005.h5, step 5", out)
        self.assertEqual(tensors(self.folder / "undisturbed" / LAST), tensors(self.folder / "rollback" / LAST))
        records = (self.folder / "rollback.jsonl").read_text().splitlines()
        self.assertEqual(20, sum("tokens_per_second" in record for record in records), "each step once")

    def test_rolling_back_to_the_same_fault_stops(self):
        process = self.train_on_grid("rollbacks", "--non-finite", "rollback", "--overwrite",
                                     faults="gradient:corrupt:rank=3:count=8;gradient:corrupt:rank=3:count=11")
        self.assertEqual(process.returncode, 6, process.stderr.decode())
        self.assertIn("again", sentences(process)[-1])

    def test_rolling_back_needs_checkpoints(self):
        self.assert_refused(self.train("--non-finite", "rollback"), 2, ["--non-finite rollback", "--checkpoint"])

    def test_replicas_that_differ_stop_the_run_naming_tensor_and_ranks(self):
        process = self.train_on_grid("flip", "--consistency-every", 1, faults="parameter:corrupt:rank=3:count=7")
        self.assert_refused(process, 8, ["/parameters/embedding", "ranks 1, 3", "step 7"])
        self.assertTrue((self.folder / "flip" / "step-00000005.h5").exists(), "the checkpoint on its way was lost")

    def test_the_odd_one_out_of_four_replicas_is_named(self):
        process = self.train("--lane-groups", 4, "--consistency-every", 1, ranks=4,
                             faults="parameter:corrupt:rank=2:count=4")
        self.assert_refused(process, 8, ["rank 2 against the others", "step 4"])

    def test_no_checkpoint_is_written_of_replicas_that_differ(self):
        process = self.train_on_grid("unsaved", faults="parameter:corrupt:rank=0:count=7")
        self.assert_refused(process, 8, ["step 10"])
        self.assertFalse((self.folder / "unsaved" / "step-00000010.h5").exists())


if __name__ == "__main__":
    unittest.main()
