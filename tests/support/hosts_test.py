# ctest: labels=fault timeout=60
"""The hosts that other tests use: ranks start on them, cables can be cut, and nothing stays behind."""
import pathlib
import subprocess
import sys
import unittest

import hosts as subject
from hosts import Hosts

SAY_HELLO = "import socket; socket.create_server(('', 4000)).accept()[0].sendall(b'hello')"
HEAR = "import socket, sys; print(socket.create_connection((sys.argv[1], 4000), 0.3).recv(5).decode())"
RETRY = "for i in 1 2 3 4 5; do \"$@\" 2>/dev/null && exit 0; sleep 0.1; done; exit 1"


def hear(hosts, listener, speaker):
    """Whether `listener` hears a hello that `speaker` says over the net."""
    server = hosts.start(speaker, [sys.executable, "-c", SAY_HELLO])
    client = hosts.run(listener, ["sh", "-c", RETRY, "sh", sys.executable, "-c", HEAR, hosts.address(speaker)],
                       capture_output=True, text=True)
    server.kill()
    server.wait()
    return client.stdout == "hello\n"


class HostsTest(unittest.TestCase):
    def test_mpirun_starts_ranks_on_every_host(self):
        with Hosts(3) as hosts:
            command = hosts.mpirun(2, [1, 3], "sh", "-c", "echo $OMPI_COMM_WORLD_RANK $(hostname)")
            said = hosts.run(1, command, capture_output=True, text=True, timeout=40)

            wanted = [f"{rank} {hosts.name(1 if rank < 2 else 3)}" for rank in range(4)]
            self.assertEqual(wanted, sorted(said.stdout.splitlines()), said.stderr)

    def test_cables_are_cut_and_mended(self):
        with Hosts(2) as hosts:
            self.assertTrue(hear(hosts, 1, 2))
            hosts.cut(2)
            self.assertFalse(hear(hosts, 1, 2))
            hosts.mend(2)
            self.assertTrue(hear(hosts, 1, 2))

    def test_a_killed_host_takes_its_processes_along(self):
        with Hosts(1) as hosts:
            job = hosts.start(1, ["sleep", "100"])
            hosts.kill(1)
            self.assertEqual(-9, job.wait(timeout=10))

    def test_nothing_stays(self):
        with Hosts(2) as hosts:
            job = hosts.start(2, ["sleep", "100"])
            names = {hosts.switch, hosts.name(1), hosts.name(2)}
            self.assertLessEqual(names, set(subject.namespaces()))
        self.assertFalse(names & set(subject.namespaces()))
        self.assertEqual(-9, job.wait(timeout=10))

    def test_what_a_killed_test_left_is_removed(self):
        folder = pathlib.Path(subject.__file__).parent
        leave = f"import sys, os; sys.path.insert(0, {str(folder)!r}); import hosts; h = hosts.Hosts(1); " \
                "h.__enter__(); print(h.switch, flush=True); os.kill(os.getpid(), 9)"
        left = subprocess.run([sys.executable, "-c", leave], capture_output=True, text=True).stdout.strip()
        self.assertIn(left, subject.namespaces())

        subject.remove_left_behind()

        self.assertNotIn(left, subject.namespaces())


if __name__ == "__main__":
    reason = subject.missing()
    if reason:
        print(reason)
        sys.exit(0)
    unittest.main()
