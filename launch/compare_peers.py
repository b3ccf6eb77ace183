#!/usr/bin/env python3
"""Times Lamina's LN-LSTM layer beside its peers, in turns, after checking that PyTorch's LN-LSTMs compute the same."""
import argparse
import dataclasses
import datetime
import hashlib
import itertools
import json
import os
import pathlib
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
PEERS = ROOT / "launch" / "peers"

DESCRIPTION = """\
Times one LSTM layer, forward and backward by all parameters and the input, in f32:

  lamina        Lamina's layer-normalized LSTM (LN-LSTM), by 'lamina benchmark layer'
  eager         the same LN-LSTM in PyTorch, its weights and numbers compared with Lamina's first
  script        that under TorchScript
  compile-step  that with its time step under torch.compile
  compile-loop  that with all its time steps under torch.compile; takes part when it is named, for PyTorch compiles
                each step anew: tens of minutes a shape
  nn-lstm       PyTorch's plain LSTM, without layer normalization
  onednn        oneDNN's plain LSTM primitive, its weights laid out beforehand

Contenders take turns, each in processes of its own that are pinned to as many cores as they have threads. What comes
before the first timed run, as compiling, is not counted. PyTorch is installed from the package index that pip is
configured for, into a folder of its own, and nothing into the system."""


class UserError(Exception):
    """One sentence for who started this, with the exit code."""

    def __init__(self, sentence, code=1):
        super().__init__(sentence)
        self.code = code


# --- what is asked for ------------------------------------------------------------------------------------------

class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise UserError(f"{message}; see --help.", 2)


def counts(text):
    """Whole numbers above 0, separated by commas."""
    parts = text.split(",")
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of whole numbers above 0, as 16,64")
    return list(dict.fromkeys(map(int, parts)))


def count(text):
    numbers = counts(text)
    if len(numbers) != 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not one whole number above 0")
    return numbers[0]


def contender_names(text):
    names = text.split(",")
    unknown = [name for name in names if name not in CONTENDERS]
    if unknown:
        raise argparse.ArgumentTypeError(f"'{unknown[0]}' is no contender; there are {', '.join(CONTENDERS)}")
    return list(dict.fromkeys(names))


