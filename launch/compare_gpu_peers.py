#!/usr/bin/env python3
"""Times Lamina's LN-LSTM layer on a GPU beside its peers, in turns, after checking that they compute the same."""
import argparse
import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
from compare_peers import Parser, UserError, count, last_line, say

ROOT = pathlib.Path(__file__).resolve().parents[1]
PEERS = ROOT / "launch" / "peers"

DESCRIPTION = """\
Times one LSTM layer, forward and backward by all parameters and the input, on one GPU. Units are inputs.

  lamina              Lamina's layer-normalized LSTM (LN-LSTM), by 'lamina benchmark layer'
  lamina-persistent   the same with --time-loop persistent, in bf16 only
  eager               the same LN-LSTM in PyTorch
  graph               that, both passes replayed as CUDA graphs of the whole sequence
  compile-step        that with its time step under torch.compile
  compile-step-graph  that replayed as CUDA graphs
  jax-scan            the same in JAX, its steps one lax.scan
  nn-lstm             PyTorch's plain LSTM (cuDNN), without layer normalization

A name may end in :f32, :f16 or :bf16 (default: f32, without TF32). Contenders take turns, all on the same GPU. Before,
the LN-LSTMs are compared with Lamina's numbers from the same weights; one that differs or fails is left out, saying so.
What comes before the first timed run, as compiling, is not counted."""

DEFAULT = ["lamina", "lamina:bf16", "lamina-persistent:bf16", "graph", "eager", "nn-lstm:f32", "nn-lstm:f16", "nn-lstm:bf16",
           "compile-step-graph", "compile-step", "jax-scan"]
# What must agree with Lamina before a form is timed.
CHECKED_BY = {"eager": "eager", "graph": "eager", "compile-step": "compile-step", "compile-step-graph": "compile-step",
              "jax-scan": "jax-scan"}
FORMS = ("lamina", "lamina-persistent", "nn-lstm", *CHECKED_BY)
SLOW_TO_MAKE = ("compile-step", "compile-step-graph", "jax-scan")
TYPES = ("f32", "f16", "bf16")
TYPES_OF = {"lamina": ("f32", "bf16"), "lamina-persistent": ("bf16",)}  # of the others all


@dataclasses.dataclass(frozen=True)
class Contender:
    form: str
    type: str

    def __str__(self):
        return self.form if self.form != "nn-lstm" and self.type == "f32" else f"{self.form}:{self.type}"


@dataclasses.dataclass(frozen=True)
class Shape:
    hidden: int
    batch: int
    steps: int

    def __str__(self):
        return f"{self.hidden} units, batch {self.batch}, {self.steps} steps"


def contenders(text):
    found = []
    for name in text.split(","):
        form, _, type_name = name.partition(":")
        if form not in FORMS or (type_name or "f32") not in TYPES_OF.get(form, TYPES):
            raise argparse.ArgumentTypeError(f"'{name}' is no contender; there are {', '.join(FORMS)}, and :f16, :bf16")
        found.append(Contender(form, type_name or "f32"))
    return list(dict.fromkeys(found))


def shapes(text):
    parts = [part.split("x") for part in text.split(",")]
    if not all(len(part) == 3 and all(number.isdecimal() and int(number) > 0 for number in part) for part in parts):
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of UNITSxBATCHxSTEPS, as 1024x32x512")
    return [Shape(*map(int, part)) for part in parts]


