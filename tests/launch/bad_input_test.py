# ctest: labels=program,mpi,brief timeout=300
"""Bad input: one clear sentence for the whole job, the documented exit code, and nothing written over or lost."""
import concurrent.futures
import dataclasses
import fcntl
import os
import resource
import shutil
import signal
import subprocess
import time
import unittest

from program import PROGRAM, ProgramTest, command, digests, lamina, mount_small_disk, sentences, training

USER_ERROR, DAMAGED, NOT_WRITTEN = 2, 3, 7
RANKS = 2


@dataclasses.dataclass
class Case:
    """Arguments of the program, and words of the sentence that refuses them."""
    arguments: list
    words: list
    code: int = USER_ERROR

    def run(self):
        return lamina(*self.arguments, ranks=RANKS)


class BadInput(ProgramTest):
    def setUp(self):
        self.before = digests(self.folder)

    def assert_nothing_changed(self):
        self.assertEqual(digests(self.folder), self.before)

    def all_refused(self, *cases):
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            processes = list(pool.map(Case.run, cases))
        for case, process in zip(cases, processes):
            with self.subTest(arguments=[str(argument) for argument in case.arguments]):
                self.assert_refused(process, case.code, case.words)
        self.assert_nothing_changed()

    def training(self, *arguments, words, data=None):
        return Case(training(data or self.text, *arguments), words)

    def file(self, name, content):
        path = self.folder / name
        path.write_bytes(content)
        self.before = digests(self.folder)
        return path


class Settings(BadInput):
    def test_unknown_flags_and_commands(self):
        self.all_refused(
            self.training("--hiden", 5, words=["--hiden", "--hidden", "lamina train --help"]),
            Case(["trian"], ["trian", "did you mean train"]),
            Case(["train", "evaluate"], ["evaluate"]),
            Case([], ["needs a command"]))

    def test_values_that_are_none(self):
        self.all_refused(
            self.training("--batch", "12abc", words=["--batch", "whole number", "12abc"]),
            self.training("--threads", 1025, words=["--threads must be at most 1024, not 1025"]),
            self.training("--batch", -4, words=["--batch", "at least 1", "-4"]),
            self.training("--learning-rate", "nan", words=["--learning-rate", "finite", "nan"]),
            self.training("--steps", words=["--steps", "value"]),
            Case(["info", "--json=3"], ["--json must be true or false, not '3'"]),
            Case(["checkpoint", "inspect", "--json=3", self.checkpoints], ["--json must be true or false, not '3'"]),
            Case(["checkpoint", "export", "--overwrite=3", "--output", self.folder / "x.npz", self.checkpoints],
                 ["--overwrite must be true or false, not '3'"]))

    def test_contradictory_flags(self):
        self.all_refused(
            self.training("--checkpoint", self.checkpoints, "--resume", "--overwrite",
                          words=["--resume and --overwrite contradict"]),
            self.training("--resume", words=["--resume needs --checkpoint"]),
            self.training("--seed", 1, "--seed", 2, words=["--seed is given 2 times"]),
            self.training("--metrics", self.text, words=["--metrics and --data are the same file"]))

    def test_outputs_over_inputs_and_each_other(self):
        link = self.folder / "link"
        link.symlink_to(self.text)
        self.addCleanup(link.unlink)
        config = self.file("c.toml", f"data = '{self.text}'\n".encode())
        new, same = self.folder / "new", self.folder / ".." / self.folder.name / "new"
        data = ["--data", self.text, "--json", self.text]
        self.all_refused(
            Case(["train", "--config", config, "--metrics", config], ["--metrics and --config are the same file"]),
            Case(["train", "--config", config, "--trace", config], ["--trace and --config are the same file"]),
            self.training("--metrics", new, "--trace", same, words=["--trace and --metrics are the same file"]),
            self.training("--metrics", link, words=["--metrics and --data are the same file"]),
            Case(["benchmark", "train", *data], ["--json and --data are the same file"]))
        self.assert_refused(lamina("benchmark", "scaling", "--grids", "1x1", *data), USER_ERROR, ["--json and --data"])
        self.assert_nothing_changed()

    def test_a_configuration_file_with_mistakes(self):
        file = self.file("wrong.toml", b"hidden = 16\nhiden = 16\n")
        self.all_refused(
            self.training("--config", file, words=[f"{file}, line 2", "'hiden'", "'hidden'"]),
            self.training("--config", self.folder / "absent.toml", words=["absent.toml", "does not exist"]))

    def test_a_configuration_file_that_is_none(self):
        large, pipe = self.file("large.toml", b"#" * (1 << 20) + b"\n"), self.folder / "pipe.toml"
        os.mkfifo(pipe)
        self.addCleanup(pipe.unlink)
        self.all_refused(
            self.training("--config", large, words=["large.toml", "1048577 bytes", "at most 1048576"]),
            self.training("--config", self.folder, words=[self.folder, "is a directory"]),
            self.training("--config", pipe, words=["pipe.toml", "not a regular file"]),
            self.training("--config", "/dev/zero", words=["/dev/zero", "not a regular file"]))


