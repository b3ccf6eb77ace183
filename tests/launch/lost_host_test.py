# ctest: labels=program,mpi,fault timeout=900
"""`lamina launch --hosts` on hosts that die, lose their cable and come back: the run goes on with what is left, and its
bits are those of the undisturbed run."""
import os
import pathlib
import signal
import sys
import time
import unittest

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "support"))

from hosts import Hosts, missing
from program import tensors
from supervised import Launched, SupervisedTest

STEPS = 1500


class LostHosts(SupervisedTest):
    lane_groups = 0  # as many as the first grid has data ranks, on whatever is left of it too

    def launch_on(self, hosts, count, *arguments, launch=()):
        """`lamina launch` on host 1, with one slot on each of `count` hosts."""
        hostfile = self.runs / "hosts"
        hostfile.write_text("".join(f"{hosts.address(host)} slots=1\n" for host in range(1, count + 1)))
        words = self.words("--steps", STEPS, "--checkpoint-every", 50, "--collective-timeout", 5, *arguments,
                           launch=["--hosts", hostfile, "--host-timeout", 5, "--end-timeout", 6, *launch], ranks=None)
        launched = Launched(self.runs, words, start=lambda command, **more: hosts.start(1, command, **more))
        self.addCleanup(launched.process.wait)
        self.addCleanup(launched.process.terminate)
        return launched

    def assert_same_bits(self, lane_groups):
        whole = self.runs / "whole"
        self.assert_done(self.train("--steps", STEPS, "--lane-groups", lane_groups, "--checkpoint", whole))
        last = f"step-{STEPS:08d}.h5"
        self.assertEqual(tensors(whole / last), tensors(self.checkpoints_of_run / last))

    def assert_lost(self, harm, hosts, count, rest):
        """`harm` comes to the last of `count` hosts, and the run ends on `rest` ranks."""
        launched = self.launch_on(hosts, count)
        launched.wait_for("step-00000100.h5")
        job = launched.job()
        injected = time.time()
        harm(count)
        launched.wait_for(f"host {hosts.address(count)} does not answer", launched.error)
        named = time.time()
        launched.wait_for("resumed from")
        went_on = time.time()
        self.assert_ends(launched, 0)
        incident = self.incidents()[0]
        self.assertEqual(incident["ranks"], count)
        self.assertIn(f"on {rest} rank", incident["next"])
        self.assertIn(f"host {hosts.address(count)} does not answer", launched.said())
        self.assert_same_bits(lane_groups=count // 2)
        self.assert_nothing_left(job)
        self.record(f"{harm.__name__} of one host of {count}", injected, named, went_on)

    def test_a_host_dies(self):
        with Hosts(2) as hosts:
            self.assert_lost(hosts.kill, hosts, 2, rest=1)

    def test_a_cable_is_cut(self):
        with Hosts(4) as hosts:
            self.assert_lost(hosts.cut, hosts, 4, rest=2)

    def test_a_host_that_comes_back_is_used_again(self):
        with Hosts(4) as hosts:
            hosts.cut(4)
            launched = self.launch_on(hosts, 4)
            launched.wait_for("step-00000100.h5")
            hosts.mend(4)
            os.kill(launched.mpirun(), signal.SIGKILL)
            self.assert_ends(launched, 0)
            self.assertEqual([incident["ranks"] for incident in self.incidents()], [2])
            self.assertIn("on 4 ranks", self.incidents()[0]["next"])
            self.assert_same_bits(lane_groups=2)


if __name__ == "__main__":
    why = missing()
    if why:
        print(why)
        sys.exit(0)
    unittest.main()
