# ctest: labels=program,mpi,fault timeout=300
"""Under `lamina launch` a run comes to its end with the bits of the undisturbed one, whatever ends its jobs; or it
ends for a named cause, and leaves nothing behind."""
import os
import pathlib
import signal
import subprocess
import time
import unittest

from program import command, lamina, sentences, tensors, training
from supervised import SupervisedTest, environment, marked, until

USER_ERROR, PREEMPTED, LOST = 2, 4, 5
LONG = ("--steps", 100000, "--checkpoint-every", 200)
HANG = "step:hang:count=2"  # just after the first status line


class Restarts(SupervisedTest):
    def assert_same_bits(self, steps=20):
        whole = self.runs / "whole"
        self.assert_done(self.train("--steps", steps, "--lane-groups", 2, "--checkpoint", whole))
        last = f"step-{steps:08d}.h5"
        self.assertEqual(tensors(whole / last), tensors(self.checkpoints_of_run / last))

    def test_a_rank_that_dies_anywhere_does_not_change_a_bit(self):
        faults = ";".join([f"step:kill:rank=1:count=8:{self.once('a')}",
                           f"gradient_sync:crash:rank=0:count=3:{self.once('b')}",
                           f"forward_exchange:kill:rank=1:count=40:{self.once('c')}"])
        launched = self.launch("--checkpoint-every", 5, "--checkpoint-mode", "sync", faults=faults)
        self.assert_ends(launched, 0)
        self.assert_same_bits()
        incidents = self.incidents()
        self.assertEqual(["SIGKILL" in incident["what"] for incident in incidents].count(True), 2, incidents)
        self.assertEqual(["SIGSEGV" in incident["what"] for incident in incidents].count(True), 1, incidents)
        self.assertTrue(any("restarting from step 5 on 2 ranks" in incident["next"] for incident in incidents), incidents)
        self.assertIn("3 incidents in this run", launched.said())

    def test_mpirun_that_dies_is_started_again(self):
        launched = self.launch("--steps", 2000, "--checkpoint-every", 100)
        launched.wait_for("step-00000200.h5")
        job = launched.job()
        injected = time.time()
        os.kill(launched.mpirun(), signal.SIGKILL)
        launched.wait_for("mpirun was killed by SIGKILL", launched.error)
        named = time.time()
        launched.wait_for("resumed from")
        went_on = time.time()
        self.assert_ends(launched, 0)
        self.assert_same_bits(2000)
        self.record("kill of mpirun", injected, named, went_on)
        self.assertIn("mpirun was killed by SIGKILL", self.incidents()[0]["what"])
        self.assert_nothing_left(job)

    def mpirun(self, *lines):
        """A stand-in for mpirun that calls it."""
        script = self.runs / "mpirun"
        script.write_text("\n".join(["#!/bin/sh", *lines]) + "\n")
        script.chmod(0o700)
        return ["--mpirun", script]

    def test_mpirun_that_hangs_after_its_ranks_is_ended(self):
        hanging = self.mpirun("setsid sleep 1000 &", 'mpirun "$@"', "code=$?",
                              f"mkdir {self.runs}/hung && exec sleep 1000", "exit $code")
        launched = self.launch("--checkpoint-every", 5, launch=[*hanging, "--end-timeout", 1],
                               faults=f"step:kill:rank=1:count=8:{self.once('a')}")
        job = launched.job()
        self.assert_ends(launched, 0)
        self.assert_same_bits()
        self.assertIn("mpirun did not end within 1 s", self.incidents()[0]["what"])
        self.assert_nothing_left(job)

    def test_the_budget_refills_with_progress(self):
        launched = self.launch("--checkpoint-every", 5, "--checkpoint-mode", "sync", launch=["--max-restarts", 1],
                               faults="step:kill:rank=1:count=7")
        self.assert_ends(launched, 0)
        self.assert_same_bits()
        self.assertEqual([incident["step"] for incident in self.incidents()], [5, 10, 15])

    def test_without_progress_the_budget_ends(self):
        launched = self.launch(launch=["--max-restarts", 2], faults="step:kill:rank=1")
        self.assert_ends(launched, LOST)
        incidents = self.incidents()
        self.assertEqual(len(incidents), 3)
        self.assertIn("no restarts are left", incidents[-1]["next"])
        self.assertEqual([incident["attempt"] for incident in incidents], [1, 2, 3])

    def test_an_older_run_that_was_to_go_is_not_resumed(self):
        old = lamina(*training(self.text, "--checkpoint", self.checkpoints_of_run, "--lane-groups", 2, "--seed", 9))
        self.assert_done(old)
        failing = self.mpirun(f"mkdir {self.runs}/failed 2>/dev/null && exit 213", 'exec mpirun "$@"')
        launched = self.launch("--overwrite", launch=failing)
        self.assert_ends(launched, 0)
        self.assertIn("213", self.incidents()[0]["what"])
        self.assert_same_bits()


    def test_a_folder_that_cannot_be_listed_for_a_while_costs_no_run(self):
        run = self.checkpoints_of_run  # for a while a link to itself
        failing = self.mpirun(f"mkdir {self.runs}/failed 2>/dev/null && ln -s {run} {run} && exit 213", f"rm {run}",
                              'exec mpirun "$@"')
        launched = self.launch("--overwrite", launch=failing)
        self.assert_ends(launched, 0)
        self.assertIn("cannot be listed: no progress is known", launched.said())
        self.assert_same_bits()

    def test_the_arguments_mean_what_they_mean_to_train(self):
        """A switch that is taken back on the command line stays taken back, whatever the file says."""
        file = self.runs / "resume.toml"
        file.write_text("resume = true\n")
        self.assert_done(lamina(*training(self.text, "--checkpoint", self.checkpoints_of_run, "--seed", 9)))
        launched = self.launch("--config", file, "--overwrite", "--no-resume")
        self.assert_ends(launched, 0)
        self.assertEqual(self.incidents(), [])
        self.assert_same_bits()


