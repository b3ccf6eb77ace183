# ctest: labels=program,mpi timeout=600
"""Training with --device cuda. There may be no GPU here: the program is the one whose kernels run on CPUs, and whose ranks
share one emulated GPU, so that they exchange through the host."""
import json
import os
import subprocess
import unittest

REAL_PROGRAM = os.environ["LAMINA_PROGRAM"]
os.environ["LAMINA_PROGRAM"] = os.environ["LAMINA_ON_CPU_GPU"]
os.environ["LAMINA_CUDA_ON_CPU_OPEN"] = "1"  # other tests see to it that the host keeps off the GPU's memory

from program import PROGRAM, ProgramTest, lamina, sentences, tensors, training

LAST = "step-00000006.h5"


class CudaTraining(ProgramTest):
    def train(self, name, *arguments, ranks=1, device="cuda", steps=6):
        folder = self.folder / name
        process = lamina(*training(self.text, "--device", device, "--checkpoint", folder, "--lane-groups", 2, "--steps", steps,
                                   "--metrics", self.folder / f"{name}.jsonl", "--log-every", 1, *arguments), ranks=ranks)
        self.assertEqual(process.returncode, 0, process.stderr.decode())
        return folder

    def records(self, name):
        lines = (self.folder / f"{name}.jsonl").read_text().splitlines()
        return [record for record in map(json.loads, lines) if "learning_rate" in record]

    def losses(self, name):
        return [record["loss"] for record in self.records(name)]

    def assert_first_step_is_near(self, name, other):
        """In bf16, whose operands have 8 bits. Later steps drift apart: Adam takes the signs of small gradients too."""
        self.assertNotEqual(self.losses(name), self.losses(other))
        first, second = self.records(name)[0], self.records(other)[0]
        self.assertAlmostEqual(first["loss"], second["loss"], delta=2e-3 * second["loss"])
        self.assertAlmostEqual(first["gradient_norm"], second["gradient_norm"], delta=0.02 * second["gradient_norm"])

    def test_losses_are_those_of_a_cpu(self):
        self.train("gpu", "--layers", 2, "--dropout", 0.2)
        self.train("cpu", "--layers", 2, "--dropout", 0.2, device="cpu")

        gpu, cpu = self.losses("gpu"), self.losses("cpu")
        self.assertEqual(len(gpu), 6)
        for on_gpu, on_cpu in zip(gpu, cpu):  # sums in another order
            self.assertAlmostEqual(on_gpu, on_cpu, delta=1e-4 * on_cpu)

    def test_bits_do_not_depend_on_the_grid(self):
        for precision in ("f32", "bf16"):
            one = tensors(self.train(f"one-{precision}", "--precision", precision) / LAST)
            for ranks, arguments in ((2, ("--model-parallel", 2)), (2, ()),
                                     (4, ("--model-parallel", 2, "--exchange", "replicated"))):
                with self.subTest(precision=precision, ranks=ranks, arguments=arguments):
                    name = f"{precision}-{ranks}-{len(arguments)}"
                    folder = self.train(name, "--precision", precision, *arguments, ranks=ranks)
                    self.assertEqual(tensors(folder / LAST), one)

    def test_bf16_is_near_f32(self):
        self.train("f32")
        self.train("bf16", "--precision", "bf16")

        self.assert_first_step_is_near("bf16", "f32")

    def test_tf32_is_near_f32(self):
        self.train("beside-tf32")
        self.train("tf32", "--precision", "tf32")

        self.assert_first_step_is_near("tf32", "beside-tf32")
        self.assertNotEqual(self.losses("tf32"), self.losses("beside-tf32"))

    def test_a_run_goes_on_from_its_checkpoint_on_another_grid(self):
        whole = self.train("whole")
        half = self.train("half", steps=3)
        self.train("half", "--resume", "--model-parallel", 2, ranks=2)

        self.assertEqual(tensors(half / LAST), tensors(whole / LAST))

    def test_a_trained_model_is_evaluated_on_either_device(self):
        folder = self.train("trained")
        shown = [json.loads(lamina("evaluate", "--checkpoint", folder, "--data", self.text, "--batch", 4, "--device", device, "--json").stdout)
                 for device in ("cuda", "cpu")]

        self.assertAlmostEqual(shown[0]["loss"], shown[1]["loss"], delta=1e-5)

    def test_all_steps_in_one_kernel(self):
        choices = ("--precision", "bf16", "--hidden", 32)
        self.train("persistent", *choices, "--time-loop", "persistent")
        self.train("steps", *choices)

        self.assert_first_step_is_near("persistent", "steps")

    def test_bits_of_all_steps_in_one_kernel_do_not_depend_on_the_grid(self):
        choices = ("--precision", "bf16", "--hidden", 32, "--time-loop", "persistent")
        one = tensors(self.train("in-one", *choices) / LAST)
        for ranks, more in ((2, ()), (1, ("--passes", 2))):
            with self.subTest(ranks=ranks, more=more):
                folder = self.train(f"in-one-{ranks}{''.join(map(str, more))}", *choices, *more, ranks=ranks)
                self.assertEqual(tensors(folder / LAST), one)

    def test_the_time_loop_is_that_which_fits(self):
        choices = ("--precision", "bf16", "--hidden", 32)
        for name, ranks, more in (("persistent", 1, ()), ("steps", 2, ("--model-parallel", 2))):
            with self.subTest(loop=name):
                asked = self.train(f"asked-{name}", *choices, *more, "--time-loop", name, ranks=ranks)
                chosen = self.train(f"auto-{name}", *choices, *more, "--time-loop", "auto", ranks=ranks)
                self.assertEqual(tensors(chosen / LAST), tensors(asked / LAST))

    def test_a_time_loop_that_does_not_fit_is_refused(self):
        process = lamina(*training(self.text, "--device", "cuda", "--time-loop", "persistent"))

        self.assertEqual(process.returncode, 2)
        self.assertEqual(sentences(process), ["--time-loop persistent does not fit here: its weights are bf16, and "
                                              "--precision is f32; use --time-loop steps"])

    def test_an_exchange_of_cells_is_refused(self):
        process = lamina(*training(self.text, "--device", "cuda", "--exchange", "cell"))

        self.assertEqual(process.returncode, 2)
        self.assertEqual(sentences(process), ["--exchange cell is only for CPUs: with --device cuda use --exchange "
                                              "sharded or replicated"])

    def test_a_wavefront_is_refused(self):
        process = lamina(*training(self.text, "--device", "cuda", "--layer-order", "wavefront"))

        self.assertEqual(process.returncode, 2)
        self.assertEqual(sentences(process), ["--layer-order wavefront is only for CPUs: with --device cuda use "
                                              "--layer-order sequential"])

    def test_what_a_cpu_trained_as_a_gpu_cannot_is_evaluated(self):
        folder = self.train("cells", "--exchange", "cell", "--layer-order", "wavefront", device="cpu")

        process = lamina("evaluate", "--checkpoint", folder, "--data", self.text, "--batch", 4, "--device", "cuda")
        self.assertEqual(process.returncode, 0, process.stderr.decode())

    def test_tf32_is_refused_on_a_cpu(self):
        process = lamina(*training(self.text, "--precision", "tf32"))

        self.assertEqual(process.returncode, 2)
        self.assertEqual(sentences(process), ["--precision tf32 is only for --device cuda: on CPUs use --precision f32 or bf16"])

    def test_a_machine_without_a_gpu_is_told_so(self):
        facts = json.loads(subprocess.run([REAL_PROGRAM, "info", "--json"], check=True, capture_output=True).stdout)
        if "GPUs found" in facts["cuda"] or "GPU found" in facts["cuda"] and "no GPU" not in facts["cuda"]:
            self.skipTest(f"there is one: {facts['cuda']}")

        words = [REAL_PROGRAM, *training(self.text, "--device", "cuda")]
        process = subprocess.run(list(map(str, words)), capture_output=True)

        self.assertEqual(process.returncode, 2)
        self.assertEqual(len(sentences(process)), 1)
        self.assertIn("use --device cpu", sentences(process)[0])

    def test_a_model_trained_in_bf16_is_evaluated_on_either_device(self):
        folder = self.train("trained-bf16", "--precision", "bf16")
        shown = [json.loads(lamina("evaluate", "--checkpoint", folder, "--data", self.text, "--batch", 4, "--device", device, "--json").stdout)
                 for device in ("cuda", "cpu")]

        self.assertAlmostEqual(shown[0]["loss"], shown[1]["loss"], delta=2e-3 * shown[1]["loss"])


if __name__ == "__main__":
    unittest.main()
