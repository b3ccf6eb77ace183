"""Times one LSTM layer in PyTorch, forward and backward by all parameters and the input, and prints one line of JSON.

    time_torch.py FORM HIDDEN BATCH STEPS THREADS WARM_UP REPETITIONS      FORM: of torch_lstm.py, or nn-lstm
"""
import json
import sys
import time

import torch

import torch_lstm


def uniform(*shape, bound=1.0):
    return torch.empty(shape).uniform_(-bound, bound)


def plain_layer(hidden):
    """PyTorch's own LSTM, and its parameters."""
    lstm = torch.nn.LSTM(hidden, hidden)
    return lambda x, h, c: lstm(x, (h[None], c[None]))[0], list(lstm.parameters())


def normalized_layer(form, hidden):
    bound = hidden ** -0.5
    parameters = {"W_x": uniform(4 * hidden, hidden, bound=bound), "W_h": uniform(4 * hidden, hidden, bound=bound),
                  "gain_x": torch.ones(4 * hidden), "gain_h": torch.ones(4 * hidden), "bias": torch.zeros(4 * hidden),
                  "gain_c": torch.ones(hidden), "bias_c": torch.zeros(hidden)}
    leaves = [parameters[name].requires_grad_() for name in torch_lstm.PARAMETERS]
    layer = torch_lstm.layer_of(form)
    return lambda x, h, c: layer(x, h, c, *leaves)[0], leaves


class Layer:
    """The timed layer, its input and the gradient by its output."""

    def __init__(self, form, hidden, batch, steps):
        torch.manual_seed(1)
        self.forward, parameters = plain_layer(hidden) if form == "nn-lstm" else normalized_layer(form, hidden)
        self.x = uniform(steps, batch, hidden).requires_grad_()
        self.h, self.c = uniform(batch, hidden), uniform(batch, hidden)
        self.d_output = uniform(steps, batch, hidden)
        self.leaves = [*parameters, self.x]

    def run(self):
        """Seconds of the forward pass and of both."""
        for leaf in self.leaves:
            leaf.grad = None
        start = time.perf_counter()
        output = self.forward(self.x, self.h, self.c)
        middle = time.perf_counter()
        output.backward(self.d_output)
        return middle - start, time.perf_counter() - start


def uses_onednn(layer):
    """Whether PyTorch hands the whole layer to oneDNN's LSTM primitive."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        layer.run()
    return any("mkldnn_rnn_layer" in event.key for event in profile.key_averages())


def main(form, *numbers):
    hidden, batch, steps, threads, warm_up, repetitions = map(int, numbers)
    torch.set_num_threads(threads)
    layer = Layer(form, hidden, batch, steps)
    first = time.perf_counter()
    layer.run()
    first = time.perf_counter() - first
    for _ in range(warm_up - 1):
        layer.run()
    times = [layer.run() for _ in range(repetitions)]
    result = {"seconds": [both for _, both in times], "forward_seconds": [forward for forward, _ in times],
              "first_seconds": first, "version": f"PyTorch {torch.__version__}", "threads": torch.get_num_threads()}
    if form == "nn-lstm":
        result["through_onednn"] = uses_onednn(layer)
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
