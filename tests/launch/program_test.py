# ctest: labels=program,mpi timeout=300
"""The commands of the program on good input."""
import json
import math
import tomllib
import unittest

from program import SIZES, VALIDATION_FRACTION, ProgramTest, flags, lamina, sentences, training


class Train(ProgramTest):
    def test_writes_checkpoints_of_step_0_every_interval_and_the_end(self):
        names = sorted(path.name for path in self.checkpoints.iterdir())
        self.assertEqual(names, ["step-00000000.h5", "step-00000010.h5", "step-00000020.h5"])

    def test_writes_a_record_per_interval_and_per_validation(self):
        records = [json.loads(line) for line in self.run_of.metrics.read_text().splitlines()]
        training = [record for record in records if "loss" in record]
        validation = [record for record in records if "validation_loss" in record]
        self.assertEqual([record["step"] for record in training], [1, 10, 20])
        self.assertEqual([record["step"] for record in validation], [10, 20])
        for name in ("loss", "bits_per_character", "gradient_norm", "learning_rate", "tokens_per_second", "seconds"):
            self.assertTrue(math.isfinite(training[-1][name]), name)
        self.assertLess(training[-1]["loss"], training[0]["loss"])

    def test_shows_a_summary_and_a_line_per_interval(self):
        output = self.assert_done(self.run_of.process)
        self.assertIn("1 data x 1 model ranks", output)
        self.assertIn("20/20  loss", output)
        self.assertNotIn("\x1b", output)
        self.assertNotIn("\r", output)
        self.assertEqual(sentences(self.run_of.process), [])

    def test_a_resumed_run_ends_with_the_same_bits(self):
        parts = self.folder / "parts"
        self.assert_done(self.train("--checkpoint", parts, "--steps", 10))

        self.assert_done(self.train("--checkpoint", parts, "--resume", "--model-parallel", 2, ranks=2))

        self.assertEqual(self.tensors(parts), self.tensors(self.checkpoints))

    def test_a_run_that_has_its_steps_says_so(self):
        for steps in (3, 20):
            output = self.assert_done(self.train("--checkpoint", self.checkpoints, "--resume", "--steps", steps))
            self.assertIn(f"the run is at step 20 already and --steps is {steps}: give more --steps", output)

    def test_the_folder_is_replaced_on_request(self):
        folder = self.folder / "replaced"
        self.assert_done(self.train("--checkpoint", folder, "--steps", 3))

        self.assert_done(self.train("--checkpoint", folder, "--overwrite", "--steps", 2))

        self.assertEqual(sorted(path.name for path in folder.iterdir()), ["step-00000000.h5", "step-00000002.h5"])

    def test_the_printed_configuration_is_toml_and_reads_back(self):
        printed = self.assert_done(lamina("train", "--print-configuration", "--data", 'a "quoted" \\ name',
                                          "--learning-rate", "0.3"))
        values = tomllib.loads(printed)
        self.assertEqual(values["data"], 'a "quoted" \\ name')
        self.assertEqual(values["learning-rate"], 0.3)
        file = self.folder / "printed.toml"
        file.write_text(printed)

        again = self.assert_done(lamina("train", "--print-configuration", "--config", file))

        self.assertEqual(again, printed)

    def tensors(self, folder):
        return json.loads(self.assert_done(lamina("checkpoint", "inspect", folder, "--json")))["tensors"]