class UserErrors(SupervisedTest):
    def refused(self, *arguments, launch=(), ranks=2):
        launched = self.launch(*arguments, launch=launch, ranks=ranks)
        self.assert_ends(launched, USER_ERROR)
        self.assertEqual(self.incidents(), [])
        self.assertEqual(launched.said().count("\n"), 1, launched.said())
        return launched.said()

    def test_what_can_be_seen_before_is_refused_before(self):
        self.assertIn("did you mean --hidden", self.refused("--hiden", 5))
        self.assertIn("--batch must be at least 1", self.refused("--batch", -1))
        self.assertIn("contradict", self.refused("--resume", "--overwrite"))
        self.assertIn("--ranks", self.refused(ranks=None))
        self.assertIn("--max-restarts must be at least 0", self.refused(launch=["--max-restarts", -1]))
        self.assertIn("did you mean --hosts", self.refused(launch=["--host", "a"]))
        self.assertIn("/nowhere", self.refused(launch=["--hosts", "/nowhere"]))
        self.checkpoints_of_run = self.checkpoints
        self.assertIn("holds checkpoints: give --resume", self.refused())

    def test_the_training_needs_checkpoints_and_its_name(self):
        for words, sentence in ((["--ranks", 2, "--", "train", "--data", self.text], "--checkpoint"),
                                (["--ranks", 2], "after --"), (["--ranks", 2, "--", "evaluate"], "after --")):
            process = lamina("launch", *words)
            self.assertEqual(process.returncode, USER_ERROR)
            self.assertEqual(len(sentences(process)), 1)
            self.assertIn(sentence, sentences(process)[0])

    def test_what_the_ranks_refuse_is_not_started_again(self):
        launched = self.launch("--batch", 3)
        self.assert_ends(launched, USER_ERROR)
        self.assertIn("--batch 3 cannot be split", launched.said())
        self.assertEqual([incident["next"] for incident in self.incidents()], ["not restarted"])

    def test_mpirun_that_starts_no_rank_is_not_started_again(self):
        launched = self.launch(launch=["--mpirun", "mpirun --bogus"])
        self.assert_ends(launched, USER_ERROR)
        self.assertIn("mpirun started no rank", launched.said())
        self.assertEqual([incident["next"] for incident in self.incidents()], ["not restarted"])

    @unittest.skipIf(os.geteuid() != 0, "only root is refused")
    def test_root_is_told_what_mpirun_wants(self):
        bare = {name: value for name, value in os.environ.items() if not name.startswith("OMPI_ALLOW_RUN_AS_ROOT")}
        bare["OMPI_ALLOW_RUN_AS_ROOT"] = "0"  # which mpirun takes for a no
        for words in self.words(), command("benchmark", "scaling", "--grids", "1x1"):
            process = subprocess.run(words, env=bare, capture_output=True, timeout=60)
            self.assert_refused(process, USER_ERROR, ["as root", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1"])
            self.assertEqual(process.stderr.count(b"\n"), 1, process.stderr)
        self.assertEqual(self.incidents(), [])

    def test_it_is_not_started_by_mpirun(self):
        process = lamina("launch", "--ranks", 2, ranks=2)
        self.assertEqual(process.returncode, USER_ERROR)
        self.assertEqual(len(sentences(process)), 1)
        self.assertIn("without mpirun", sentences(process)[0])


class Stops(SupervisedTest):
    def running(self, *arguments, launch=(), faults=""):
        launched = self.launch(*LONG, *arguments, launch=launch, faults=faults)
        launched.wait_for("/100000  loss")
        return launched, launched.job()

    def test_each_signal_makes_the_ranks_save(self):
        for stop in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            launched, job = self.running("--resume")
            launched.process.send_signal(stop)
            self.assert_ends(launched, PREEMPTED)
            self.assertIn("stopped on request", launched.out.read_text())
            self.assertIn(f"{stop.name}: the ranks are asked to save", launched.said())
            self.assert_nothing_left(job)
        steps = [incident["step"] for incident in self.incidents()]
        self.assertEqual(steps, sorted(set(steps)))

    def test_a_second_signal_ends_at_once(self):
        for stop, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
            launched, job = self.running("--overwrite", faults=HANG)
            launched.process.send_signal(stop)
            launched.wait_for("asked to save", launched.error)
            launched.process.send_signal(stop)
            self.assert_ends(launched, code, seconds=15)
            self.assert_nothing_left(job)

    def test_ranks_that_do_not_save_in_time_are_ended(self):
        launched, job = self.running(launch=["--grace", 1], faults=HANG)
        launched.process.send_signal(signal.SIGTERM)
        self.assert_ends(launched, LOST, seconds=20)
        self.assertIn("did not save and end within 1 s", launched.said())
        self.assert_nothing_left(job)

    def test_a_stop_between_two_starts_loses_nothing(self):
        launched = self.launch(backoff=30, faults="step:kill:rank=1")
        launched.wait_for("restarting from", launched.error)
        launched.process.send_signal(signal.SIGTERM)
        self.assert_ends(launched, PREEMPTED, seconds=10)

    def test_nothing_outlives_a_killed_supervisor(self):
        launched, job = self.running()
        launched.ranks(2)
        launched.process.kill()
        self.assertTrue(until(lambda: not marked(job), 15), "processes of the job are left")
        again = self.launch("--resume", "--steps", 20)  # also takes away the folder that was left
        self.assert_ends(again, 0)
        self.assert_nothing_left(job)


class Leftovers(SupervisedTest):
    def test_all_files_of_a_job_lie_in_its_folder_and_go_with_it(self):
        launched = self.launch(*LONG)
        launched.wait_for("/100000  loss")
        job, mpirun, rank = launched.job(), launched.mpirun(), launched.ranks(2)[0]
        number = next(v for v in environment(rank) if v.startswith(b"OMPI_MCA_ess_base_jobid=")).partition(b"=")[2]
        own = [f"*{int(number):x}*", f"**/pid.{mpirun}"]
        self.assertTrue([*pathlib.Path("/dev/shm", job).rglob(own[0])], "shared memory lies elsewhere")
        self.assertTrue([*pathlib.Path("/dev/shm", job).glob(own[1])], "the session's folder lies elsewhere")
        os.kill(rank, signal.SIGKILL)
        launched.wait_for("restarting", launched.error)
        for place, pattern in (("/dev/shm", own[0]), ("/tmp", "ompi.*/" + own[1])):
            self.assertEqual([*pathlib.Path(place).glob(pattern)], [])
        launched.process.terminate()
        time.sleep(0.2)
        launched.process.terminate()
        launched.end()
        self.assert_nothing_left(job)


if __name__ == "__main__":
    unittest.main()
