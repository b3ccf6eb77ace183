# ctest: labels=program,mpi timeout=240
"""The program under mpirun: every grid ends in the same checkpoint, bit for bit."""
import json
import os
import pathlib
import random
import subprocess
import tempfile
import unittest

PROGRAM = os.environ["LAMINA_PROGRAM"]
STEPS = 12


class Grids(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)
        draw = random.Random(1)
        (self.folder / "text").write_text("".join(draw.choice("abcdefgh \n") for _ in range(6000)))

    def digests(self, data_ranks, model_ranks, *more, **environment):
        """Of every tensor after training on that grid."""
        name = f"{data_ranks}x{model_ranks}" + "".join([*more, *environment.values()])
        subprocess.run(["mpirun", "-n", str(data_ranks * model_ranks), PROGRAM, "train", "--data", self.folder / "text",
                        "--model-parallel", str(model_ranks), "--layers", "2", "--hidden", "32", "--embedding", "16",
                        "--batch", "16", "--time-steps", "8", "--steps", str(STEPS), "--lane-groups", "8",
                        "--dropout", "0.2", "--threads", "1", "--checkpoint", self.folder / name, *more],
                       check=True, capture_output=True, env={**os.environ, **environment})
        file = self.folder / name / f"step-{STEPS:08d}.h5"
        shown = subprocess.run([PROGRAM, "checkpoint", "inspect", file, "--json"], check=True, capture_output=True)
        return [(tensor["path"], tensor["digest"]) for tensor in json.loads(shown.stdout)["tensors"]]

    def test_every_grid_has_the_same_bits(self):
        alone = self.digests(1, 1)
        for grid in ((2, 1), (1, 2), (2, 2), (1, 4), (4, 2)):
            self.assertEqual(alone, self.digests(*grid), f"{grid[0]}x{grid[1]} differs from 1x1")
        for exchange in ("cell", "replicated"):
            self.assertEqual(alone, self.digests(2, 2, f"--exchange={exchange}"), exchange)
            self.assertEqual(alone, self.digests(1, 4, f"--exchange={exchange}"), exchange)

    def test_a_wavefront_has_the_same_bits(self):
        alone = self.digests(1, 1)
        self.assertEqual(alone, self.digests(1, 4, "--layer-order=wavefront"))
        messages = self.digests(2, 2, "--layer-order=wavefront", LAMINA_TRANSPORT="mpi")  # and sums in the background
        self.assertEqual(alone, messages)

    def test_sums_in_the_background_have_the_same_bits(self):
        alone = self.digests(1, 1)
        for grid, more in (((2, 1), ()), ((4, 1), ("--passes=2",)), ((2, 2), ())):
            self.assertEqual(alone, self.digests(*grid, *more, LAMINA_TRANSPORT="mpi"), f"{grid} {more}")

    def test_another_seed_has_other_bits(self):
        self.assertNotEqual(self.digests(1, 1), self.digests(1, 1, "--seed=2"))


if __name__ == "__main__":
    unittest.main()