class Grid(BadInput):
    def test_sizes_that_cannot_be_split(self):
        self.all_refused(
            self.training("--hidden", 12, words=["--hidden", "multiple of --unit-blocks (8)", "12"]),
            self.training("--batch", 3, words=["batch", "3"]),
            self.training("--model-parallel", 4, words=["--model-parallel"]),
            self.training("--model-parallel", 2, "--unit-blocks", 1, words=["--unit-blocks"]),
            Case(["generate", "--checkpoint", self.checkpoints], ["--model-parallel", "there are 2"]))


    def test_sizes_that_no_machine_has_room_for(self):
        model = ["evaluate", "--checkpoint", self.checkpoints, "--data", self.text, "--model-parallel", RANKS]
        self.all_refused(
            self.training("--layers", 2**31 - 1, words=["--layers must be at most 1024"]),
            self.training("--hidden", 2**31 - 8, words=["--hidden must be at most 1048576"]),
            self.training("--embedding", 2**31 - 8, words=["--embedding must be at most 1048576"]),
            self.training("--batch", 2**31 - 1, words=["--batch must be at most 1048576"]),
            self.training("--time-steps", 2**31 - 1, words=["--time-steps must be at most 1048576"]),
            self.training("--batch", 2**20, "--time-steps", 2**20, words=["1099511627776 characters a step"]),
            Case([*model, "--batch", 2**31 - 1], ["--batch must be at most"]),
            Case([*model, "--time-steps", 2**31 - 1], ["--time-steps must be at most"]),
            Case(["benchmark", "layer", "--batch", 2**31 - 1], ["--batch must be at most"]),
            Case(["benchmark", "layer", "--steps", 2**31 - 1], ["--steps must be at most"]),
            Case(["benchmark", "layer", "--hidden", 2**31 - 8], ["--hidden must be at most"]))

    def test_a_model_without_room_in_memory(self):
        words = command(*training(self.text, "--hidden", 1000000))
        room = 8 << 30
        process = subprocess.run(words, capture_output=True, timeout=60,
                                 preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (room, room)))
        self.assert_refused(process, USER_ERROR, ["out of memory", "smaller model"])


class Data(BadInput):
    def test_training_text_that_is_none(self):
        empty, latin1 = self.file("empty.txt", b""), self.file("latin1.txt", b"caf\xe9" * 1000)
        short, tiny = self.file("short.txt", b"too short"), self.file("tiny.txt", 4 * b"too tiny " + b"to")
        self.all_refused(
            Case(["train"], ["--data is missing"]),
            self.training(data=self.folder / "absent.txt", words=["absent.txt"]),
            self.training(data=self.folder, words=[self.folder]),
            self.training(data="/dev/zero", words=["/dev/zero", "not a regular file"]),
            self.training(data=empty, words=["empty.txt", "empty"]),
            self.training(data=latin1, words=["latin1.txt", "UTF-8"]),
            self.training(data=short, words=["character"]),
            self.training("--validation-fraction", 0.05, data=tiny, words=["tiny.txt", "holds out 1 ", "--validation-fraction 0 "]))

    def test_text_that_the_model_does_not_know(self):
        foreign, one = self.file("foreign.txt", "the quick µ".encode()), self.file("one.txt", b"t")
        model = ["--checkpoint", self.checkpoints, "--model-parallel", RANKS, "--threads", 1]
        self.all_refused(
            Case(["evaluate", *model, "--data", self.folder / "absent.txt"], ["absent.txt"]),
            Case(["evaluate", *model, "--data", foreign], ["foreign.txt", "µ"]),
            Case(["evaluate", *model, "--data", one], ["character"]),
            Case(["generate", *model, "--prompt", "the µ"], ["--prompt", "µ"]))


