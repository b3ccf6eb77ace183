#!/usr/bin/env python3
"""Compares the losses of two runs that should have learned alike, as one on a CPU and one on a GPU.

    launch/compare_losses.py FIRST.jsonl SECOND.jsonl     files of 'lamina train --metrics'

The first recorded loss, before rounding could add up, may differ by --first-tolerance; every later one by --tolerance.
Both are parts of the loss. Exit codes: 0 they agree, 1 they do not, 2 they cannot be compared."""
import argparse
import json
import math
import pathlib
import sys


class CannotCompare(Exception):
    """One sentence for who started this."""


def losses(file):
    """{step: training loss}; of a step that was recorded twice, after resuming, the last."""
    try:
        records = [json.loads(line) for line in pathlib.Path(file).read_text().splitlines() if line.strip()]
        found = {record["step"]: record["loss"] for record in records if "loss" in record and "step" in record}
    except (OSError, ValueError, TypeError) as error:
        raise CannotCompare(f"{file} cannot be read: {error}") from error
    if not found:
        raise CannotCompare(f"{file} holds no record of training")
    return found


def difference(first, second):
    """Relative to the first; infinite where one is no number."""
    if first is None or second is None or not (math.isfinite(first) and math.isfinite(second)):
        return math.inf
    return abs(second - first) / max(abs(first), 1e-30)


def compare(first, second, first_tolerance, tolerance):
    steps = sorted(first.keys() & second.keys())
    if not steps:
        raise CannotCompare("the runs have no recorded step in common")
    differences = {step: difference(first[step], second[step]) for step in steps}
    worst = max(steps, key=differences.get)
    agree = differences[steps[0]] <= first_tolerance and differences[worst] <= tolerance
    return {"agree": agree, "first_difference": differences[steps[0]], "first_tolerance": first_tolerance,
            "largest_difference": differences[worst], "at_step": worst, "tolerance": tolerance,
            "rows": [{"step": step, "first": first[step], "second": second[step], "difference": differences[step]}
                     for step in steps]}


def table_of(result):
    lines = [f"{'step':>8}{'first':>12}{'second':>12}{'difference':>12}"]
    lines += [f"{row['step']:8}{row['first']:12.6f}{row['second']:12.6f}{row['difference']:12.1e}" for row in result["rows"]]
    lines.append(f"first difference {result['first_difference']:.1e} of {result['first_tolerance']:.0e} allowed, largest "
                 f"{result['largest_difference']:.1e} of {result['tolerance']:.0e} allowed, at step {result['at_step']}: "
                 + ("they agree" if result["agree"] else "they do not agree"))
    return "\n".join(lines)


def main(arguments):
    parser = argparse.ArgumentParser(prog="launch/compare_losses.py", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("first")
    parser.add_argument("second")
    parser.add_argument("--first-tolerance", type=float, default=1e-4, metavar="X", help="(default: 1e-4)")
    parser.add_argument("--tolerance", type=float, default=1e-2, metavar="X", help="(default: 1e-2)")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="also write the figures to this file")
    settings = parser.parse_args(arguments)
    try:
        result = compare(losses(settings.first), losses(settings.second), settings.first_tolerance, settings.tolerance)
    except CannotCompare as reason:
        print(f"compare_losses.py: {reason}.", file=sys.stderr)
        return 2
    print(table_of(result))
    if settings.json:
        settings.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if result["agree"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
