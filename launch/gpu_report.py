#!/usr/bin/env python3
"""Makes the report of launch/gpu_check.sh from its records, as far as they go; where there is no figure it says *not
measured*. All figures go beside it as JSON.

    launch/gpu_report.py RECORDS REPORT.md"""
import json
import pathlib
import sys

STEPS = {"packages": "Packages", "device": "Device", "build": "Build", "tests": "Tests (`ctest -L gpu`)",
         "sanitizers": "Sanitizers", "losses": "Losses, GPU beside CPU", "axis": "Persistent time loop, two GPUs beside one",
         "shared": "Two ranks on one GPU, NCCL beside the host's memory", "layer": "A layer (`benchmark layer`)",
         "train": "Training (`benchmark train`)", "peers": "Peers"}
NONE = "*not measured*"
LAYER_SHAPES = [(hidden, batch) for hidden in (768, 1024, 2048) for batch in (16, 32, 64, 512)]
CONTENDERS = ["lamina", "graph", "eager", "compile-step-graph", "compile-step", "jax-scan", "nn-lstm:f32", "nn-lstm:f16",
              "nn-lstm:bf16"]


def table(columns, rows):
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join(lines + ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows])


def spread(times):
    return f"{times['median']:.2f} [{times['min']:.2f} - {times['max']:.2f}]"


class Records:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)

    def lines(self, *path):
        file = self.folder.joinpath(*path)
        return file.read_text(errors="replace").splitlines() if file.exists() else []

    def figures(self, name):
        """Of a JSON file; none where it is not there, or half written."""
        try:
            return json.loads((self.folder / "figures" / f"{name}.json").read_text())
        except (OSError, ValueError):
            return None

    def state(self, step):
        """Of a step: done, failed or skipped, seconds, and the reason; none where it was not begun."""
        lines = self.lines("steps", step)
        return (lines[0].split("\t") + ["", ""])[:3] if lines else None


def overview(records):
    rows = [[name, *(records.state(step) or [NONE, "", ""])] for step, name in STEPS.items()]
    return table(["step", "result", "seconds", "remark"], rows)


def facts(records):
    rows = [line.split("\t", 1) for line in records.lines("facts")]
    return table(["", ""], rows or [[name, NONE] for name in ("Lamina", "System", "CPU", "GPU", "nvcc", "PyTorch")])


def sanitizers(records):
    rows = [line.split("\t", 2) for line in records.lines("figures", "sanitizers")]
    return table(["tool", "program", "result"],
                 rows or [[tool, "all", NONE] for tool in ("memcheck", "racecheck", "synccheck")])


def losses(records):
    columns = ["step", "loss on the CPU", "loss on the GPU", "relative difference"]
    found = records.figures("losses")
    if not found:
        return table(columns, [["all", NONE, NONE, NONE]])
    rows = [[row["step"], f"{row['first']:.6f}", f"{row['second']:.6f}", f"{row['difference']:.1e}"]
            for row in found["rows"]]
    return (f"{table(columns, rows)}\n\nFirst difference {found['first_difference']:.1e} of {found['first_tolerance']:.0e} "
            f"allowed, largest {found['largest_difference']:.1e} of {found['tolerance']:.0e} allowed: they "
            f"{'agree' if found['agree'] else '**do not agree**'}.")


def layer_row(records, hidden, batch):
    found = records.figures(f"layer-{hidden}-{batch}")
    if not found:
        return [f"{hidden}, {batch}"] + [NONE] * 6
    rows = {row["pass"]: row for row in found["rows"]}
    both = rows["both"]
    return [f"{hidden}, {batch}", *(f"{rows[name]['microseconds_per_step']:.1f}" for name in ("forward", "backward", "both")),
            spread(both["milliseconds"]), f"{both['gemm_gflops_per_second'] / 1e3:.2f}", f"{both['gemm_share']:.3f}"]


def layer(records):
    return "LN-LSTM, 512 time steps, f32, inputs = units.\n\n" + table(
        ["units, lanes", "forward, us/step", "backward", "both", "both, ms [min - max]", "products alone, TF/s",
         "share of products"], [layer_row(records, *shape) for shape in LAYER_SHAPES])


