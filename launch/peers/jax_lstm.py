"""The layer-normalized LSTM of torch_lstm.py in JAX: its time steps are one lax.scan. Same shapes, same parameters."""
import jax
from jax import lax
from jax import numpy as jnp

PARAMETERS = ("W_x", "W_h", "gain_x", "gain_h", "bias", "gain_c", "bias_c")

jax.config.update("jax_default_matmul_precision", "highest")  # f32 stays f32


def normalized(x, gain, bias=0):
    mean = x.mean(-1, keepdims=True)
    variance = jnp.square(x - mean).mean(-1, keepdims=True)
    return (x - mean) * lax.rsqrt(variance + 1e-5) * gain + bias


def layer(x, h, c, W_x, W_h, gain_x, gain_h, bias, gain_c, bias_c):
    """h [T, B, H] of all steps, and h and c after the last; x: [T, B, I]."""

    def step(state, z_x):
        h, c = state
        f, i, o, g = jnp.split(z_x + normalized(h @ W_h.T, gain_h), 4, -1)  # eq. 20
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)  # eq. 21
        h = jax.nn.sigmoid(o) * jnp.tanh(normalized(c, gain_c, bias_c))  # eq. 22
        return (h, c), h

    (h, c), output = lax.scan(step, (h, c), normalized(x @ W_x.T, gain_x, bias))
    return output, h, c


def results_of(step):
    """What `step.results` of a recorded_step.RecordedStep has, by JAX."""

    def loss_and_states(parameters):
        x, states = parameters["embedding/table"][step.tokens], {}
        for number, (h, c) in enumerate(step.states):
            x, h, c = layer(x, h, c, *(parameters[f"lstm{number}/{name}"] for name in PARAMETERS))
            states |= {f"{name} of lstm{number} after the step": value for name, value in (("h", h), ("c", c))}
        logits = x @ parameters["output/W"].T + parameters["output/bias"]
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), step.targets[..., None], -1)
        return -chosen.mean(), states

    parameters = {name: jnp.asarray(value) for name, value in step.parameters.items()}
    (loss, states), gradients = jax.value_and_grad(loss_and_states, has_aux=True)(parameters)
    return states | {"loss": loss} | {f"gradient of {name}": value for name, value in gradients.items()}
