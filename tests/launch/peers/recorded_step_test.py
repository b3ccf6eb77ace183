# ctest: labels=program timeout=120
"""A model rebuilt from a checkpoint's weights, in NumPy, computes what Lamina computed: the loss, every gradient and
the carried state of a training step, and what `lamina evaluate` says of a text."""
import dataclasses
import json
import os
import pathlib
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT / "launch" / "peers"), str(ROOT / "tests" / "reference")]
try:
    import numpy
except ImportError:
    print("SKIPPED-ALL: this Python has no NumPy")
    sys.exit(0)
import recorded_step
from language_model import LanguageModel

LAMINA = os.environ["LAMINA_PROGRAM"]


def compute(step):
    """What a step's results are, by the NumPy model."""
    model = LanguageModel(step.parameters)
    results = {"loss": model.forward(step.tokens, step.targets, step.states).mean()}
    results |= {f"gradient of {name}": gradient for name, gradient in model.backward().items()}
    for number, state in enumerate(model.last_states()):
        results |= {f"{name} of lstm{number} after the step": value for name, value in zip("hc", state)}
    return results


class RecordedStep(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.temporary.cleanup)
        cls.folder = pathlib.Path(cls.temporary.name)
        cls.step = recorded_step.record_step(LAMINA, cls.folder)

    def test_lamina_computes_what_the_equations_say(self):
        found = recorded_step.deviations(compute(self.step), self.step)

        self.assertEqual(len(found), 1 + 3 + 2 * 7 + 2 * 2)
        for name, deviation in found.items():
            self.assertLessEqual(deviation, recorded_step.TOLERANCE, name)

    def test_another_model_is_seen(self):
        for name in ("lstm0/W_h", "lstm1/gain_c", "output/bias"):
            changed = {**self.step.parameters, name: self.step.parameters[name] * 1.01}
            other = dataclasses.replace(self.step, parameters=changed)
            self.assertGreater(max(recorded_step.deviations(compute(other), self.step).values()),
                               10 * recorded_step.TOLERANCE, name)

    def test_results_that_are_missing_misshapen_or_not_finite_are_seen(self):
        results = compute(self.step)
        name = "gradient of lstm0/W_x"
        for wrong in (None, results[name].T, numpy.full_like(results[name], numpy.nan)):
            found = recorded_step.deviations({**results, name: wrong}, self.step)
            self.assertEqual(found.pop(name), numpy.inf)
            self.assertLessEqual(max(found.values()), recorded_step.TOLERANCE)

    def test_evaluation_in_lanes(self):
        """Lane b of B feeds the characters from b * floor(N / B) up to the next lane's first; each begins at zero."""
        text = (self.folder / "text.txt").read_text()[100:500]
        tokens = recorded_step.tokens_of(text, recorded_step.vocabulary_of((self.folder / "text.txt").read_text()))
        held_out = self.folder / "held_out.txt"
        held_out.write_text(text)
        parameters = recorded_step.below("parameters/", recorded_step.tensors_of_step(LAMINA, self.folder, 6))
        for batch in (1, 3):
            starts = [lane * (len(tokens) // batch) for lane in range(batch)] + [len(tokens) - 1]
            model = LanguageModel(parameters)
            losses = [model.forward(tokens[first:last, None], tokens[first + 1:last + 1, None], model.zero_state(1))
                      for first, last in zip(starts, starts[1:])]

            said = json.loads(recorded_step.run(
                LAMINA, "evaluate", "--checkpoint", self.folder / "checkpoints", "--data", held_out, "--batch", batch,
                "--time-steps", 16, "--json"))

            self.assertEqual(said["predictions"], len(tokens) - 1)
            self.assertAlmostEqual(said["loss"], numpy.concatenate(losses).mean(), delta=1e-6 * said["loss"])

    def test_a_program_that_fails_is_said_in_a_sentence(self):
        with self.assertRaisesRegex(recorded_step.LaminaFailed, "train' ended with code 1"):
            recorded_step.record_step("/bin/false", self.folder / "other")


if __name__ == "__main__":
    unittest.main()