class Evaluate(ProgramTest):
    def setUp(self):
        text = self.text.read_text()
        self.held_out = self.folder / "held_out.txt"
        self.held_out.write_text(text[len(text) - math.floor(VALIDATION_FRACTION * len(text)):])

    def evaluate(self, *arguments, ranks=1):
        data = [] if "--data" in arguments else ["--data", self.held_out]
        process = lamina("evaluate", "--checkpoint", self.checkpoints, *data, "--threads", 1, "--json", *arguments,
                         ranks=ranks)
        lines = self.assert_done(process).splitlines()
        self.assertEqual(len(lines), 1)
        return json.loads(lines[0])

    def test_is_what_training_found_on_the_same_text(self):
        last = json.loads(self.run_of.metrics.read_text().splitlines()[-1])

        result = self.evaluate(*flags(SIZES))

        self.assertEqual(result["loss"], last["validation_loss"])
        self.assertEqual(result["predictions"], last["predictions"])
        self.assertEqual(result["step"], 20)
        self.assertAlmostEqual(result["bits_per_character"], result["loss"] / math.log(2))
        self.assertAlmostEqual(result["perplexity"], math.exp(result["loss"]))

    def test_one_lane_predicts_every_character_but_the_first(self):
        result = self.evaluate()
        self.assertEqual(result["predictions"], len(self.held_out.read_text()) - 1)
        self.assertGreater(result["perplexity"], 2)
        self.assertLess(result["perplexity"], 2 * len(set(self.text.read_text())))

    def test_lanes_are_texts_of_their_own(self):
        """Two lanes are as good as their texts one by one; the first one ends with the second's beginning."""
        text, half = self.held_out.read_text(), self.folder / "half.txt"
        whole, total = self.evaluate("--batch", 2), 0
        middle = len(text) // 2
        for part in text[: middle + 1], text[middle:]:
            half.write_text(part)
            result = self.evaluate("--data", half)
            total += result["loss"] * result["predictions"]
        self.assertAlmostEqual(whole["loss"] * whole["predictions"], total, places=3)

    def test_is_the_same_on_two_model_ranks(self):
        self.assertEqual(self.evaluate("--model-parallel", 2, ranks=2), self.evaluate())

    def test_cuts_the_batch_over_two_data_ranks(self):
        one, two = self.evaluate("--batch", 4), self.evaluate("--batch", 4, ranks=2)
        self.assertAlmostEqual(two["loss"], one["loss"], places=5)
        self.assertEqual(two["predictions"], one["predictions"])

    def test_does_not_depend_on_the_chunks(self):
        self.assertAlmostEqual(self.evaluate("--time-steps", 5)["loss"], self.evaluate()["loss"], places=5)

    def test_reads_an_older_checkpoint_by_its_name(self):
        file = self.checkpoints / "step-00000010.h5"
        output = self.assert_done(lamina("evaluate", "--checkpoint", file, "--data", self.held_out, "--threads", 1))
        self.assertIn(f"{file}, step 10", output)


class Generate(ProgramTest):
    """By a model that has learned enough for its words to depend on what they follow."""
    PROMPT = "the jümps\n"

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.speaker = cls.folder / "speaker"
        process = lamina(*training(cls.text, "--checkpoint", cls.speaker, "--hidden", 32, "--steps", 200,
                                   "--time-steps", 16, "--learning-rate", 0.01))
        assert process.returncode == 0, process.stderr.decode()

    def generate(self, *arguments, ranks=1, prompt=PROMPT, length=40):
        process = lamina("generate", "--checkpoint", self.speaker, "--prompt", prompt, "--length", length,
                         "--threads", 1, *arguments, ranks=ranks)
        return self.assert_done(process)

    def test_goes_on_from_the_prompt(self):
        text = self.generate()
        self.assertTrue(text.startswith(self.PROMPT), text)
        self.assertEqual(len(text), len(self.PROMPT) + 40 + 1)
        self.assertTrue(text.endswith("\n"))
        self.assertLessEqual(set(text), set(self.text.read_text()))

    def test_each_character_follows_from_those_before(self):
        """A prompt that is what was generated goes on as that did; longer than the chunks it is read in."""
        prompt = self.text.read_text()[:100]
        text = self.generate("--temperature", 0, prompt=prompt)
        self.assertGreater(len(set(text[100:])), 3, text)

        again = self.generate("--temperature", 0, prompt=text[:120], length=20)

        self.assertEqual(again, text)

    def test_the_end_of_a_long_prompt_matters(self):
        prompt = self.text.read_text()[:127]
        self.assertNotEqual(self.generate("--temperature", 0, prompt=prompt + "t")[128:],
                            self.generate("--temperature", 0, prompt=prompt + "\n")[128:])

    def test_each_character_is_drawn_anew(self):
        self.assertGreater(len(set(self.generate("--temperature", 1000, prompt="t"))), 10)

    def test_the_seed_decides(self):
        self.assertEqual(self.generate("--seed", 5), self.generate("--seed", 5))
        self.assertNotEqual(self.generate("--seed", 5), self.generate("--seed", 6))

    def test_temperature_0_needs_no_seed(self):
        likeliest = self.generate("--temperature", 0, "--seed", 5)
        self.assertEqual(likeliest, self.generate("--temperature", 0, "--seed", 6))

    def test_is_the_same_on_1_2_and_4_ranks(self):
        alone = self.generate()
        self.assertEqual(self.generate("--model-parallel", 2, ranks=2), alone)
        self.assertEqual(self.generate("--model-parallel", 4, ranks=4), alone)

    def test_begins_a_line_without_a_prompt(self):
        self.assertEqual("\n" + self.generate(prompt=""), self.generate(prompt="\n"))


