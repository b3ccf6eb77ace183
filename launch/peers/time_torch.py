"""Times one LSTM layer in PyTorch, forward and backward by all parameters and the input. For each line that it reads,
"WARM_UP REPETITIONS", it runs the layer so often and prints a line of JSON: compiling may take minutes, so a process
serves many turns.

    time_torch.py FORM HIDDEN BATCH STEPS THREADS      FORM: of torch_lstm.py, or nn-lstm
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


def measure(layer, warm_up, repetitions):
    for _ in range(warm_up):
        layer.run()
    wall, cpu = time.perf_counter(), time.process_time()
    times = [layer.run() for _ in range(repetitions)]
    return {"seconds": [both for _, both in times], "forward_seconds": [forward for forward, _ in times],
            "wall_seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}


def main(form, *numbers):
    hidden, batch, steps, threads = map(int, numbers)
    torch.set_num_threads(threads)
    layer = Layer(form, hidden, batch, steps)
    start = time.perf_counter()
    layer.run()
    about = {"first_seconds": time.perf_counter() - start, "threads": torch.get_num_threads()}
    if form == "nn-lstm":
        about["through_onednn"] = uses_onednn(layer)
    for line in sys.stdin:
        print(json.dumps(measure(layer, *map(int, line.split())) | about), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
