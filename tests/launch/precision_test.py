# ctest: labels=program,mpi timeout=120
"""--precision bf16 on CPUs: near f32, with the same bits on every grid, after a stop too, and usable afterwards."""
import json
import unittest

from program import ProgramTest, lamina, tensors

LAST = "step-00000006.h5"
NOTICE = "this CPU has no fast AVX512-BF16"


class Precision(ProgramTest):
    def train_to(self, name, *arguments, ranks=1, steps=6):
        folder = self.folder / name
        process = self.train("--checkpoint", folder, "--lane-groups", 2, "--layers", 2, "--steps", steps, "--log-every", 1,
                             "--metrics", self.folder / f"{name}.jsonl", *arguments, ranks=ranks)
        return folder, self.assert_done(process)

    def first_record(self, name):
        return json.loads((self.folder / f"{name}.jsonl").read_text().splitlines()[0])

    def loss_of(self, folder, *arguments, ranks=1):
        process = lamina("evaluate", "--checkpoint", folder, "--data", self.text, "--batch", 4, "--json", *arguments, ranks=ranks)
        return json.loads(self.assert_done(process))["loss"]

    def test_bf16_is_near_f32(self):
        self.train_to("f32")
        self.train_to("bf16", "--precision", "bf16")

        f32, bf16 = self.first_record("f32"), self.first_record("bf16")
        self.assertNotEqual(f32["loss"], bf16["loss"])
        self.assertAlmostEqual(f32["loss"], bf16["loss"], delta=2e-3 * f32["loss"])
        self.assertAlmostEqual(f32["gradient_norm"], bf16["gradient_norm"], delta=0.02 * f32["gradient_norm"])

    def test_bits_do_not_depend_on_the_grid_or_on_a_stop(self):
        whole, _ = self.train_to("whole", "--precision", "bf16")
        grid, _ = self.train_to("grid", "--precision", "bf16", "--model-parallel", 2, ranks=4)
        stopped, _ = self.train_to("stopped", "--precision", "bf16", steps=3)
        self.train_to("stopped", "--precision", "bf16", "--resume", "--model-parallel", 2, ranks=2)

        self.assertEqual(tensors(grid / LAST), tensors(whole / LAST))
        self.assertEqual(tensors(stopped / LAST), tensors(whole / LAST))

    def test_a_run_goes_on_with_the_other_precision(self):
        folder, _ = self.train_to("changed", "--precision", "bf16", steps=3)
        _, out = self.train_to("changed", "--resume")

        self.assertIn("step 3", out)

    def test_its_model_is_evaluated_and_generates(self):
        folder, _ = self.train_to("used", "--precision", "bf16")

        self.assertEqual(self.loss_of(folder), self.loss_of(folder, "--model-parallel", 2, ranks=2))
        self.assert_done(lamina("generate", "--checkpoint", folder, "--length", 5))

    def test_the_run_says_how_it_multiplies(self):
        cpu = json.loads(self.assert_done(lamina("info", "--json")))["cpu"]
        has_instruction = "bf16 by AVX512-BF16" in cpu
        self.assertEqual(has_instruction, "bf16 widened to f32" not in cpu)

        _, out = self.train_to("said", "--precision", "bf16", "--model-parallel", 2, ranks=2)
        self.assertIn(cpu, out)
        self.assertEqual(out.count(NOTICE), 0 if has_instruction else 1)
        _, out = self.train_to("silent")
        self.assertNotIn(NOTICE, out)

    def test_one_kernel_for_all_steps_is_for_gpus(self):
        self.assert_refused(self.train("--precision", "bf16", "--time-loop", "persistent"), 2, ["--device cuda"])


if __name__ == "__main__":
    unittest.main()
