"""Whether other implementations compute what Lamina computed in one training step, from the same weights: a line of
JSON for each; the exit code is 1 where they differ.

    check_numbers.py [--device cpu|cuda] LAMINA FOLDER FORM...      FORM: of torch_lstm.py, or jax-scan
"""
import argparse
import json
import sys

import recorded_step


def results_of(step, form, device):
    """What `step.results` has, by the form."""
    if form == "jax-scan":
        import jax_lstm
        return jax_lstm.results_of(step)
    import torch_results
    return torch_results.results_of(step, form, device)


def check(step, form, device):
    tolerance = recorded_step.TOLERANCES[device]
    found = recorded_step.deviations(results_of(step, form, device), step)
    worst = max(found, key=found.get)
    return {"form": form, "agrees": found[worst] <= tolerance, "worst": worst, "deviation": found[worst],
            "tolerance": tolerance, "results": len(found)}


def main(arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", choices=recorded_step.TOLERANCES, default="cpu")
    parser.add_argument("lamina")
    parser.add_argument("folder")
    parser.add_argument("forms", nargs="+")
    settings = parser.parse_args(arguments)
    try:
        step = recorded_step.record_step(settings.lamina, settings.folder, settings.device)
    except recorded_step.LaminaFailed as failure:
        sys.exit(f"{failure}")
    sound = True
    for form in settings.forms:
        try:
            found = check(step, form, settings.device)
        except (ImportError, RuntimeError) as error:  # the other forms may work
            print(f"{form}: {error}", file=sys.stderr)
            found = {"agrees": False}
        else:
            print(json.dumps(found), flush=True)
        sound = sound and found["agrees"]
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
