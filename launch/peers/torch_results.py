"""A recorded training step computed by PyTorch."""
import torch
from torch.nn.functional import cross_entropy, embedding, linear

import torch_lstm


def results_of(step, form, device="cpu"):
    """What `step.results` of a recorded_step.RecordedStep has; `form`: of torch_lstm.py."""

    def put(array):
        return torch.from_numpy(array.copy()).to(device)

    layer = torch_lstm.layer_of(form)
    parameters = {name: put(array).requires_grad_() for name, array in step.parameters.items()}
    results = {}
    x = embedding(put(step.tokens), parameters["embedding/table"])
    for number, state in enumerate(step.states):
        h, c = map(put, state)
        x, h, c = layer(x, h, c, *(parameters[f"lstm{number}/{name}"] for name in torch_lstm.PARAMETERS))
        results[f"h of lstm{number} after the step"], results[f"c of lstm{number} after the step"] = h, c
    logits = linear(x, parameters["output/W"], parameters["output/bias"])
    results["loss"] = cross_entropy(logits.flatten(0, 1), put(step.targets).flatten())
    results["loss"].backward()
    results |= {f"gradient of {name}": parameter.grad for name, parameter in parameters.items()}
    return {name: result.detach().cpu().numpy() for name, result in results.items()}