class Metrics(BadInput):
    def test_a_run_that_is_refused_leaves_its_files(self):
        records, trace = self.file("old.jsonl", b'{"step":1}\n'), self.file("old.json", b"{}")
        absent = self.folder / "none" / "trace.json"
        self.all_refused(
            self.training("--metrics", records, "--trace", absent, words=[absent]),
            self.training("--metrics", records, "--trace", trace, "--trace-step", 999, words=["--trace-step 999"]))

    def test_a_file_that_holds_something_else(self):
        notes = self.file("notes.txt", b"my notes\n")
        self.all_refused(self.training("--metrics", notes, words=[notes, "is not a metrics file: line 1"]))

    def test_no_room_for_records(self):
        checkpoints = self.folder / "without_records"
        process = self.train("--metrics", "/dev/full", "--checkpoint", checkpoints, ranks=RANKS)
        self.assert_done(process)
        self.assertEqual(len(sentences(process)), 1, process.stderr)
        self.assertIn("/dev/full cannot be written: No space left on device; training goes on", sentences(process)[0])
        self.assertTrue((checkpoints / "step-00000020.h5").exists())


class Folder(BadInput):
    def test_a_folder_or_file_that_cannot_be_written(self):
        self.all_refused(
            self.training("--checkpoint", self.text / "folder", words=[self.text / "folder"]),
            self.training("--checkpoint", "/proc/lamina", words=["/proc/lamina"]),
            self.training("--metrics", self.text / "metrics", words=[self.text / "metrics"]))

    def test_a_folder_that_holds_checkpoints(self):
        self.all_refused(self.training("--checkpoint", self.checkpoints,
                                       words=[self.checkpoints, "--resume", "--overwrite"]))

    def test_a_folder_without_checkpoints(self):
        empty = self.folder / "empty"
        empty.mkdir()
        words = [empty, "no checkpoint"]
        self.all_refused(
            Case(["evaluate", "--checkpoint", empty, "--data", self.text], words),
            Case(["checkpoint", "inspect", empty], words),
            Case(["checkpoint", "verify", empty], words))


class FullDisk(BadInput):
    def mount(self, kibibytes):
        return mount_small_disk(self, self.folder / f"disk-{kibibytes}", kibibytes)

    @unittest.skipUnless(os.path.exists("/dev/full"), "no /dev/full here")
    def test_no_room_for_standard_output(self):
        with open("/dev/full", "w") as full:
            process = subprocess.run(command("info"), stdout=full, stderr=subprocess.PIPE, timeout=60)
        self.assert_refused(process, USER_ERROR, ["standard output cannot be written", "free space"])

    def test_no_room_for_the_first_checkpoint(self):
        disk = self.mount(16)
        records, trace = self.file("older.jsonl", b'{"step":1}\n'), self.file("older.json", b"{}")
        self.all_refused(self.training("--checkpoint", disk, "--metrics", records, "--trace", trace,
                                       words=["first checkpoint", "--checkpoint"]))

    def test_three_failures_in_a_row_end_the_run(self):
        disk = self.mount(512)
        process = self.train("--checkpoint", disk, "--checkpoint-every", 1, "--keep", 0, ranks=RANKS)
        self.assertEqual(process.returncode, NOT_WRITTEN, process.stderr)
        said = sentences(process)
        self.assertEqual(len(said), 3, said)
        self.assertIn("failure 3 in a row, and --max-checkpoint-failures is 3", said[-1])
        self.assert_done(lamina("checkpoint", "verify", disk))

    def test_no_room_for_the_last_one(self):
        disk = self.mount(1024)
        process = self.train("--checkpoint", disk, "--checkpoint-every", 1, "--keep", 0, "--max-checkpoint-failures", 0,
                             ranks=RANKS)
        self.assertEqual(process.returncode, NOT_WRITTEN, process.stderr)
        self.assertIn(b"20/20  loss", process.stdout)
        self.assertIn("No space left on device", sentences(process)[-1])
        kept = sorted(path.name for path in disk.iterdir())
        self.assertEqual(kept, [f"step-{step:08}.h5" for step in range(len(kept))])
        self.assertGreater(len(kept), 1)
        self.assert_done(lamina("checkpoint", "verify", disk))