def parse(arguments):
    parser = Parser(prog="launch/compare_gpu_peers.py", description=DESCRIPTION,
                    formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    option = parser.add_argument
    option("--shapes", type=shapes, metavar="UxBxT,...",
           default=shapes("1024x32x512,1024x64x512,768x16x512,2048x64x512,1024x512x512,1024x32x1024,2048x32x512,"
                          "768x64x512,768x512x512,1024x16x512,2048x16x512,2048x512x512"),
           help="units, batch and time steps, the most important first (default: 1024x32x512 and eleven more)")
    option("--contenders", type=contenders, default=contenders(",".join(DEFAULT)), metavar="NAME,...",
           help="who takes part, the first being compared with (default: all)")
    option("--slow-shapes", type=count, default=2, metavar="N",
           help="shapes, from the first, with those that compile for long: compile-step and jax-scan (default: 2)")
    option("--rounds", type=count, default=3, metavar="N", help="turns of each contender (default: 3)")
    option("--repetitions", type=count, default=5, metavar="N", help="timed runs in each turn (default: 5)")
    option("--warm-up", type=count, default=2, metavar="N", help="runs before them, of the peers (default: 2)")
    option("--minutes", type=float, metavar="N", help="begin no other shape after so long")
    option("--build", type=pathlib.Path, default=ROOT / "build" / "cuda", metavar="DIR",
           help="where lamina is built (default: build/cuda)")
    option("--python", default=sys.executable, metavar="PROGRAM", help="a Python that has PyTorch, NumPy and perhaps JAX")
    option("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: to try out the script (default: cuda)")
    option("--json", type=pathlib.Path, metavar="FILE", help="write all figures to this file, after every shape anew")
    option("--check-only", action="store_true", help="end after the comparison of numbers")
    return parser.parse_args(arguments)


# --- who is timed ---------------------------------------------------------------------------------------------------

class Failed(Exception):
    """A contender could not be timed; the text says why."""


class Server:
    """A process of a script in launch/peers that times layers."""

    def __init__(self, command, environment):
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([str(part) for part in command], env=environment, text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors)

    def ask(self, question):
        try:
            print(json.dumps(question), file=self.process.stdin, flush=True)
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self.errors.seek(0)
            raise Failed(f"ended with code {self.process.wait()}: {last_line(self.errors.read())}")
        answer = json.loads(answer)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer

    def end(self):
        self.process.kill()
        self.process.communicate()


class Timers:
    """Runs whoever is timed; processes of PyTorch and JAX stay for all turns."""

    def __init__(self, settings):
        self.settings, self.servers = settings, {}
        self.lamina = settings.build.resolve() / "lamina"
        if not os.access(self.lamina, os.X_OK):
            raise UserError(f"there is no {self.lamina}: 'cmake --preset cuda && cmake --build --preset cuda' builds it into "
                            "build/cuda, --build tells another place.")
        # JAX would take most of the GPU's memory at its start.
        self.environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        if settings.device == "cpu":
            self.environment["JAX_PLATFORMS"] = "cpu"

    def time(self, contender, shape):
        if contender.form.startswith("lamina"):
            return self.time_lamina(contender, shape)
        question = {"form": contender.form, "type": contender.type, **dataclasses.asdict(shape),
                    "warm_up": self.settings.warm_up, "repetitions": self.settings.repetitions}
        return self.server(contender.form).ask(question)

    def server(self, form):
        script = "time_jax.py" if form == "jax-scan" else "time_torch_cuda.py"
        server = self.servers.get(script)
        if server is None or server.process.poll() is not None:
            device = [] if form == "jax-scan" else [self.settings.device]
            server = self.servers[script] = Server([self.settings.python, PEERS / script, *device], self.environment)
        return server

    def time_lamina(self, contender, shape):
        loop = "persistent" if contender.form == "lamina-persistent" else "steps"
        with tempfile.TemporaryDirectory() as folder:
            figures = pathlib.Path(folder, "figures.json")
            self.run([self.lamina, "benchmark", "layer", "--device", self.settings.device, "--precision", contender.type,
                      "--time-loop", loop, "--hidden", shape.hidden, "--batch", shape.batch, "--steps", shape.steps,
                      "--repetitions", self.settings.repetitions, "--json", figures])
            rows = {row["pass"]: row for row in json.loads(figures.read_text())["rows"]}
        seconds = {name: [ms / 1e3 for ms in row["milliseconds"]["repetitions"]] for name, row in rows.items()}
        return {"seconds": seconds["both"], "forward_seconds": seconds["forward"], "gemm_share": rows["both"]["gemm_share"]}

    def run(self, command):
        process = subprocess.run([str(part) for part in command], env=self.environment, text=True, capture_output=True,
                                 stdin=subprocess.DEVNULL)
        if process.returncode:
            raise Failed(f"ended with code {process.returncode}: {last_line(process.stderr)}")
        return process.stdout

    def end(self):
        for server in self.servers.values():
            server.end()


def check_numbers(timers, settings):
    """Records of what was compared, {form: record}; a form that could not be compared has an "error"."""
    forms = dict.fromkeys(CHECKED_BY[contender.form] for contender in settings.contenders if contender.form in CHECKED_BY)
    if not forms:
        return {}
    say("Comparing the numbers of one training step with Lamina's ...")
    records = {}
    with tempfile.TemporaryDirectory() as folder:
        command = [settings.python, PEERS / "check_numbers.py", "--device", settings.device, timers.lamina, folder, *forms]
        process = subprocess.run([str(part) for part in command], env=timers.environment, text=True, capture_output=True,
                                 stdin=subprocess.DEVNULL)
    for line in process.stdout.splitlines():
        if line.startswith("{"):
            record = json.loads(line)
            records[record["form"]] = record
    for form in forms:
        said = [line for line in process.stderr.splitlines() if line.startswith(f"{form}: ")]
        records.setdefault(form, {"form": form, "agrees": False, "error": last_line("\n".join(said) or process.stderr)})
    return records


def reason_against(contender, checks):
    """Why a contender is not timed, or None."""
    record = checks.get(CHECKED_BY.get(contender.form))
    if record is None or record["agrees"]:
        return None
    if "error" in record:
        return f"its numbers could not be compared: {record['error']}"
    return (f"it computes something else than Lamina: the {record['worst']} differs by {record['deviation']:.2g} of its "
            f"largest magnitude, where {record['tolerance']:.0e} is allowed")


# --- times ----------------------------------------------------------------------------------------------------------

def measure(timers, settings, shape, against):
    """Results of every contender for one shape, {contender: [answers]}, and why others have none."""
    results, reasons = {}, dict(against)
    for number in range(settings.rounds):
        say(f"{shape}: round {number + 1} of {settings.rounds}")
        for contender in settings.contenders:
            if contender in reasons:
                continue
            try:
                results.setdefault(contender, []).append(timers.time(contender, shape))
            except Failed as failure:
                say(f"{contender}: {failure}")
                reasons[contender] = str(failure)
                results.pop(contender, None)
    return results, reasons


def row_of(contender, shape, answers, first):
    """`first`: the median seconds of who is compared with, or None."""
    times = [1e3 * seconds for answer in answers for seconds in answer["seconds"]]
    forward = [1e3 * seconds for answer in answers for seconds in answer["forward_seconds"]]
    median = statistics.median(times)
    row = {"contender": str(contender), **dataclasses.asdict(shape),
           "milliseconds": {"median": median, "min": min(times), "max": max(times), "all": times},
           "forward_milliseconds": statistics.median(forward), "microseconds_per_step": 1e3 * median / shape.steps,
           "ratio": median / first if first else None}
    for name in ("first_seconds", "kernels", "gemm_share"):
        if name in answers[0]:
            row[name] = answers[0][name]
    return row


def rows_of(settings, shape, results, reasons):
    leader = results.get(settings.contenders[0])
    first = leader and statistics.median(1e3 * seconds for answer in leader for seconds in answer["seconds"])
    return [row_of(contender, shape, results[contender], first) if contender in results else
            {"contender": str(contender), **dataclasses.asdict(shape), "reason": reasons[contender]}
            for contender in settings.contenders]


def not_begun(settings, shape):
    return [{"contender": str(contender), **dataclasses.asdict(shape), "reason": "no time was left"}
            for contender in settings.contenders]


def compare(timers, settings, figures):
    ends = time.monotonic() + 60 * settings.minutes if settings.minutes else None
    against = {contender: reason for contender in settings.contenders
               if (reason := reason_against(contender, figures["checks"]))}
    for number, shape in enumerate(settings.shapes):
        if ends and time.monotonic() > ends:
            figures["rows"] += not_begun(settings, shape)
            continue
        slow = {contender: f"compiled for the first {settings.slow_shapes} shapes only"
                for contender in settings.contenders if number >= settings.slow_shapes and contender.form in SLOW_TO_MAKE}
        results, reasons = measure(timers, settings, shape, slow | against)
        rows = rows_of(settings, shape, results, reasons)
        print(table_of(rows), flush=True)
        figures["rows"] += rows
        write(settings.json, figures)


def table_of(rows):
    lines = [f"{'contender':20}{'units':>6}{'batch':>6}{'steps':>6}{'ms':>10}{'min':>10}{'max':>10}{'us/step':>10}{'ratio':>8}"]
    for row in rows:
        line = f"{row['contender']:20}{row['hidden']:6}{row['batch']:6}{row['steps']:6}"
        if "reason" in row:
            lines.append(f"{line}  not measured: {row['reason']}")
            continue
        times = row["milliseconds"]
        ratio = f"{row['ratio']:8.2f}" if row["ratio"] else ""
        lines.append(f"{line}{times['median']:10.2f}{times['min']:10.2f}{times['max']:10.2f}"
                     f"{row['microseconds_per_step']:10.1f}{ratio}")
    return "\n".join(lines)


def write(file, figures):
    """As a whole or not at all: whoever reads it may come at any time."""
    if file is None:
        return
    partial = file.with_name(file.name + ".partial")
    partial.write_text(json.dumps(figures, indent=1) + "\n")
    partial.replace(file)


def main(arguments):
    settings = parse(arguments)
    timers = Timers(settings)
    figures = {"device": settings.device, "rounds": settings.rounds, "repetitions": settings.repetitions,
               "checks": check_numbers(timers, settings), "rows": []}
    for record in figures["checks"].values():
        say(f"{record['form']}: " + (f"{record['results']} results, largest difference {record['deviation']:.1e} of "
                                     f"{record['tolerance']:.0e} allowed" if "deviation" in record else record["error"]))
    write(settings.json, figures)
    try:
        if not settings.check_only:
            compare(timers, settings, figures)
    finally:
        timers.end()
        write(settings.json, figures)
    return 0 if all(record["agrees"] for record in figures["checks"].values()) else 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(f"compare_gpu_peers.py: {error}", file=sys.stderr)
        sys.exit(error.code)
