# ctest: labels=program timeout=60
"""lamina benchmark checkpoint on a tiny model: figures of everything it promises, and nothing left behind."""
import json
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
from program import lamina, mount_small_disk, sentences

RAW = {"raw_write_shared", "raw_write_own", "raw_read_cached", "raw_read_disk", "copy"}
OURS = {"write": "raw_write_shared", "read_cached": "raw_read_cached", "read_disk": "raw_read_disk"}


class BenchmarkCheckpoint(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)

    def measure(self, *arguments, ranks=1):
        return lamina("benchmark", "checkpoint", "--folder", self.folder / "disk", *arguments, ranks=ranks)

    def test_figures(self):
        for ranks, io in ((1, "posix"), (2, "posix"), (2, "mpi-io")):
            with self.subTest(ranks=ranks, io=io):
                figures = self.folder / "figures.json"
                done = self.measure("--gigabytes", 0.002, "--repetitions", 2, "--io", io, "--json", figures, ranks=ranks)

                self.assertEqual((done.returncode, sentences(done)), (0, []))
                self.assertIn("write checkpoint", done.stdout.decode())
                found = json.loads(figures.read_text())
                self.assertEqual((found["ranks"], found["io"]), (ranks, io))
                self.assertGreater(found["bytes"], 0.001 * 2**30)
                for key in RAW | OURS.keys():
                    self.assertEqual(len(found[key]["seconds"]), 2, key)
                    self.assertGreater(min(found[key]["seconds"]), 0, key)
                for key, raw in OURS.items():
                    ratio = found[key]["mib_per_second"] / found[raw]["mib_per_second"]
                    self.assertAlmostEqual(found[key]["ratio_to_raw"], ratio)
                self.assertEqual(list((self.folder / "disk").iterdir()), [])

    def test_files_of_a_person_stay(self):
        own = self.folder / "disk" / "benchmark.h5"
        own.parent.mkdir()
        own.write_text("mine")
        self.assertEqual(self.measure("--gigabytes", 0.001, "--repetitions", 1).returncode, 0)
        self.assertEqual([path.read_text() for path in own.parent.iterdir()], ["mine"])

    def test_nothing_stays_on_a_disk_that_is_full(self):
        disk = mount_small_disk(self, self.folder / "disk", 14 * 1024)
        for ranks in (1, 2):
            done = self.measure("--gigabytes", 0.01, ranks=ranks)
            self.assertIn(done.returncode, (2, 7))
            self.assertIn("No space left on device", sentences(done)[0])
            self.assertEqual(list(disk.iterdir()), [])

    def test_a_json_file_that_cannot_be_written_is_refused_before_anything_is_measured(self):
        done = self.measure("--gigabytes", 0.001, "--json", self.folder)
        self.assertEqual((done.returncode, done.stdout), (2, b""))

    def test_what_cannot_be_measured(self):
        for arguments, words in ((("--gigabytes", 0), "--gigabytes is 0"), (("--repetitions", 0), "repetitions"),
                                 (("--io", "paper"), "paper"), (("--json", self.folder), "cannot be written")):
            with self.subTest(arguments=arguments):
                size = () if "--gigabytes" in arguments else ("--gigabytes", 0.001)
                done = self.measure(*size, *arguments)
                self.assertEqual(done.returncode, 2)
                self.assertIn(words, sentences(done)[0])
        done = lamina("benchmark", "checkpoint")
        self.assertEqual(done.returncode, 2)
        self.assertIn("--folder is missing", sentences(done)[0])


if __name__ == "__main__":
    unittest.main()
