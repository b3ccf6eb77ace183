"""Whether PyTorch's layer-normalized LSTMs compute what Lamina computes from the same weights: loss, gradients and
carried state of one training step. Prints a line of JSON per form; ends with 1 where they differ.

    check_numbers.py LAMINA FOLDER FORM...
"""
import json
import sys

import torch
from torch.nn.functional import cross_entropy, embedding, linear

import recorded_step
import torch_lstm


def as_leaves(arrays):
    return {name: torch.from_numpy(array.copy()).requires_grad_() for name, array in arrays.items()}


def compute(step, form):
    """What `step.results` has, by PyTorch."""
    layer, parameters = torch_lstm.layer_of(form), as_leaves(step.parameters)
    results = {}
    x = embedding(torch.from_numpy(step.tokens), parameters["embedding/table"])
    for number, state in enumerate(step.states):
        h, c = map(torch.from_numpy, state)
        x, h, c = layer(x, h, c, *(parameters[f"lstm{number}/{name}"] for name in torch_lstm.PARAMETERS))
        results[f"h of lstm{number} after the step"], results[f"c of lstm{number} after the step"] = h, c
    logits = linear(x, parameters["output/W"], parameters["output/bias"])
    results["loss"] = cross_entropy(logits.flatten(0, 1), torch.from_numpy(step.targets).flatten())
    results["loss"].backward()
    results |= {f"gradient of {name}": parameter.grad for name, parameter in parameters.items()}
    return {name: result.detach().numpy() for name, result in results.items()}


def main(lamina, folder, *forms):
    try:
        step = recorded_step.record_step(lamina, folder)
    except recorded_step.LaminaFailed as failure:
        sys.exit(f"{failure}")
    sound = True
    for form in forms:
        found = recorded_step.deviations(compute(step, form), step)
        worst = max(found, key=found.get)
        agrees = found[worst] <= recorded_step.TOLERANCE
        sound = sound and agrees
        print(json.dumps({"form": form, "agrees": agrees, "worst": worst, "deviation": found[worst],
                          "tolerance": recorded_step.TOLERANCE, "results": len(found)}), flush=True)
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