class DamagedCheckpoint(BadInput):
    def copy(self, name, change):
        """A folder with the checkpoints of steps 10 and 20, the latter with its bytes changed."""
        folder = self.folder / name
        folder.mkdir()
        shutil.copy(self.checkpoints / "step-00000010.h5", folder)
        content = bytearray((self.checkpoints / "step-00000020.h5").read_bytes())
        (folder / "step-00000020.h5").write_bytes(change(content))
        self.before = digests(self.folder)
        return folder

    def check_refused(self, folder, code, *words):
        """By every command that reads it, which leave it as it is."""
        file = folder / "step-00000020.h5"
        model = ["--checkpoint", folder, "--model-parallel", RANKS, "--threads", 1]
        self.all_refused(
            Case(["checkpoint", "verify", file], [file, *words], code),
            Case(["checkpoint", "inspect", folder], [file, *words], code),
            Case(["evaluate", *model, "--data", self.text], [file, *words], code),
            Case(["generate", *model], [file, *words], code))

    def check_resumes_from_step_10(self, folder):
        """--resume sets the damaged file aside, unchanged, says so, and goes on with the older one."""
        damaged = (folder / "step-00000020.h5").read_bytes()

        process = self.train("--checkpoint", folder, "--resume", "--steps", 12, "--model-parallel", RANKS, ranks=RANKS)

        self.assertIn("step-00000010.h5", self.assert_done(process))
        self.assertEqual(len(sentences(process)), 1, process.stderr)
        self.assertIn("step-00000020.h5", sentences(process)[0])
        self.assertEqual((folder / "step-00000020.h5.damaged").read_bytes(), damaged)
        self.assertTrue((folder / "step-00000012.h5").exists())

    def test_where_all_are_damaged_a_person_decides(self):
        folder = self.copy("all", lambda content: content[:-1])
        older = folder / "step-00000010.h5"
        older.write_bytes(older.read_bytes()[:-1])
        resume = ["--checkpoint", folder, "--resume", "--steps", 12]
        for _ in range(2):  # it is the same on the next try, as a supervisor's would be
            process = self.train(*resume)
            self.assertEqual(process.returncode, USER_ERROR, process.stderr)
            for word in ("holds no checkpoint", "step-00000020.h5.damaged", "--overwrite"):
                self.assertIn(word, sentences(process)[-1])
        self.assert_done(self.train("--checkpoint", folder, "--overwrite"))
        self.assertTrue((folder / "step-00000020.h5.damaged").exists())

    @staticmethod
    def flip(content, place):
        content[place] ^= 16
        return content

    def test_truncated(self):
        folder = self.copy("truncated", lambda content: content[: len(content) * 2 // 3])
        self.check_refused(folder, DAMAGED)
        self.check_resumes_from_step_10(folder)

    def test_a_bit_flipped_in_a_weight(self):
        weights = self.place_of_weights()
        folder = self.copy("weight", lambda content: self.flip(content, weights))
        self.check_refused(folder, DAMAGED, "lstm0/W_h")
        self.check_resumes_from_step_10(folder)

    def test_a_bit_flipped_in_the_structure(self):
        folder = self.copy("structure", lambda content: self.flip(content, len(content) // 2))
        self.check_refused(folder, DAMAGED)

    def test_verify_goes_through_a_folder_to_its_end(self):
        folder = self.copy("mixed", lambda content: content[:-1])
        process = lamina("checkpoint", "verify", folder / "step-00000020.h5", folder, ranks=RANKS)
        self.assert_refused(process, DAMAGED, ["step-00000020.h5"])
        self.assertIn("step-00000010.h5: whole", process.stdout.decode())
        self.assertEqual(process.stdout.decode().count("step-00000020.h5: damaged"), 2)

    def test_foreign(self):
        self.check_refused(self.copy("foreign", lambda content: b"no HDF5 file " * 100), USER_ERROR)

    def test_of_another_version(self):
        h5py = self.h5py()
        folder = self.copy("version", lambda content: content)
        with h5py.File(folder / "step-00000020.h5", "r+") as file:
            file.attrs.modify("format_version", file.attrs["format_version"] + 1)
        self.before = digests(self.folder)
        self.check_refused(folder, USER_ERROR, "version")

    def test_missing(self):
        absent = self.folder / "absent.h5"
        self.all_refused(
            Case(["checkpoint", "verify", absent], [absent]),
            Case(["evaluate", "--checkpoint", absent, "--data", self.text], [absent]))

    def test_names_that_the_system_refuses(self):
        loop = self.folder / "loop"
        loop.symlink_to(loop)
        self.addCleanup(loop.unlink)
        for name, reason in ((loop, "Too many levels of symbolic links"), ("x" * 300, "File name too long")):
            self.all_refused(
                Case(["checkpoint", "verify", name], [name, reason]),
                Case(["checkpoint", "inspect", name], [name, reason]),
                Case(["evaluate", "--checkpoint", name, "--data", self.text], [name, reason]),
                self.training("--checkpoint", name, "--resume", words=[name, reason]),
                self.training("--checkpoint", self.checkpoints, "--resume", "--model-parallel", RANKS, "--metrics", name,
                              words=[name, reason]))

    def test_resume_on_more_ranks_than_the_run_has_lane_groups(self):
        resume = ["--checkpoint", self.checkpoints, "--resume"]
        words = ["step-00000020.h5", "1 lane groups", "2 data ranks x 1 passes", "--model-parallel 2", "at most 1)"]
        self.all_refused(
            self.training(*resume, words=words),
            self.training(*resume, "--lane-groups", 1, words=words),
            self.training(*resume, "--lane-groups", 2, words=["--lane-groups is 2", "has 1"]),
            self.training(*resume, "--model-parallel", 2, "--passes", 2, words=["at most --passes 1"]))

    def test_resume_with_another_model(self):
        self.all_refused(*(
            self.training("--checkpoint", self.checkpoints, "--resume", "--model-parallel", RANKS, flag, value,
                          words=[flag, value])
            for flag, value in (("--hidden", 32), ("--layers", 2), ("--normalization", "none"), ("--batch", 8))))

    def test_resume_with_another_text_of_the_same_characters(self):
        text = self.text.read_text()
        reversed_text = self.file("reversed.txt", text[::-1].encode())
        longer = self.file("longer.txt", (text + text).encode())
        self.all_refused(*(
            self.training("--checkpoint", self.checkpoints, "--resume", "--model-parallel", RANKS, data=data,
                          words=[data, "is not the text", "step-00000020.h5"]) for data in (reversed_text, longer)))

    def place_of_weights(self):
        with self.h5py().File(self.checkpoints / "step-00000020.h5") as file:
            return file["/parameters/lstm0/W_h"].id.get_offset() + 100

    def h5py(self):
        try:
            import h5py
        except ImportError:
            self.skipTest("h5py is not installed")
        return h5py


class OneRank(BadInput):
    def assert_job_ends(self, first, second, word="--bogus"):
        """One rank fails alone: the job must say why, once, and end with that rank's code."""
        command = ["mpirun", "-n", 1, PROGRAM, *first, ":", "-n", 1, PROGRAM, *second]
        started = time.monotonic()
        process = subprocess.run([str(part) for part in command], capture_output=True, timeout=60)
        self.assertEqual(len(sentences(process)), 1, process.stderr.decode())
        self.assertIn(word, sentences(process)[0])
        self.assertEqual(process.returncode, USER_ERROR)
        self.assertLess(time.monotonic() - started, 30)

    def test_a_rank_that_fails_while_its_peer_trains(self):
        good = training(self.text, "--model-parallel", 2)
        self.assert_job_ends(good, [*good, "--bogus"])

    def test_a_rank_that_fails_while_its_peer_opens_the_folder(self):
        """What its peer calls first is not to be taken for the end of the job."""
        good = training(self.text, "--model-parallel", 2, "--checkpoint", self.folder / "of_one_rank")
        absent = ["train", "--config", self.folder / "absent.toml"]
        self.assert_job_ends(good, [*good, "--bogus"])
        self.assert_job_ends(good, absent, "absent.toml")
        self.assert_job_ends(absent, good, "absent.toml")
        self.assertFalse((self.folder / "of_one_rank" / "step-00000000.h5").exists())

    def test_a_rank_that_fails_while_its_peer_hangs(self):
        """Opening a file waits, for some 45 s, while another process has it leased."""
        leased = self.file("leased.toml", b"")
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        with leased.open("r+") as file:
            try:
                fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            except OSError:
                self.skipTest("files cannot be leased here")
            self.assert_job_ends(["train", "--config", leased], ["train", "--bogus"])


if __name__ == "__main__":
    unittest.main()
