# ctest: labels=fault,mpi,program timeout=200
"""Jobs over several hosts that lose a host, a link or mpirun: those that are left say who is lost, and none stays."""
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
import hosts as network  # noqa: E402

JOB = pathlib.Path(os.environ["LAMINA_BUILD"]) / "tests" / "runtime_watchdog_jobs_test"
DEADLINE = 4
ENDLESS = {"LAMINA_TEST_JOB": f"{DEADLINE} 1000000 0"}
LEAD = 3  # the other hosts leave the word to one of them for so long
SLACK = 12  # a verdict takes a moment, an end several, and this machine may be busy


class Job:
    """The job of watchdog_jobs_test.cpp, two ranks on each host, and what it prints."""

    def __init__(self, hosts, over, fault=""):
        self.hosts, self.over = hosts, over
        self.output = tempfile.TemporaryFile("w+")
        words = ["-x", "LAMINA_TEST_JOB", "-x", "LAMINA_FAULTS", JOB]
        self.process = hosts.start(over[0], hosts.mpirun(2, over, *words), env={**ENDLESS, "LAMINA_FAULTS": fault},
                                   stdout=self.output, stderr=subprocess.STDOUT)

    def text(self):
        self.output.seek(0)
        return self.output.read()

    def sentences(self):
        return [line for line in self.text().splitlines() if line.startswith("lamina: ")]

    def ranks(self, hosts=None):
        return [pid for host in hosts or self.over for pid in self.hosts.processes(host, JOB)]

    def wait_until(self, condition, seconds):
        """Seconds until it holds."""
        start = time.monotonic()
        while not condition():
            if time.monotonic() - start > seconds:
                raise AssertionError(f"not within {seconds} s; the job said:\n{self.text()}")
            time.sleep(0.05)
        return time.monotonic() - start

    def wait_for_step(self):
        self.wait_until(lambda: "step 100" in self.text() or self.process.poll() is not None, 60)
        assert self.process.poll() is None, self.text()

    def wait_for_end(self, seconds, hosts=None):
        return self.wait_until(lambda: not self.ranks(hosts), seconds)


class LostHosts(unittest.TestCase):
    def job(self, count, fault=""):
        hosts = network.Hosts(count)
        hosts.__enter__()
        self.addCleanup(hosts.close)
        job = Job(hosts, list(range(1, count + 1)), fault)
        self.addCleanup(job.output.close)
        self.addCleanup(job.process.wait)
        self.addCleanup(job.process.kill)
        return job

    def test_a_cut_link_is_named_and_all_ranks_end(self):
        for count in (2, 3):
            with self.subTest(hosts=count):
                job = self.job(count)
                job.wait_for_step()

                job.hosts.cut(count)

                lost = f"no word from ranks {2 * count - 2} and {2 * count - 1} on {job.hosts.name(count)} within " \
                       f"{DEADLINE} s"
                job.wait_until(lambda: lost in job.text(), DEADLINE + SLACK)
                job.wait_for_end(SLACK)
                self.assertEqual(1, len(job.sentences()), job.text())

    def test_a_stopped_rank_on_another_host_is_named(self):
        job = self.job(2, "gradient_sync:stop:rank=3:count=200")

        self.assertEqual(5, job.process.wait(timeout=60), job.text())

        self.assertEqual(1, len(job.sentences()), job.text())
        self.assertRegex(job.text(), rf"rank 3 on {job.hosts.name(2)} \(process \d+, stopped\) did not come to "
                                     rf"all_reduce \(sum\) of 2000 float32 \(data axis, step 199\)")

    def test_no_rank_outlives_mpirun(self):
        job = self.job(2)
        job.wait_for_step()
        self.assertEqual(4, len(job.ranks()))

        job.process.kill()

        job.wait_for_end(5)

    def test_a_killed_host_ends_the_job(self):
        job = self.job(3)
        job.wait_for_step()

        job.hosts.kill(3)

        job.wait_for_end(DEADLINE + LEAD + SLACK)
        self.assertIn(job.hosts.name(3), job.text())


if __name__ == "__main__":
    reason = network.missing()
    if reason:
        print(reason)
        sys.exit(0)
    unittest.main()
