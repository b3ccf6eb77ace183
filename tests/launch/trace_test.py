# ctest: labels=program timeout=60
"""lamina train --trace: the timeline of one step on all ranks."""
import collections
import json
import unittest

from program import ProgramTest, sentences

STEP_PARTS = {"read lanes", "forward", "backward", "gradient sync", "gradient norm", "agreement", "update", "optimizer",
              "pack weights", "recurrence forward", "embedding forward", "softmax forward", "statistics"}


class Trace(ProgramTest):
    def setUp(self):
        self.file = self.folder / "trace.json"
        self.file.unlink(missing_ok=True)

    def events(self):
        """Complete events by rank."""
        by_rank = collections.defaultdict(list)
        for event in json.loads(self.file.read_text())["traceEvents"]:
            if event["ph"] == "X":
                by_rank[event["pid"]].append(event)
        return by_rank

    def check_rank(self, events):
        steps = [event for event in events if event["name"] == "step"]
        self.assertEqual(len(steps), 1)
        self.assertLessEqual(STEP_PARTS, {event["name"] for event in events})
        self.assertTrue(any(event["cat"] == "gemm" for event in events))
        begin, end = steps[0]["ts"], steps[0]["ts"] + steps[0]["dur"]
        for event in events:
            self.assertGreaterEqual(event["ts"], begin - 0.01, event)
            self.assertLessEqual(event["ts"] + event["dur"], end + 0.01, event)
        return begin, end

    def test_one_step_of_all_ranks(self):
        for ranks, arguments in ((1, ("--threads", 2)), (2, ("--model-parallel", 2)), (4, ("--model-parallel", 2, "--passes", 2))):
            with self.subTest(ranks=ranks):
                said = self.assert_done(self.train("--steps", 5, "--trace", self.file, *arguments, ranks=ranks))
                self.assertIn(f"trace of step 3 on {ranks} rank", said)
                by_rank = self.events()
                self.assertEqual(sorted(by_rank), list(range(ranks)))
                times = [self.check_rank(events) for events in by_rank.values()]
                self.assertEqual(min(begin for begin, _ in times), 0)
                self.assertLess(max(begin for begin, _ in times), min(end for _, end in times), "steps overlap")
                kinds = {event["cat"] for event in by_rank[0]}
                self.assertEqual("exchange" in kinds, ranks > 1)
                self.assertTrue(ranks > 1 or "waiting" not in kinds)  # nor need ranks that are quick

    def test_the_numbers_are_the_same(self):
        def losses(*arguments):
            metrics = self.folder / "traced.jsonl"
            self.assert_done(self.train("--steps", 4, "--log-every", 1, "--metrics", metrics, *arguments))
            return [record.get("loss") for record in map(json.loads, metrics.read_text().splitlines())]

        self.assertEqual(losses("--trace", self.file, "--trace-step", 2), losses())

    def test_a_chosen_step(self):
        said = self.assert_done(self.train("--steps", 2, "--trace", self.file, "--trace-step", 2))
        self.assertIn("trace of step 2 on 1 rank", said)
        said = self.assert_done(self.train("--steps", 1, "--trace", self.file))
        self.assertIn("trace of step 1 on 1 rank", said)

    def test_the_snapshot_of_a_checkpoint_is_in_it(self):
        self.assert_done(self.train("--steps", 4, "--trace", self.file, "--trace-step", 3, "--checkpoint-every", 3,
                                    "--checkpoint", self.folder / "traced", "--overwrite"))
        self.assertIn("checkpoint snapshot", {event["name"] for event in self.events()[0]})

    def test_what_cannot_be_traced(self):
        none = self.folder / "none" / "trace.json"
        for arguments, words in ((("--trace", none), ("cannot be written", none, "--trace")),
                                 (("--trace", self.folder), ("cannot be written", self.folder)),
                                 (("--trace", self.file, "--trace-step", 9), ("--trace-step 9", "1 to 5")),
                                 (("--trace", self.file, "--trace-step", -1), ("--trace-step",)),
                                 (("--trace-step", 2), ("--trace-step needs --trace",)),
                                 (("--trace", self.text), ("--trace and --data are the same file",))):
            for ranks in (1, 2):
                with self.subTest(arguments=arguments, ranks=ranks):
                    self.assert_refused(self.train("--steps", 5, *arguments, ranks=ranks), 2, words)

    def test_a_full_disk_does_not_stop_training(self):
        process = self.train("--steps", 4, "--trace", "/dev/full")
        self.assertIn("warning: the trace /dev/full cannot be written: No space left on device", sentences(process)[0])
        self.assert_done(process)

    def test_a_run_that_is_over_has_nothing_to_trace(self):
        folder = self.folder / "over"
        self.assert_done(self.train("--steps", 2, "--checkpoint", folder))
        process = self.train("--steps", 2, "--checkpoint", folder, "--resume", "--trace", self.file)
        self.assert_done(process)
        self.assertIn("no step is left to trace", sentences(process)[0])
        self.assertFalse(self.file.exists())


if __name__ == "__main__":
    unittest.main()
