"""Times one LSTM layer in PyTorch on a GPU, forward and backward by all parameters and the input, as turns.py asks.
Forms: those of torch_lstm.py; graph and compile-step-graph, which replay eager and compile-step as two CUDA graphs of
the whole sequence; nn-lstm, PyTorch's own LSTM without layer normalization, by cuDNN. Types: f32 (without TF32), f16
and bf16.

    time_torch_cuda.py [DEVICE=cuda]
"""
import functools
import sys
import time

import torch

import torch_lstm
import turns

TYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
# Of a graph's results to those of the run that it was captured from, of the largest magnitude.
GRAPH_TOLERANCES = {"f32": 1e-5, "f16": 1e-2, "bf16": 5e-2}


def synchronize(device):
    if device == "cuda":
        torch.cuda.synchronize()


class Layer:
    """The timed layer, its input and the gradient by its output."""

    def __init__(self, form, type_name, hidden, batch, steps, device):
        torch.manual_seed(1)
        self.device, self.form = device, form
        self.draw = functools.partial(torch.empty, device=device, dtype=TYPES[type_name])
        self.layer, parameters = self.plain(hidden) if form == "nn-lstm" else self.normalized(form, hidden)
        self.x, self.d_output = self.uniform(steps, batch, hidden).requires_grad_(), self.uniform(steps, batch, hidden)
        self.h, self.c = self.uniform(batch, hidden), self.uniform(batch, hidden)
        self.leaves = [*parameters, self.x]

    def uniform(self, *shape, bound=1.0):
        return self.draw(shape).uniform_(-bound, bound)

    def plain(self, hidden):
        lstm = torch.nn.LSTM(hidden, hidden, device=self.device, dtype=self.draw.keywords["dtype"])
        return lambda x, h, c: lstm(x, (h[None], c[None]))[0], list(lstm.parameters())

    def normalized(self, form, hidden):
        bound = hidden ** -0.5
        parameters = {"W_x": self.uniform(4 * hidden, hidden, bound=bound),
                      "W_h": self.uniform(4 * hidden, hidden, bound=bound),
                      "gain_x": self.draw(4 * hidden).fill_(1), "gain_h": self.draw(4 * hidden).fill_(1),
                      "bias": self.draw(4 * hidden).zero_(), "gain_c": self.draw(hidden).fill_(1),
                      "bias_c": self.draw(hidden).zero_()}
        leaves = [parameters[name].requires_grad_() for name in torch_lstm.PARAMETERS]
        layer = torch_lstm.layer_of(form)
        return lambda x, h, c: layer(x, h, c, *leaves)[0], leaves

    def forward(self):
        return self.layer(self.x, self.h, self.c)

    def backward(self, output):
        return torch.autograd.grad(output, self.leaves, self.d_output)

    def run(self):
        """Seconds of the forward pass and of both."""
        synchronize(self.device)
        start = time.perf_counter()
        output = self.forward()
        synchronize(self.device)
        middle = time.perf_counter()
        self.backward(output)
        synchronize(self.device)
        return middle - start, time.perf_counter() - start

    def about(self):
        if self.device != "cuda" or self.form != "nn-lstm":
            return {}
        try:
            return {"kernels": self.kernels()}
        except Exception as error:  # without the profiler, times can be had still
            return {"kernels": [[f"the profiler failed: {error}"[:120], 0]]}

    def kernels(self):
        """The kernels with most of the time, [name, share]: which algorithm cuDNN took."""
        activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=activities) as profile:
            self.run()
        times = {}
        for event in profile.events():
            if event.device_type == torch.autograd.DeviceType.CUDA:
                times[event.name] = times.get(event.name, 0) + event.time_range.elapsed_us()
        most = sorted(times, key=times.get, reverse=True)[:6]
        return [[name[:120], times[name] / max(sum(times.values()), 1e-9)] for name in most]


class Graph:
    """A layer whose forward and backward passes are replayed as one CUDA graph each."""

    def __init__(self, layer, tolerance):
        if layer.device != "cuda":
            raise ValueError("a CUDA graph needs a GPU")
        self.layer = layer
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):  # libraries choose algorithms and take memory, which a capture must not
                expected = layer.forward()
                expected_gradients = layer.backward(expected)
        torch.cuda.current_stream().wait_stream(side)
        expected = [expected.detach(), *expected_gradients]
        self.forward_graph, self.backward_graph = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.forward_graph):
            output = layer.forward()
        with torch.cuda.graph(self.backward_graph, pool=self.forward_graph.pool()):
            gradients = layer.backward(output)
        self.results = [output.detach(), *gradients]
        self.run()
        worst = max(float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-30))
                    for ours, theirs in zip(self.results, expected))
        if not worst <= tolerance:
            raise ValueError(f"the graph's results differ by {worst:.1e} of the largest magnitude")

    def run(self):
        torch.cuda.synchronize()
        start = time.perf_counter()
        self.forward_graph.replay()
        torch.cuda.synchronize()
        middle = time.perf_counter()
        self.backward_graph.replay()
        torch.cuda.synchronize()
        return middle - start, time.perf_counter() - start

    def about(self):
        return {}


def make(device, form, type_name, *shape):
    base = {"graph": "eager"}.get(form, form.removesuffix("-graph"))
    layer = Layer(base, type_name, *shape, device)
    return layer if base == form else Graph(layer, GRAPH_TOLERANCES[type_name])


def release():
    torch._dynamo.reset()  # what was compiled for another shape
    torch_lstm.layer_of.cache_clear()
    torch.cuda.empty_cache()


def main(device="cuda"):
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    turns.serve(functools.partial(make, device), release)


if __name__ == "__main__":
    main(*sys.argv[1:])
