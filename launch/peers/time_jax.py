"""Times the layer-normalized LSTM of jax_lstm.py, forward and backward by all parameters and the input, as turns.py
asks. Form: jax-scan."""
import time

import jax
from jax import numpy as jnp

import jax_lstm
import turns

TYPES = {"f32": jnp.float32, "bf16": jnp.bfloat16}


class Layer:
    def __init__(self, form, type_name, hidden, batch, steps):
        self.keys = iter(jax.random.split(jax.random.key(1), 16))
        self.type = TYPES[type_name]
        bound, ones = hidden ** -0.5, jnp.ones(4 * hidden, self.type)
        self.arguments = (self.uniform(steps, batch, hidden), self.uniform(batch, hidden), self.uniform(batch, hidden),
                          self.uniform(4 * hidden, hidden, bound=bound), self.uniform(4 * hidden, hidden, bound=bound),
                          ones, ones, 0 * ones, ones[:hidden], 0 * ones[:hidden])
        self.d_output = self.uniform(steps, batch, hidden)
        self.forward = jax.jit(lambda *arguments: jax_lstm.layer(*arguments)[0])
        self.both = jax.jit(lambda d_output, *arguments: jax.vjp(
            lambda *of: jax_lstm.layer(*of)[0], *arguments)[1](d_output))

    def uniform(self, *shape, bound=1.0):
        return jax.random.uniform(next(self.keys), shape, self.type, -bound, bound)

    def run(self):
        """Seconds of the forward pass alone, and of both passes compiled as one."""
        start = time.perf_counter()
        jax.block_until_ready(self.forward(*self.arguments))
        middle = time.perf_counter()
        jax.block_until_ready(self.both(self.d_output, *self.arguments))
        return middle - start, time.perf_counter() - middle

    def about(self):
        return {}


if __name__ == "__main__":
    turns.serve(Layer)
