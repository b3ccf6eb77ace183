"""The timing side of launch/compare_gpu_peers.py: a process that makes and times layers as lines of JSON ask."""
import gc
import json
import sys
import time


def serve(make, release=lambda: None):
    """For each line {"form", "type", "hidden", "batch", "steps", "warm_up", "repetitions"} times the layer that `make`
    made of it, and prints a line of JSON: {"seconds", "forward_seconds", …}, or {"error"}. A layer is kept for later
    turns until another shape is asked for."""
    layers, shape = {}, None
    for line in sys.stdin:
        asked = json.loads(line)
        if shape != (asked["hidden"], asked["batch"], asked["steps"]):
            shape = (asked["hidden"], asked["batch"], asked["steps"])
            layers.clear()
            gc.collect()
            release()
        key = asked["form"], asked["type"]
        try:
            if key not in layers:
                layers[key] = First(make, asked)
            answer = layers[key].measure(asked["warm_up"], asked["repetitions"])
        except Exception as error:  # of a library: the next layer may work
            layers.pop(key, None)
            answer = {"error": f"{type(error).__name__}: {error}".strip().splitlines()[0][:300]}
        print(json.dumps(answer), flush=True)


class First:
    """A layer, and how long it took until it had run once: compiling, capturing."""

    def __init__(self, make, asked):
        start = time.perf_counter()
        self.layer = make(asked["form"], asked["type"], asked["hidden"], asked["batch"], asked["steps"])
        self.layer.run()
        self.about = {"first_seconds": time.perf_counter() - start, **self.layer.about()}

    def measure(self, warm_up, repetitions):
        for _ in range(warm_up):
            self.layer.run()
        times = [self.layer.run() for _ in range(repetitions)]
        return {"seconds": [both for _, both in times], "forward_seconds": [forward for forward, _ in times],
                **self.about}
