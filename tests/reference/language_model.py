"""The language model of LN-LSTM layers in NumPy, in double precision, written from the paper's equations 20-22 and the
names and shapes of a checkpoint (io/README.md); forward and backward.

Legend: T steps, B examples, I inputs, H units, V characters. Gates f, i, o, g, H rows each.
"""
import numpy

EPSILON = 1e-5


def sigmoid(z):
    return 1 / (1 + numpy.exp(-z))


def normalize(a):
    """n, and the scale that its gradient needs; over the last dim."""
    centred = a - a.mean(-1, keepdims=True)
    scale = 1 / numpy.sqrt((centred ** 2).mean(-1, keepdims=True) + EPSILON)
    return centred * scale, scale


def normalize_backward(n, scale, dn):
    return scale * (dn - dn.mean(-1, keepdims=True) - n * (dn * n).mean(-1, keepdims=True))


class Step:
    """One time step of a layer and its gradients; x: [B, I], h, c: [B, H]."""

    def __init__(self, p, x, h, c):
        self.x, self.h_before, self.c_before = x, h, c
        self.n_x, self.scale_x = normalize(x @ p["W_x"].T)
        self.n_h, self.scale_h = normalize(h @ p["W_h"].T)
        z = p["gain_h"] * self.n_h + p["gain_x"] * self.n_x + p["bias"]  # eq. 20
        f, i, o, g = numpy.split(z, 4, axis=1)
        self.f, self.i, self.o, self.g = sigmoid(f), sigmoid(i), sigmoid(o), numpy.tanh(g)
        self.c = self.f * c + self.i * self.g  # eq. 21
        self.n_c, self.scale_c = normalize(self.c)
        self.squashed = numpy.tanh(p["gain_c"] * self.n_c + p["bias_c"])
        self.h = self.o * self.squashed  # eq. 22

    def backward(self, p, d, dh, dc):
        """Adds to the parameters' gradients `d`; gradients by x and by h and c before the step."""
        dy = dh * self.o * (1 - self.squashed ** 2)
        d["gain_c"] += (dy * self.n_c).sum(0)
        d["bias_c"] += dy.sum(0)
        dc = dc + normalize_backward(self.n_c, self.scale_c, p["gain_c"] * dy)
        dz = numpy.concatenate([dc * self.c_before * self.f * (1 - self.f), dc * self.g * self.i * (1 - self.i),
                                dh * self.squashed * self.o * (1 - self.o), dc * self.i * (1 - self.g ** 2)], axis=1)
        d["bias"] += dz.sum(0)
        d["gain_x"] += (dz * self.n_x).sum(0)
        d["gain_h"] += (dz * self.n_h).sum(0)
        da_x = normalize_backward(self.n_x, self.scale_x, p["gain_x"] * dz)
        da_h = normalize_backward(self.n_h, self.scale_h, p["gain_h"] * dz)
        d["W_x"] += da_x.T @ self.x
        d["W_h"] += da_h.T @ self.h_before
        return da_x @ p["W_x"], da_h @ p["W_h"], dc * self.f


class Layer:
    def __init__(self, parameters):
        self.parameters = parameters
        self.gradients = {name: numpy.zeros_like(value) for name, value in parameters.items()}
        self.steps = []

    def forward(self, x, h, c):
        """h of all steps [T, B, H]; x: [T, B, I]."""
        self.steps = []
        for x_t in x:
            self.steps.append(Step(self.parameters, x_t, h, c))
            h, c = self.steps[-1].h, self.steps[-1].c
        return numpy.stack([step.h for step in self.steps])

    def backward(self, d_output):
        """The gradient by x; the carried state before the first step has none."""
        dx, dh, dc = [], 0.0, numpy.zeros_like(self.steps[0].c)
        for step, d_above in zip(reversed(self.steps), reversed(d_output)):
            dx_t, dh, dc = step.backward(self.parameters, self.gradients, d_above + dh, dc)
            dx.append(dx_t)
        return numpy.stack(dx[::-1])


class LanguageModel:
    """`parameters` by their names in a checkpoint: "embedding/table", "lstm0/W_x", …"""

    def __init__(self, parameters):
        self.all = {name: numpy.asarray(value, numpy.float64) for name, value in parameters.items()}
        count = len({name.split("/")[0] for name in self.all if name.startswith("lstm")})
        self.layers = [Layer({name.split("/")[1]: value for name, value in self.all.items()
                              if name.startswith(f"lstm{number}/")}) for number in range(count)]

    def zero_state(self, batch):
        return [tuple(numpy.zeros((2, batch, layer.parameters["gain_c"].size))) for layer in self.layers]

    def forward(self, tokens, targets, states):
        """-ln p of every target [T, B]; states: (h, c) of every layer."""
        self.tokens, self.targets = tokens, targets
        x = self.all["embedding/table"][tokens]
        for layer, state in zip(self.layers, states):
            x = layer.forward(x, *state)
        self.top = x
        logits = x @ self.all["output/W"].T + self.all["output/bias"]
        logits -= logits.max(-1, keepdims=True)
        self.p = numpy.exp(logits) / numpy.exp(logits).sum(-1, keepdims=True)
        return -numpy.log(numpy.take_along_axis(self.p, targets[..., None], -1)[..., 0])

    def last_states(self):
        return [(layer.steps[-1].h, layer.steps[-1].c) for layer in self.layers]

    def backward(self):
        """Gradients of the mean of the latest forward()'s result, by parameter name."""
        d_logits = self.p.copy()
        numpy.put_along_axis(d_logits, self.targets[..., None],
                             numpy.take_along_axis(self.p, self.targets[..., None], -1) - 1, -1)
        d_logits /= self.targets.size
        gradients = {"embedding/table": numpy.zeros_like(self.all["embedding/table"]),
                     "output/W": numpy.einsum("tbv,tbh->vh", d_logits, self.top), "output/bias": d_logits.sum((0, 1))}
        dx = d_logits @ self.all["output/W"]
        for number, layer in reversed(list(enumerate(self.layers))):
            dx = layer.backward(dx)
            gradients |= {f"lstm{number}/{name}": value for name, value in layer.gradients.items()}
        numpy.add.at(gradients["embedding/table"], self.tokens, dx)
        return gradients
