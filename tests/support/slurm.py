"""A Slurm of two nodes on this machine, without systemd, for tests: n1 and n2 with two CPUs each, a partition "low" whose
jobs are preempted and requeued, and a partition "high" that preempts them.

    with Slurm(folder) as slurm:
        job = slurm.submit("--nodes=2", script, "--hidden", 16)
        slurm.state(job)

Needs root, and Debian's slurm-wlm, slurm-wlm-basic-plugins and munge: ask missing() first.
"""
import os
import pathlib
import secrets
import shutil
import socket
import subprocess
import time

NODES = ("n1", "n2")
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "scontrol", "munged")


def missing():
    """Why there can be no Slurm here, as "SKIPPED-ALL: …"; empty where there can."""
    if os.geteuid() != 0:
        return "SKIPPED-ALL: only root can start a Slurm with host names of its own"
    absent = [program for program in PROGRAMS if not shutil.which(program)]
    return f"SKIPPED-ALL: {', '.join(absent)} not installed" if absent else ""


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def configuration(folder):
    controller, *ports = free_ports(1 + len(NODES))
    settings = {
        "ClusterName": "lamina", "SlurmctldHost": f"{socket.gethostname()}(127.0.0.1)", "SlurmctldPort": controller,
        "SlurmUser": "root", "SlurmdUser": "root",
        "AuthType": "auth/munge", "AuthInfo": f"socket={folder}/munge.sock,cred_expire=10",  # a requeued job waits until the old ones have expired
        "CredType": "cred/munge",
        "SlurmctldPidFile": f"{folder}/slurmctld.pid", "SlurmdPidFile": f"{folder}/slurmd.%n.pid",
        "StateSaveLocation": f"{folder}/state", "SlurmdSpoolDir": f"{folder}/spool.%n",
        "SlurmctldLogFile": f"{folder}/slurmctld.log", "SlurmdLogFile": f"{folder}/slurmd.%n.log",
        "ProctrackType": "proctrack/linuxproc", "TaskPlugin": "task/none", "SwitchType": "switch/none",
        "JobAcctGatherType": "jobacct_gather/none", "AccountingStorageType": "accounting_storage/none",
        "SelectType": "select/cons_tres", "SelectTypeParameters": "CR_Core", "MpiDefault": "none",
        "ReturnToService": 2, "KillWait": 5,
        "SchedulerParameters": "sched_interval=1,bf_interval=1",
        "PreemptType": "preempt/partition_prio", "PreemptMode": "REQUEUE",
        "SlurmctldParameters": "preempt_send_user_signal",
    }
    lines = [f"{name}={value}" for name, value in settings.items()]
    lines += [f"NodeName={node} NodeHostname={node} NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=1000"
              for node, port in zip(NODES, ports)]
    lines += ["PartitionName=low Nodes=n1,n2 Default=YES MaxTime=60 State=UP PriorityTier=1 GraceTime=30",
              "PartitionName=high Nodes=n1,n2 MaxTime=60 State=UP PriorityTier=10 PreemptMode=OFF"]
    return "\n".join(lines) + "\n"


class Slurm:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.environment = {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}
        self.daemons = []

    def __enter__(self):
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def _start(self):
        for name in ("state", *(f"spool.{node}" for node in NODES)):
            (self.folder / name).mkdir()
        (self.folder / "slurm.conf").write_text(configuration(self.folder))
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o600)
        self._daemon("munged", "--foreground", "--force", f"--key-file={key}", f"--socket={self.folder}/munge.sock",
                     f"--pid-file={self.folder}/munged.pid", f"--seed-file={self.folder}/munge.seed",
                     f"--log-file={self.folder}/munged.log")
        self._wait(lambda: (self.folder / "munge.sock").exists(), "munged made no socket")
        self._daemon("slurmctld", "-D", "-i")
        for node in NODES:  # a host name each: ranks of two nodes must not take each other's shared memory for theirs
            self._daemon("unshare", "--uts", "sh", "-c", f"hostname {node} && exec slurmd -D -N {node}")
        self._wait(lambda: self.ask("sinfo", "-h", "-p", "low", "-o", "%D %t") == "2 idle", "the nodes never became idle")

    def _daemon(self, *words):
        with open(self.folder / "daemons.log", "a") as log:
            self.daemons.append(subprocess.Popen(words, env=self.environment, stdout=log, stderr=log,
                                                 stdin=subprocess.DEVNULL))

    @staticmethod
    def _wait(condition, complaint, seconds=30):
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(complaint)
            time.sleep(0.1)

    def close(self):
        """Cancels all jobs, waits for them, and ends the daemons."""
        if len(self.daemons) > 1:
            self.ask("scancel", "--full", "-u", "root")
            try:
                self._wait(lambda: not self.ask("squeue", "-h"), "jobs did not end")
            except TimeoutError:
                pass  # they end with their node's daemon
        for daemon in reversed(self.daemons):
            daemon.terminate()
            try:
                daemon.wait(timeout=10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self.daemons = []

    def ask(self, *words):
        """Output of a command of Slurm; empty where it fails."""
        return subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=30).stdout.strip()

    def submit(self, *words, environment=None):
        """The number of the job of `sbatch WORDS`."""
        job = subprocess.run(["sbatch", "--parsable", *(str(word) for word in words)], capture_output=True, text=True,
                             env={**self.environment, **(environment or {})}, check=True, timeout=30)
        return int(job.stdout)

    def show(self, job):
        """Fields of the job as `scontrol show job` has them."""
        words = self.ask("scontrol", "-o", "show", "job", str(job)).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def state(self, job):
        return self.show(job).get("JobState", "")