class Checkpoint(ProgramTest):
    SHAPES = {
        "/parameters/lstm0/W_x": [64, 16],
        "/parameters/lstm0/W_h": [64, 16],
        "/parameters/lstm0/gain_x": [64],
        "/parameters/lstm0/gain_h": [64],
        "/parameters/lstm0/bias": [64],
        "/parameters/lstm0/gain_c": [16],
        "/parameters/lstm0/bias_c": [16],
        "/state/lstm0/h": [4, 16],
        "/state/lstm0/c": [4, 16],
        "/optimizer/first_moment/lstm0/W_h": [64, 16],
        "/optimizer/second_moment/lstm0/W_h": [64, 16],
    }

    def test_inspect_shows_record_tensors_and_configuration(self):
        output = self.assert_done(lamina("checkpoint", "inspect", self.checkpoints))
        for expected in ("step-00000020.h5", "step         20 ", "4 in 1 lane group\n", "/parameters/lstm0/W_h",
                         "[64, 16]", "hidden = 16"):
            self.assertIn(expected, output)

    def test_inspect_as_json_names_every_tensor_by_the_documented_path(self):
        file = self.checkpoints / "step-00000010.h5"
        inspected = json.loads(self.assert_done(lamina("checkpoint", "inspect", file, "--json", ranks=2)))
        shapes = {tensor["path"]: tensor["shape"] for tensor in inspected["tensors"]}
        vocabulary = len(set(self.text.read_text()))
        self.assertEqual(inspected["step"], 10)
        self.assertEqual(shapes | self.SHAPES, shapes)
        self.assertEqual(shapes["/parameters/embedding/table"], [vocabulary, 16])
        self.assertEqual(shapes["/parameters/output/W"], [vocabulary, 16])
        self.assertEqual(shapes["/parameters/output/bias"], [vocabulary])

    def test_verify_takes_files_and_folders(self):
        file = self.checkpoints / "step-00000010.h5"
        lines = self.assert_done(lamina("checkpoint", "verify", self.checkpoints, file)).splitlines()
        self.assertEqual(len(lines), 4)
        self.assertIn("step-00000020.h5: whole, step 20, ", lines[2])


class Help(ProgramTest):
    COMMANDS = ["", "train", "evaluate", "generate", "checkpoint", "checkpoint inspect", "checkpoint verify", "checkpoint export",
                "info"]

    def test_every_command_has_help(self):
        for command in self.COMMANDS:
            output = self.assert_done(lamina(*command.split(), "--help"))
            self.assertIn(f"Usage: lamina {command}", output)

    def test_the_help_of_train_has_groups_choices_and_defaults(self):
        text = self.assert_done(lamina("train", "--help"))
        for heading in ("Data:", "Model:", "Optimizer:", "Grid:", "Run:", "Checkpoints:"):
            self.assertIn("\n" + heading + "\n", text)
        self.assertRegex(text, r"--optimizer sgd\|adam\|adamw +update rule \[adam\]")
        self.assertRegex(text, r"--hidden N .*\[512\]")
        self.assertIn("--resume, --no-resume", text)

    def test_help_is_printed_once(self):
        self.assertEqual(self.assert_done(lamina("--help", ranks=2)).count("Usage:"), 1)

    def test_info_names_the_libraries(self):
        facts = json.loads(self.assert_done(lamina("info", "--json")))
        self.assertEqual(list(facts), ["version", "build", "compiler", "mpi", "hdf5", "cpu", "cuda", "nccl"])
        self.assertTrue(all(facts.values()), facts)
        text = self.assert_done(lamina("info"))
        for value in facts.values():
            self.assertIn(value, text)
        self.assertEqual(self.assert_done(lamina("--version")), f"lamina {facts['version']}\n")


if __name__ == "__main__":
    unittest.main()
