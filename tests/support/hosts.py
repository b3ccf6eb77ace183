"""Several hosts on one machine: network namespaces joined by a bridge that leads nowhere. Ranks on one host share
memory, ranks on two talk TCP; a host can lose its cable, or die.

    with Hosts(3) as hosts:
        job = hosts.start(1, hosts.mpirun(2, [1, 2, 3], PROGRAM, "train", …), stdout=PIPE, stderr=PIPE)
        hosts.cut(2)

Hosts are counted from 1. Needs root and iproute2: ask missing() first.
"""
import atexit
import itertools
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

PREFIX = "lamina"
numbers = itertools.count()  # of the sets of hosts that this process makes
SETTINGS = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_plm": "rsh", "OMPI_MCA_plm_rsh_no_tree_spawn": "1",
    "OMPI_MCA_oob_tcp_if_include": "eth0", "OMPI_MCA_btl_tcp_if_include": "eth0",
    "OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "self,vader,tcp", "OMPI_MCA_mpi_yield_when_idle": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1", "OMPI_MCA_hwloc_base_binding_policy": "none",
}


def missing():
    """Why there can be no hosts here, as "SKIPPED-ALL: …"; empty where there can."""
    if os.geteuid() != 0:
        return "SKIPPED-ALL: only root can make network namespaces"
    for program in ("ip", "unshare"):
        if not shutil.which(program):
            return f"SKIPPED-ALL: {program} is not installed"
    try:
        with Hosts(1):
            return ""
    except subprocess.CalledProcessError as error:
        return f"SKIPPED-ALL: network namespaces cannot be made here: {error.stderr.strip()}"


def ip(*arguments):
    command = ["ip", *(str(part) for part in arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def inside(namespace, command):
    """`command`, run in `namespace` under that name as its host name; the started process becomes the command."""
    set_name = 'hostname "$0" && exec "$@"'
    return ["ip", "netns", "exec", namespace, "unshare", "--uts", "/bin/sh", "-c", set_name, namespace,
            *(str(part) for part in command)]


def namespaces():
    return [line.split()[0] for line in ip("netns", "list").splitlines()]


def processes(namespace):
    return [int(pid) for pid in ip("netns", "pids", namespace).split()]


def remove(namespace):
    """Ends what runs there, waits for it, and removes the namespace."""
    for _ in range(100):
        pids = processes(namespace)
        if not pids:
            break
        for pid in pids:
            end(pid)
        time.sleep(0.02)
    ip("netns", "del", namespace)
    for pattern in (f"vader_segment.{namespace}.*", f"osc_rdma.{namespace}.*", f"sm_segment.{namespace}.*"):
        for file in pathlib.Path("/dev/shm").glob(pattern):
            file.unlink(missing_ok=True)
    shutil.rmtree(f"/tmp/ompi.{namespace}.{os.geteuid()}", ignore_errors=True)


def end(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def remove_left_behind():
    """Hosts of tests that were killed before they could clean up."""
    for namespace in namespaces():
        owner = re.match(rf"{PREFIX}(\d+)n", namespace)
        if owner and not pathlib.Path("/proc", owner[1]).exists():
            try:
                remove(namespace)
            except subprocess.CalledProcessError:
                if namespace in namespaces():  # else another test removed it at the same time
                    raise


class Hosts:
    def __init__(self, count):
        self.count = count
        self.switch = f"{PREFIX}{os.getpid()}n{next(numbers)}"

    def __enter__(self):
        remove_left_behind()
        atexit.register(self.close)
        try:
            self._make()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        for namespace in namespaces():
            if namespace == self.switch or namespace.startswith(self.switch + "-"):
                remove(namespace)
        atexit.unregister(self.close)

    def _make(self):
        ip("netns", "add", self.switch)
        ip("-n", self.switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", self.switch, "link", "set", "bridge", "up")
        for host in range(1, self.count + 1):
            name = self.name(host)
            ip("netns", "add", name)
            ip("-n", self.switch, "link", "add", f"host{host}", "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("-n", self.switch, "link", "set", f"host{host}", "master", "bridge", "up")
            ip("-n", name, "addr", "add", f"{self.address(host)}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")

    def name(self, host):
        """Its host name."""
        return f"{self.switch}-{host}"

    def address(self, host):
        return f"10.77.0.{host}"

    def environment(self):
        """This process's environment, and what mpirun needs to start ranks on these hosts and on no others."""
        agent = f"{sys.executable} {pathlib.Path(__file__).resolve()} {self.switch}"
        return {**os.environ, **SETTINGS, "OMPI_MCA_plm_rsh_agent": agent}

    def command(self, host, command):
        """The words that run `command` on `host`; for a wrapper that starts it with environment()."""
        return inside(self.name(host), command)

    def mpirun(self, ranks_per_host, hosts, *command):
        """mpirun's words, to be started on the first of `hosts`; ranks are numbered host by host."""
        slots = ",".join(f"{self.address(host)}:{ranks_per_host}" for host in hosts)
        return ["mpirun", "--host", slots, "-np", ranks_per_host * len(hosts), *command]

    def start(self, host, command, **settings):
        """A Popen of `command` on `host`; its pid is the command's."""
        environment = {**self.environment(), **settings.pop("env", {})}
        return subprocess.Popen(self.command(host, command), env=environment, **settings)

    def run(self, host, command, **settings):
        environment = {**self.environment(), **settings.pop("env", {})}
        return subprocess.run(self.command(host, command), env=environment, **settings)

    def cut(self, host):
        """Pulls the host's cable: nobody is told, packets just vanish."""
        ip("-n", self.switch, "link", "set", f"host{host}", "down")

    def mend(self, host):
        ip("-n", self.switch, "link", "set", f"host{host}", "up")

    def kill(self, host):
        """The host dies: its cable goes dead and all that runs on it ends unheard."""
        self.cut(host)
        for pid in self.processes(host):
            end(pid)

    def processes(self, host, program=None):
        """Pids of what runs on `host`; of `program` only, by its path, where one is given."""
        pids = processes(self.name(host))
        return pids if program is None else [pid for pid in pids if runs(pid, program)]


def runs(pid, program):
    try:
        return os.path.samefile(f"/proc/{pid}/exe", program)
    except OSError:
        return False  # it has ended


def agent(switch, address, *words):
    """What mpirun calls instead of ssh. It reaches no host whose cable is cut."""
    host = address.rpartition(".")[2]
    if "state UP" not in ip("-n", switch, "link", "show", f"host{host}"):
        sys.exit(f"{address} does not answer")
    os.execvp("ip", inside(f"{switch}-{host}", ["/bin/sh", "-c", " ".join(words)]))


if __name__ == "__main__":
    agent(*sys.argv[1:])
