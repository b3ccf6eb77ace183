# ctest: labels=program,mpi timeout=120
"""lamina checkpoint export: what NumPy loads is what h5py reads, bit for bit; no output is half written or lost."""
import sys
import unittest
import zipfile

from program import ProgramTest, digests, lamina, mount_small_disk

try:
    import h5py
    import numpy
except ImportError:
    print("SKIPPED-ALL: this Python has no h5py or no NumPy")
    sys.exit(0)

USER_ERROR, DAMAGED = 2, 3


class Export(ProgramTest):
    def setUp(self):
        self.file = self.checkpoints / "step-00000020.h5"
        self.output = self.folder / self._testMethodName
        self.output.mkdir()

    def exported(self, name, *arguments, checkpoint=None, ranks=1):
        output = self.output / name
        self.assert_done(lamina("checkpoint", "export", checkpoint or self.file, "--output", output, *arguments,
                                ranks=ranks))
        self.assertEqual([output], list(self.output.iterdir()))
        return output

    def assert_same(self, array, path):
        with h5py.File(self.file) as file:
            expected = file[path][:]
        self.assertEqual(array.dtype.str, "<f4")
        self.assertTrue(array.flags.c_contiguous)
        self.assertEqual(array.shape, expected.shape)
        self.assertEqual(array.tobytes(), expected.tobytes(), path)

    def paths(self):
        found = []
        with h5py.File(self.file) as file:
            file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
        return sorted(path for path in found if path != "vocabulary" and not path.startswith("digests/"))

    def test_one_tensor(self):
        for number, path in enumerate(("/parameters/lstm0/W_h", "parameters/output/bias", "/state/lstm0/c")):
            with self.subTest(path):
                output = self.output / f"{number}.npy"
                self.assert_done(lamina("checkpoint", "export", self.file, "--tensor", path, "--output", output))
                self.assert_same(numpy.load(output, allow_pickle=False), path)

    def test_all_tensors(self):
        output = self.exported("all.npz")
        with numpy.load(output, allow_pickle=False) as arrays:
            self.assertEqual(self.paths(), sorted(arrays.files))
            self.assertGreater(len(arrays.files), 20)
            for path in arrays.files:
                self.assert_same(arrays[path], path)

    def test_a_group_of_a_folders_newest(self):
        output = self.exported("group.npz", "--tensor", "parameters/lstm0/", checkpoint=self.checkpoints, ranks=2)
        with numpy.load(output, allow_pickle=False) as arrays:
            self.assertEqual([path for path in self.paths() if path.startswith("parameters/lstm0/")],
                             sorted(arrays.files))
            for path in arrays.files:
                self.assert_same(arrays[path], path)

    def test_the_archive_is_sound_for_others(self):
        output = self.exported("all.npz")
        with zipfile.ZipFile(output) as archive:
            self.assertIsNone(archive.testzip())
            for member in archive.infolist():
                self.assertEqual(member.compress_type, zipfile.ZIP_STORED)
                self.assertEqual(member.external_attr >> 16, 0o100644)

    def test_equal_content_gives_equal_bytes(self):
        first, second = self.output / "1.npz", self.output / "2.npz"
        for output in (first, second):
            self.assert_done(lamina("checkpoint", "export", self.file, "--output", output))
        self.assertEqual(first.read_bytes(), second.read_bytes())

    def refused(self, words, *arguments, output=None, checkpoint=None, code=USER_ERROR):
        before = digests(self.folder)
        process = lamina("checkpoint", "export", checkpoint or self.file, "--output",
                         output or self.output / "x.npz", *arguments)
        self.assert_refused(process, code, words)
        self.assertEqual(digests(self.folder), before)

    def test_what_cannot_be_meant_is_refused(self):
        self.refused(["x.txt", ".npy", ".npz"], output=self.output / "x.txt")
        self.refused(["x.npy", "--tensor"], output=self.output / "x.npy")
        self.refused(["parameters/lstm1", "inspect"], "--tensor", "parameters/lstm1")
        self.refused(["parameters/lstm", "inspect"], "--tensor", "/parameters/lstm")
        self.refused(["No such file"], output=self.output / "absent" / "x.npz")

    def test_an_output_that_exists_stays_unless_told(self):
        output = self.output / "x.npz"
        output.write_text("precious")
        self.refused([output, "--overwrite"], output=output)
        self.exported("x.npz", "--overwrite")
        with numpy.load(output) as arrays:
            self.assertEqual(self.paths(), sorted(arrays.files))
        folder = self.output / "folder.npz"
        folder.mkdir()
        self.refused([folder, "not a file"], "--overwrite", output=folder)

    def test_a_damaged_checkpoint_leaves_nothing(self):
        damaged = self.output / "damaged.h5"
        content = bytearray(self.file.read_bytes())
        with h5py.File(self.file) as file:
            content[file["/state/lstm0/h"].id.get_offset() + 10] ^= 1  # of the last tensor
        damaged.write_bytes(content)
        self.refused([damaged, "/state/lstm0/h"], checkpoint=damaged, code=DAMAGED)

    def test_a_full_disk_is_said_and_leaves_nothing(self):
        disk = mount_small_disk(self, self.output / "disk", 8)
        self.refused(["x.npz", "No space left on device", "free"], output=disk / "x.npz")


if __name__ == "__main__":
    unittest.main()
