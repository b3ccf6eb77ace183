"""Runs `lamina launch`, and looks at what it started and what it leaves."""
import json
import os
import pathlib
import subprocess
import time

from program import PROGRAM, ProgramTest, training

JOB = b"LAMINA_JOB="
PATIENCE = 240  # seconds, with a run that nothing hinders; a busy machine takes ten times as long as an idle one


def until(condition, seconds=30):
    """The first true value of `condition`; the last one when the time is over."""
    end = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return value


def environment(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def children(pid):
    try:
        threads = list(pathlib.Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    except OSError:
        return []


def marked(job):
    """Pids of the processes that carry the mark of a job."""
    pids = [int(entry.name) for entry in pathlib.Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if JOB + job.encode() in environment(pid)]


class Launched:
    """A running `lamina launch`, its output in files."""

    def __init__(self, folder, words, **settings):
        self.out, self.error = folder / "launch.out", folder / "launch.err"
        with open(self.out, "w") as out, open(self.error, "w") as error:
            self.process = settings.pop("start", subprocess.Popen)(words, stdout=out, stderr=error, **settings)
        self.pid = self.process.pid

    def mpirun(self):
        """Pid of the mpirun that runs now, with its job's mark; waits for it."""
        started = until(lambda: [pid for pid in children(self.pid) if self.mark_of(pid)])
        return started[0]

    @staticmethod
    def mark_of(pid):
        marks = [variable[len(JOB):].decode() for variable in environment(pid) if variable.startswith(JOB)]
        return marks[0] if marks else None

    def job(self):
        return self.mark_of(self.mpirun())

    def ranks(self, count):
        """Pids of the ranks, once there are so many."""
        job = self.job()

        def found():
            pids = [pid for pid in marked(job) if any(v.startswith(b"OMPI_COMM_WORLD_RANK=") for v in environment(pid))]
            return pids if len(pids) == count else None

        return until(found)

    def wait_for(self, words, file=None, seconds=PATIENCE):
        assert until(lambda: words in (file or self.out).read_text(), seconds), \
            f"never said '{words}':\n{self.out.read_text()}\n{self.error.read_text()}"

    def end(self, seconds=PATIENCE):
        """The exit code."""
        try:
            return self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"did not end in {seconds} s:\n{self.out.read_text()}\n{self.said()}") from None

    def said(self):
        return self.error.read_text()


class SupervisedTest(ProgramTest):
    def setUp(self):
        self.runs = self.folder / self.id().rpartition(".")[2]
        self.runs.mkdir()
        self.checkpoints_of_run = self.runs / "run"

    lane_groups = 2

    def words(self, *arguments, launch=(), ranks=2, backoff=0.05):
        """`lamina launch` on `ranks` with quick restarts, of a tiny training with --model-parallel 2."""
        more = training(self.text, "--model-parallel", 2, "--lane-groups", self.lane_groups, "--checkpoint", self.checkpoints_of_run,
                        *arguments)
        start = [] if ranks is None else ["--ranks", ranks]
        return [str(word) for word in (PROGRAM, "launch", *start, "--backoff", backoff, *launch, "--", *more)]

    def launch(self, *arguments, launch=(), ranks=2, backoff=0.05, faults="", **settings):
        launched = Launched(self.runs, self.words(*arguments, launch=launch, ranks=ranks, backoff=backoff),
                            env={**os.environ, "LAMINA_FAULTS": faults}, **settings)
        self.addCleanup(launched.process.wait)
        self.addCleanup(launched.process.terminate)
        return launched

    def record(self, fault, injected, named, went_on):
        """A row for the table of faults, in the file that LAMINA_FAULT_TABLE names: seconds since the fault until it was
        named and until training went on. The caller has seen that the bits are equal."""
        if table := os.environ.get("LAMINA_FAULT_TABLE"):
            with open(table, "a") as file:
                file.write(json.dumps({"fault": fault, "named": named - injected, "went_on": went_on - injected}) + "\n")

    def once(self, name):
        return f"once={self.runs / name}"

    def incidents(self):
        file = self.checkpoints_of_run / "incidents.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def assert_ends(self, launched, code, seconds=PATIENCE):
        self.assertEqual(launched.end(seconds), code, launched.said())

    def assert_nothing_left(self, job):
        self.assertEqual(marked(job), [])
        self.assertFalse(pathlib.Path("/dev/shm", job).exists())