def train_row(records, hidden):
    found = records.figures(f"train-{hidden}")
    if not found:
        return [hidden] + [NONE] * 3
    row = found["rows"][0]
    return [hidden, f"{row['tokens_per_second']:,.0f}", spread(row["milliseconds"]), f"{row['gemm_limit_share']:.3f}"]


def train(records):
    return "Batch 32, 64 time steps, embedding 128.\n\n" + table(
        ["units", "tokens/s", "ms a step [min - max]", "share of products"],
        [train_row(records, hidden) for hidden in (512, 1024, 2048)])


def peer_row(row):
    shape = [row["contender"], f"{row['hidden']}, {row['batch']}, {row['steps']}"]
    if "reason" in row:
        return [*shape, f"{NONE}: {row['reason']}", "", "", ""]
    return [*shape, spread(row["milliseconds"]), f"{row['microseconds_per_step']:.1f}", f"{row['forward_milliseconds']:.2f}",
            f"{row['ratio']:.2f}" if row["ratio"] else ""]


def check_row(form, checks):
    check = checks.get(form)
    if not check:
        return [form, NONE, "", ""]
    if "error" in check:
        return [form, f"{NONE}: {check['error']}", "", ""]
    return [form, "yes" if check["agrees"] else "**no**", f"{check['deviation']:.1e} ({check['worst']})",
            f"{check['tolerance']:.0e}"]


def kernels(rows):
    """What cuDNN ran, of each shape and type."""
    return [[row["contender"], f"{row['hidden']}, {row['batch']}, {row['steps']}",
             "; ".join(f"`{name}` {share:.0%}" for name, share in row["kernels"])] for row in rows if row.get("kernels")]


def peers(records):
    found = records.figures("peers") or {"checks": {}, "rows": []}
    rows = [peer_row(row) for row in found["rows"]] or [[name, "all"] + [NONE] * 4 for name in CONTENDERS]
    return "\n\n".join([
        "The same numbers as Lamina's, from the same weights, in one training step (of the largest magnitude):",
        table(["form", "agrees", "largest difference", "allowed"],
              [check_row(form, found["checks"]) for form in ("eager", "compile-step", "jax-scan")]),
        "Forward and backward of a layer, in turns; ratio: of the median to Lamina's.",
        table(["contender", "units, batch, steps", "ms [min - max]", "us/step", "forward, ms", "ratio"], rows),
        "Kernels of nn.LSTM with most of the time; `persist` in a name tells cuDNN's persistent algorithms:",
        table(["contender", "units, batch, steps", "kernels"], kernels(found["rows"]) or [["nn-lstm", "all", NONE]])])


SECTIONS = {"device": facts, "sanitizers": sanitizers, "losses": losses, "layer": layer, "train": train, "peers": peers}


def tail_of_log(records, step):
    lines = [line[:200].replace("```", "...") for line in records.lines("logs", step) if line.strip()]
    return "\n".join(lines[-25:])


def section(records, step):
    parts = [f"## {STEPS[step]}"]
    commands = records.lines("commands", step)
    if commands:
        parts.append("```sh\n" + "\n".join(commands[:40]) + ("\n…" if len(commands) > 40 else "") + "\n```")
    if step in SECTIONS:
        parts.append(SECTIONS[step](records))
    state = records.state(step)
    if state and state[0] == "failed" and tail_of_log(records, step):
        parts.append(f"The end of its output:\n\n```\n{tail_of_log(records, step)}\n```")
    if state is None and step not in SECTIONS:
        parts.append(NONE)
    return "\n\n".join(parts)


def report(records):
    return "\n\n".join(["# Lamina on a GPU", overview(records), *(section(records, step) for step in STEPS)]) + "\n"


def all_figures(records):
    found = {file.stem: records.figures(file.stem) for file in sorted((records.folder / "figures").glob("*.json"))}
    return {"facts": dict(line.split("\t", 1) for line in records.lines("facts")),
            "steps": {step: records.state(step) for step in STEPS}, **found}


def write(file, text):
    """As a whole or not at all: the script may be ended at any time."""
    partial = file.with_name(file.name + ".partial")
    partial.write_text(text)
    partial.replace(file)


def main(folder, file):
    records, file = Records(folder), pathlib.Path(file)
    write(file, report(records))
    write(file.with_suffix(".json"), json.dumps(all_figures(records), indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
