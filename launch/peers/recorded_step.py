"""One training step of Lamina, read from its checkpoints before and after: what an implementation elsewhere must
reproduce from the same weights. NumPy alone.
"""
import dataclasses
import json
import math
import pathlib
import random
import subprocess

import numpy

HIDDEN, EMBEDDING, LAYERS, BATCH, TIME_STEPS, STEPS = 64, 48, 2, 8, 8, 6

# Adam without memory keeps the gradient itself as its first moment; nothing is clipped or held out.
TRAINING = {"--layers": LAYERS, "--hidden": HIDDEN, "--embedding": EMBEDDING, "--batch": BATCH,
            "--time-steps": TIME_STEPS, "--steps": STEPS, "--checkpoint-every": 1, "--keep": 0, "--log-every": 1,
            "--optimizer": "adam", "--beta1": 0, "--learning-rate": 0.02, "--clip-norm": 0, "--validation-fraction": 0,
            "--threads": 1, "--seed": 3}

# f32 sums in another order; of the largest magnitude of each tensor. A GPU's exp and tanh are less exact.
TOLERANCE = 5e-6
TOLERANCES = {"cpu": TOLERANCE, "cuda": 2e-5}


class LaminaFailed(Exception):
    """Lamina could not be run; the text is one sentence."""


@dataclasses.dataclass
class RecordedStep:
    parameters: dict  # "embedding/table", "lstm0/W_x", … before the step
    states: list  # (h, c) of each layer before the step, [B, H]
    tokens: numpy.ndarray  # [T, B]
    targets: numpy.ndarray  # [T, B]
    results: dict  # "loss", "gradient of lstm0/W_x", "h of lstm0 after the step", …


def make_text(characters=1200):
    draw = random.Random(5)
    words = ("alpha", "beta", "gamma", "delta", "kappa", "lambda", "omega")
    text = ""
    while len(text) < characters:
        text += draw.choice(words) + draw.choice(" ,.\n")
    return text[:characters]


def run(lamina, *arguments):
    process = subprocess.run([str(part) for part in (lamina, *arguments)], capture_output=True, text=True)
    if process.returncode:
        raise LaminaFailed(f"'{lamina} {arguments[0]}' ended with code {process.returncode}: {process.stderr.strip()}")
    return process.stdout


def train(lamina, folder, device):
    """Trains a small model in `folder`; the training text."""
    text, metrics = folder / "text.txt", folder / "metrics.jsonl"
    text.write_text(make_text())
    run(lamina, "train", "--data", text, "--checkpoint", folder / "checkpoints", "--overwrite", "--metrics", metrics,
        "--device", device, *(part for setting in TRAINING.items() for part in setting))
    return text.read_text()


def tensors_of_step(lamina, folder, step):
    """Every tensor of a checkpoint by its path."""
    file = folder / f"step-{step}.npz"
    run(lamina, "checkpoint", "export", folder / "checkpoints" / f"step-{step:08}.h5", "--output", file, "--overwrite")
    with numpy.load(file, allow_pickle=False) as arrays:
        return {path: arrays[path] for path in arrays.files}


def below(prefix, tensors):
    return {path.removeprefix(prefix): tensor for path, tensor in tensors.items() if path.startswith(prefix)}


def vocabulary_of(text):
    """The token of each character."""
    return {character: token for token, character in enumerate(sorted(set(text)))}


def tokens_of(text, vocabulary):
    return numpy.array([vocabulary[character] for character in text])


def chunk_of_lanes(text, chunk):
    """Tokens and targets of one training step, [T, B] each."""
    lane_length = len(text) // BATCH
    lanes = tokens_of(text[:lane_length * BATCH], vocabulary_of(text)).reshape(BATCH, lane_length)
    first = chunk * TIME_STEPS
    return tuple(numpy.ascontiguousarray(lanes[:, at:at + TIME_STEPS].T) for at in (first, first + 1))


def loss_of_step(folder, step):
    records = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return next(record["loss"] for record in records if record["step"] == step and "loss" in record)


def record_step(lamina, folder, device="cpu"):
    """Trains a small model in `folder` on the device and gives its last step. Throws LaminaFailed."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = train(lamina, folder, device)
    before, after = (tensors_of_step(lamina, folder, step) for step in (STEPS - 1, STEPS))
    results = {"loss": numpy.array(loss_of_step(folder, STEPS))}
    results |= {f"gradient of {name}": tensor for name, tensor in below("optimizer/first_moment/", after).items()}
    results |= {f"{path[-1]} of {path.split('/')[0]} after the step": tensor
                for path, tensor in below("state/", after).items()}
    states = [tuple(before[f"state/lstm{layer}/{name}"] for name in "hc") for layer in range(LAYERS)]
    return RecordedStep(below("parameters/", before), states, *chunk_of_lanes(text, STEPS - 1), results)


def deviation(computed, recorded):
    """Largest difference, in units of the largest recorded magnitude; infinite where there is none, or no number."""
    if computed is None or numpy.shape(computed) != recorded.shape:
        return math.inf
    difference = float(numpy.max(numpy.abs(numpy.asarray(computed, numpy.float64) - recorded)))
    return difference / max(float(numpy.max(numpy.abs(recorded))), 1e-30) if math.isfinite(difference) else math.inf


def deviations(computed, recorded_step):
    """Of each result of the step."""
    return {name: deviation(computed.get(name), recorded) for name, recorded in recorded_step.results.items()}