def parse(arguments):
    parser = Parser(prog="launch/compare_peers.py", description=DESCRIPTION,
                    formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    option = parser.add_argument
    option("--hidden", type=counts, default=[512, 1024], metavar="N,...", help="units, and inputs (default: 512,1024)")
    option("--batch", type=counts, default=[16, 64], metavar="N,...", help="examples (default: 16,64)")
    option("--steps", type=count, default=64, metavar="N", help="time steps (default: 64)")
    option("--cores", type=counts, default=default_cores(), metavar="N,...",
           help="comparisons on so many cores each; a contender has 1, 2, 4, … and N threads and the best of these "
                "settings counts (default: 1, and all)")
    option("--contenders", type=contender_names, default=DEFAULT_CONTENDERS, metavar="NAME,...",
           help="who takes part, the first being compared with (default: all but compile-loop)")
    option("--rounds", type=count, default=5, metavar="N", help="turns of each contender (default: 5)")
    option("--repetitions", type=count, default=3, metavar="N", help="timed runs in each turn (default: 3)")
    option("--warm-up", type=count, default=2, metavar="N", help="runs before them, of the peers (default: 2)")
    option("--build", type=pathlib.Path, default=ROOT / "build" / "release", metavar="DIR",
           help="where lamina and time_onednn are built (default: build/release)")
    option("--folder", type=pathlib.Path, default=ROOT / "build" / "peers", metavar="DIR",
           help="where PyTorch is installed and caches are kept, about 5 GB (default: build/peers)")
    option("--python", metavar="PROGRAM", help="a Python that has PyTorch and NumPy already; nothing is installed")
    option("--json", type=pathlib.Path, metavar="FILE", help="also write all figures to this file")
    option("--check-only", action="store_true", help="end after the comparison of numbers")
    settings = parser.parse_args(arguments)
    if max(settings.cores) > len(usable_cores()):
        parser.error(f"--cores {max(settings.cores)} is more than the {len(usable_cores())} that may be used here")
    return settings


def usable_cores():
    return sorted(os.sched_getaffinity(0))


def default_cores():
    return list(dict.fromkeys([1, len(usable_cores())]))


# --- contenders -------------------------------------------------------------------------------------------------

@dataclasses.dataclass(frozen=True)
class Turn:
    """One process of a contender."""
    contender: str
    hidden: int
    batch: int
    threads: int


def time_lamina(turn, tools):
    with tempfile.TemporaryDirectory() as folder:
        figures = pathlib.Path(folder, "figures.json")
        start, cpu_before = time.monotonic(), cpu_of_children()
        tools.run(turn, [tools.lamina, "benchmark", "layer", "--hidden", turn.hidden, "--batch", turn.batch, "--steps",
                         tools.settings.steps, "--threads", turn.threads, "--repetitions", tools.settings.repetitions,
                         "--json", figures])
        wall, cpu = time.monotonic() - start, cpu_of_children() - cpu_before
        found = json.loads(figures.read_text())
    seconds = {row["pass"]: [ms / 1e3 for ms in row["milliseconds"]["repetitions"]] for row in found["rows"]}
    return {"seconds": seconds["both"], "forward_seconds": seconds["forward"], "version": found["program"],
            "wall_seconds": wall, "cpu_seconds": cpu}


def cpu_of_children():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def time_onednn(turn, tools):
    settings = tools.settings
    return json.loads(tools.run(turn, [tools.onednn, "--hidden", turn.hidden, "--batch", turn.batch, "--steps",
                                       settings.steps, "--warm-up", settings.warm_up, "--repetitions",
                                       settings.repetitions]))


def time_torch(turn, tools):
    """By a process that stays for the next turns, for it may have compiled for minutes."""
    if turn not in tools.servers:
        tools.servers[turn] = Server(turn, tools)
    return tools.servers[turn].measure(tools.settings.warm_up, tools.settings.repetitions)


class Server:
    """A process of time_torch.py."""

    def __init__(self, turn, tools):
        self.turn, self.errors = turn, tempfile.TemporaryFile("w+")
        command = [tools.python, PEERS / "time_torch.py", turn.contender, turn.hidden, turn.batch, tools.settings.steps,
                   turn.threads]
        self.process = subprocess.Popen(tools.pinned(turn, command), env=tools.environment(turn.threads), text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors)

    def measure(self, warm_up, repetitions):
        try:
            print(warm_up, repetitions, file=self.process.stdin, flush=True)
        except BrokenPipeError:
            pass  # it says why below
        answer = self.process.stdout.readline()
        if not answer:
            self.errors.seek(0)
            raise turn_failed(self.turn, self.process.wait(), self.errors.read())
        return json.loads(answer)

    def end(self):
        self.process.kill()
        self.process.communicate()


@dataclasses.dataclass(frozen=True)
class Contender:
    label: str
    time: callable
    same_numbers: bool = False  # must compute what Lamina computes


CONTENDERS = {
    "lamina": Contender("Lamina LN-LSTM", time_lamina),
    "eager": Contender("PyTorch LN-LSTM, eager", time_torch, same_numbers=True),
    "script": Contender("PyTorch LN-LSTM, TorchScript", time_torch, same_numbers=True),
    "compile-step": Contender("PyTorch LN-LSTM, compiled step", time_torch, same_numbers=True),
    "compile-loop": Contender("PyTorch LN-LSTM, all steps compiled", time_torch, same_numbers=True),
    "nn-lstm": Contender("PyTorch nn.LSTM, plain", time_torch),
    "onednn": Contender("oneDNN LSTM primitive, plain", time_onednn),
}
DEFAULT_CONTENDERS = [name for name in CONTENDERS if name != "compile-loop"]


class Tools:
    """The programs that are run, and how."""

    def __init__(self, settings):
        self.settings = settings
        self.lamina = built(settings.build, "lamina")
        self.onednn = built(settings.build, "time_onednn") if "onednn" in settings.contenders else None
        self.taskset = found_program("taskset", "pins a process to cores (Debian: util-linux)")
        self.python, self.torch, self.servers = None, {}, {}
        if any(CONTENDERS[name].time is time_torch for name in settings.contenders):
            self.take_torch()

    def take_torch(self):
        """The Python that has PyTorch, and what that is made of."""
        compiles = any(name.startswith("compile") for name in self.settings.contenders)
        if compiles:
            found_program(os.environ.get("CXX", "g++"), "is the compiler that torch.compile needs")
        self.python = self.settings.python or make_python(self.settings.folder)
        self.torch = describe_torch(self.python)
        if compiles and not os.path.exists(self.torch["python_header"]):
            fail(f"there is no {self.torch['python_header']}, which torch.compile needs (Debian: python3-dev).")

    def environment(self, threads):
        """Compiled code is kept for each number of threads: it may be made for that number."""
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        cache = self.settings.folder.resolve() / f"inductor-{threads}"
        return {**os.environ, **{name: str(threads) for name in names}, "TORCHINDUCTOR_CACHE_DIR": str(cache),
                "PYTHONDONTWRITEBYTECODE": "1"}

    def pinned(self, turn, command):
        """To the last cores of this machine: the first ones serve interrupts."""
        cores = ",".join(map(str, usable_cores()[-turn.threads:]))
        return [str(part) for part in (self.taskset, "--cpu-list", cores, *command)]

    def run(self, turn, command):
        """What a contender prints."""
        process = subprocess.run(self.pinned(turn, command), env=self.environment(turn.threads), text=True,
                                 capture_output=True, stdin=subprocess.DEVNULL)
        if process.returncode:
            raise turn_failed(turn, process.returncode, process.stderr)
        return process.stdout

    def end_servers(self):
        for server in self.servers.values():
            server.end()
        self.servers.clear()


def turn_failed(turn, code, errors):
    return UserError(f"{CONTENDERS[turn.contender].label} ended with code {code} for {turn.hidden} units, batch "
                     f"{turn.batch}, {turn.threads} threads: {last_line(errors)}")


def last_line(text):
    return (text.strip().splitlines() or ["it said nothing"])[-1]


def built(build, name):
    program = build.resolve() / name
    if not os.access(program, os.X_OK):
        raise UserError(f"there is no {program}: 'cmake --preset release && cmake --build --preset release' builds it "
                        "into build/release, --build tells another place.")
    return program


def found_program(name, purpose):
    return shutil.which(name) or fail(f"there is no '{name}' here, which {purpose}.")


def fail(sentence):
    raise UserError(sentence)


# --- PyTorch, in a folder of its own --------------------------------------------------------------------------------

def make_python(folder):
    """The Python of a virtual environment in `folder` with PyTorch; made when it is not there or of other versions."""
    requirements = PEERS / "requirements.txt"
    wanted = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()
    venv, mark = folder.resolve() / "venv", folder.resolve() / "venv" / "installed"
    python = venv / "bin" / "python"
    if mark.exists() and mark.read_text() == wanted:
        return python
    say(f"Installing PyTorch into {venv} ...")
    install([sys.executable, "-m", "venv", "--clear", venv],
            f"a virtual environment could not be made in {venv}; may it be written, and is python3-venv there")
    install([python, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--no-cache-dir", "--no-deps",
             "--requirement", requirements],
            "pip could not install PyTorch; is there a network, is pip configured for a package index, and is there "
            "room on the disk")
    mark.write_text(wanted)
    return python


def install(command, complaint):
    process = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if process.returncode:
        raise UserError(f"{complaint}? It said: {last_line(process.stderr or process.stdout)}")


def describe_torch(python):
    try:
        process = subprocess.run([str(python), str(PEERS / "describe_torch.py")], capture_output=True, text=True)
    except OSError as error:
        raise UserError(f"'{python}' cannot be run: {error.strerror}; give --python one that has PyTorch.") from error
    if process.returncode:
        fail(f"'{python}' has no PyTorch that works: {last_line(process.stderr)}")
    return json.loads(process.stdout)


# --- the same numbers -------------------------------------------------------------------------------------------------

def check_numbers(tools):
    """A record for each form of the LN-LSTM; ends all where one computes something else than Lamina."""
    forms = [name for name in tools.settings.contenders if CONTENDERS[name].same_numbers]
    if not forms:
        return []
    say("Comparing the numbers of one training step with Lamina's ...")
    with tempfile.TemporaryDirectory() as folder:
        command = [tools.python, PEERS / "check_numbers.py", tools.lamina, folder, *forms]
        process = subprocess.run([str(part) for part in command], env=tools.environment(1), text=True,
                                 capture_output=True, stdin=subprocess.DEVNULL)
    checks = [json.loads(line) for line in process.stdout.splitlines() if line.startswith("{")]
    for check in checks:
        if not check["agrees"]:
            raise UserError(f"{CONTENDERS[check['form']].label} differs from Lamina: the {check['worst']} by "
                            f"{check['deviation']:.2g} of its largest magnitude, where {check['tolerance']:.0e} is "
                            "allowed; nothing is timed.")
    if process.returncode or len(checks) != len(forms):
        raise UserError(f"the numbers could not be compared: {last_line(process.stderr)}")
    return checks


# --- times ------------------------------------------------------------------------------------------------------------

def thread_settings(cores):
    """1, 2, 4, … below `cores`, and `cores`."""
    return [threads for threads in (2 ** power for power in range(cores.bit_length())) if threads < cores] + [cores]


def measure(tools, hidden, batch):
    """Every contender's times for one shape, {Turn: [results]}, its turns among all others'."""
    settings, results = tools.settings, {}
    threads = sorted({count for cores in settings.cores for count in thread_settings(cores)})
    try:
        for number in range(settings.rounds):
            say(f"{hidden} units, batch {batch}: round {number + 1} of {settings.rounds}")
            for turn in (Turn(name, hidden, batch, count) for count in threads for name in settings.contenders):
                results.setdefault(turn, []).append(CONTENDERS[turn.contender].time(turn, tools))
    finally:
        tools.end_servers()
    return results


def milliseconds(results):
    return [1e3 * seconds for result in results for seconds in result["seconds"]]


def best_setting(results, name, hidden, batch, cores):
    """The turn of the contender with the lowest median on at most so many cores."""
    turns = [Turn(name, hidden, batch, threads) for threads in thread_settings(cores)]
    return min(turns, key=lambda turn: statistics.median(milliseconds(results[turn])))


def row_of(results, settings, name, hidden, batch, cores):
    turn = best_setting(results, name, hidden, batch, cores)
    first = best_setting(results, settings.contenders[0], hidden, batch, cores)
    times = milliseconds(results[turn])
    median = statistics.median(times)
    forward = statistics.median(1e3 * seconds for result in results[turn] for seconds in result["forward_seconds"])
    return {"contender": name, "hidden": hidden, "batch": batch, "cores": cores, "threads": turn.threads,
            "milliseconds": {"median": median, "min": min(times), "max": max(times), "all": times},
            "forward_milliseconds": forward, "microseconds_per_step": 1e3 * median / settings.steps,
            "ratio": median / statistics.median(milliseconds(results[first])),
            "core_share": statistics.median(core_share(result, turn) for result in results[turn]),
            "first_seconds": results[turn][0].get("first_seconds")}


def core_share(result, turn):
    """How much of its cores a contender had: less than 1 where others ran there, or threads waited asleep."""
    return result["cpu_seconds"] / result["wall_seconds"] / turn.threads


def rows_of(results, settings, hidden, batch):
    return [row_of(results, settings, name, hidden, batch, cores) for cores in settings.cores
            for name in settings.contenders]


# --- what is shown ----------------------------------------------------------------------------------------------------

def say(line):
    print(line, file=sys.stderr, flush=True)


def cpu_name():
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def facts_of(tools):
    about = subprocess.run([tools.lamina, "info"], capture_output=True, text=True)
    if about.returncode:
        fail(f"'{tools.lamina} info' failed: {last_line(about.stderr)}")
    return {"time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "cpu": cpu_name(),
            "cores": len(usable_cores()), "system": platform.platform(), "lamina": about.stdout.strip(), **tools.torch}


def heading(facts, settings):
    lines = [f"{facts['cpu']}, {facts['cores']} cores; {facts['system']}", facts["lamina"]]
    if "torch" in facts:
        lines += [f"PyTorch {facts['torch']}, {facts['capability']}; {facts['blas']}", facts["parallel"]]
    lines += [f"f32, {settings.steps} time steps, forward + backward; {settings.rounds} turns of "
              f"{settings.repetitions} runs each; threads by OMP_NUM_THREADS, MKL_NUM_THREADS and taskset",
              "of core: how much of the time of its cores a contender had"]
    return "\n".join(lines)


def check_lines(checks):
    return [f"{CONTENDERS[check['form']].label} computes what Lamina does: {check['results']} results, the largest "
            f"difference {check['deviation']:.1e} of {check['tolerance']:.0e}, {check['worst']}" for check in checks]


def table_of(rows, settings):
    """A paragraph for each number of cores, of one shape."""
    width = max(len(contender.label) for contender in CONTENDERS.values())
    first = CONTENDERS[settings.contenders[0]].label
    lines = []
    for row in rows:
        if row["contender"] == settings.contenders[0]:
            lines += ["", f"{row['hidden']} units, batch {row['batch']}, cores: {row['cores']}",
                      f"{'':{width}} threads        ms       min       max   us/step  of core   x {first}"]
        times = row["milliseconds"]
        lines += [f"{CONTENDERS[row['contender']].label:{width}} {row['threads']:7} {times['median']:9.2f} "
                  f"{times['min']:9.2f} {times['max']:9.2f} {row['microseconds_per_step']:9.1f} "
                  f"{row['core_share']:8.2f} {row['ratio']:7.3f}"]
    return "\n".join(lines)


def notes_of(results):
    """What the times of some contenders mean."""
    through = {result["through_onednn"] for found in results.values() for result in found if "through_onednn" in result}
    return [f"nn.LSTM runs through oneDNN's LSTM primitive: {'yes' if through == {True} else 'no'}"] if through else []


def compare(settings):
    tools = Tools(settings)
    facts, checks = facts_of(tools), check_numbers(tools)
    print("\n".join([heading(facts, settings), *check_lines(checks)]), flush=True)
    figures = {"facts": facts, "command": sys.argv[1:], "steps": settings.steps, "checks": checks, "notes": [],
               "rows": []}
    for hidden, batch in itertools.product(settings.hidden, settings.batch) if not settings.check_only else []:
        results = measure(tools, hidden, batch)
        rows, figures["notes"] = rows_of(results, settings, hidden, batch), notes_of(results)
        print("\n".join([table_of(rows, settings), *figures["notes"]]), flush=True)
        figures["rows"] += rows
        if settings.json:
            write_json(settings.json, figures)


def write_json(file, figures):
    try:
        file.write_text(json.dumps(figures, indent=1) + "\n")
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror}; give --json another path.") from error


def main():
    try:
        compare(parse(sys.argv[1:]))
    except UserError as error:
        print(f"compare_peers: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
