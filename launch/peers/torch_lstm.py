"""The layer-normalized LSTM of arXiv:1607.06450, equations 20-22, in PyTorch, written as fast as its plain
operations allow: W_x x and its normalization for all time steps at once, then one step after the other.

Legend: T steps, B examples, I inputs, H units. Gates f, i, o, g, H rows each, as in Lamina's checkpoints; `bias` is
the sum of the paper's three. c is carried as it is and normalized for h only.
"""
import functools
from typing import List

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, linear

PARAMETERS = ("W_x", "W_h", "gain_x", "gain_h", "bias", "gain_c", "bias_c")
FORMS = ("eager", "script", "compile-step", "compile-loop")


def from_inputs(x: Tensor, W_x: Tensor, gain_x: Tensor, bias: Tensor) -> Tensor:
    """The inputs' share of the pre-activations, [T, B, 4H]; x: [T, B, I]."""
    return layer_norm(linear(x, W_x), [W_x.shape[0]], gain_x, bias, 1e-5)


def step(z_x: Tensor, h: Tensor, c: Tensor, W_h: Tensor, gain_h: Tensor, gain_c: Tensor, bias_c: Tensor):
    """h and c [B, H] after one time step; z_x: [B, 4H]."""
    z = z_x + layer_norm(linear(h, W_h), [W_h.shape[0]], gain_h, None, 1e-5)  # eq. 20
    f, i, o, g = z.chunk(4, 1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)  # eq. 21
    h = torch.sigmoid(o) * torch.tanh(layer_norm(c, [W_h.shape[1]], gain_c, bias_c, 1e-5))  # eq. 22
    return h, c


def loop_over(step):
    """The whole layer over `step`: h [T, B, H], and h and c after the last step."""

    def layer(x: Tensor, h: Tensor, c: Tensor, W_x: Tensor, W_h: Tensor, gain_x: Tensor, gain_h: Tensor, bias: Tensor,
              gain_c: Tensor, bias_c: Tensor):
        outputs: List[Tensor] = []
        for z_x in from_inputs(x, W_x, gain_x, bias).unbind(0):  # indexing would sum T whole gradients
            h, c = step(z_x, h, c, W_h, gain_h, gain_c, bias_c)
            outputs.append(h)
        return torch.stack(outputs), h, c

    return layer


@functools.cache
def layer_of(form):
    """The layer as a function, in one of FORMS."""
    if form == "eager":
        return loop_over(step)
    if form == "script":
        return torch.jit.script(loop_over(step))
    if form == "compile-step":
        return loop_over(torch.compile(step, fullgraph=True))
    return torch.compile(loop_over(step), fullgraph=True)
