# ctest: labels=hygiene timeout=60
"""Shell scripts parse, stop at the first failure, explain themselves, and refuse what they do not know."""
import os
import pathlib
import subprocess
import tempfile
import unittest

from repository import ROOT, Example


def scripts(root):
    return sorted([*root.glob("launch/**/*.sh"), *root.glob("launch/**/*.sbatch"), *root.glob("tests/**/*.sh"),
                   *root.glob(".ci/run")])


def complaints(root):
    found = []
    for script in scripts(root):
        name, text = script.relative_to(root), script.read_text()
        parsed = subprocess.run(["bash", "-n", script], capture_output=True, text=True)
        if parsed.returncode:
            found.append(f"{name} does not parse: {parsed.stderr}")
        if not text.startswith("#!/usr/bin/env bash\n"):
            found.append(f"{name} does not begin with #!/usr/bin/env bash")
        if "set -euo pipefail\n" not in text:
            found.append(f"{name} does not stop at failures: set -euo pipefail")
        if not os.access(script, os.X_OK):
            found.append(f"{name} is not executable")
    return found


def run(script, *arguments):
    return subprocess.run([ROOT / script, *arguments], capture_output=True, text=True, cwd="/")


class Scripts(unittest.TestCase):
    def test_ours_are_sound(self):
        self.assertIn(ROOT / "launch" / "quickstart.sh", scripts(ROOT))
        self.assertEqual([], complaints(ROOT))

    def test_unsound_ones_are_seen(self):
        with Example({"launch/a.sh": "if true; then\n"}) as root:
            (root / "launch" / "a.sh").chmod(0o644)
            self.assertEqual(4, len(complaints(root)), complaints(root))

    def test_help_is_given(self):
        for script in ("launch/quickstart.sh", "launch/test.sh", "launch/compare_peers.py", "launch/compare_gpu_peers.py",
                       "launch/compare_losses.py", "launch/gpu_check.sh", "launch/gpu_packages.sh"):
            result = run(script, "--help")
            self.assertEqual(0, result.returncode, result.stderr)
            self.assertIn(script, result.stdout)

    def test_unknown_arguments_are_refused(self):
        for arguments in (["launch/quickstart.sh", "--shrt"], ["launch/quickstart.sh", "--ranks", "3"],
                          ["launch/quickstart.sh", "--folder"], ["launch/test.sh", "--preset", "fast"],
                          ["launch/packages.sh", "everything"], ["launch/gpu_packages.sh", "fetch", "x"],
                          ["launch/gpu_packages.sh", "unpack", "x"], ["launch/gpu_check.sh", "--only", "tea"], ["launch/plot_loss.sh", "one"]):
            result = run(*arguments)
            self.assertEqual(2, result.returncode, arguments)
            self.assertEqual(1, len(result.stderr.splitlines()), result.stderr)

    def test_metrics_without_training_are_refused(self):
        with tempfile.TemporaryDirectory() as folder:
            empty = pathlib.Path(folder, "metrics.jsonl")
            empty.write_text("")
            result = run("launch/plot_loss.sh", empty, f"{folder}/loss.png")
            self.assertEqual(1, result.returncode)
            self.assertIn("holds no record of training", result.stderr)


if __name__ == "__main__":
    unittest.main()
