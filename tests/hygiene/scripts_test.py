# ctest: labels=hygiene timeout=60
"""Shell scripts parse, stop at the first failure, explain themselves, and refuse what they do not know."""
import os
import pathlib
import shutil
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


def run(script, *arguments, **environment):
    return subprocess.run([ROOT / script, *arguments], capture_output=True, text=True, cwd="/",
                          env={**os.environ, **environment})


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
                          ["launch/gpu_packages.sh", "unpack", "x"], ["launch/gpu_check.sh", "--only", "tea"], ["launch/plot_loss.sh", "one"],
                          ["launch/plot_loss.sh", __file__, "x.png", "title", "print 1"]):
            result = run(*arguments)
            self.assertEqual(2, result.returncode, arguments)
            self.assertEqual(1, len(result.stderr.splitlines()), result.stderr)

    def test_metrics_without_training_are_refused(self):
        with tempfile.TemporaryDirectory() as folder:
            empty = pathlib.Path(folder, "metrics.jsonl")
            for text in "", '{"step": 1, "bits_per_character": null}\n{"step": 2, "bits_per_character": -}\n':
                empty.write_text(text)
                self.assert_refused(run("launch/plot_loss.sh", empty, f"{folder}/loss.png"), "holds no record of training")

    def test_a_curve_that_cannot_be_drawn_is_refused(self):
        with tempfile.TemporaryDirectory() as folder:
            metrics = pathlib.Path(folder, "metrics.jsonl")
            metrics.write_text('{"step": 1, "bits_per_character": 4.5}\n{"bits_per_character": 2e0, "step": 10}\n')
            tools = pathlib.Path(folder, "tools")
            tools.mkdir()
            for name in ("bash", "env", "mktemp", "rm", "sed", "dirname"):
                (tools / name).symlink_to(shutil.which(name))
            self.assert_refused(run("launch/plot_loss.sh", metrics, f"{folder}/loss.png", PATH=str(tools)),
                                "gnuplot is not installed")
            if shutil.which("gnuplot"):
                self.assert_refused(run("launch/plot_loss.sh", metrics, f"{folder}/none/loss.png"), "cannot be written")
                drawn = run("launch/plot_loss.sh", metrics, f"{folder}/loss.png", "it's a title", "1")
                self.assertEqual((0, ""), (drawn.returncode, drawn.stderr))

    def assert_refused(self, result, words):
        self.assertEqual((1, 1), (result.returncode, len(result.stderr.splitlines())), result.stderr)
        self.assertIn(words, result.stderr)


if __name__ == "__main__":
    unittest.main()
