# ctest: labels=hygiene timeout=60
"""What the documents say exists: flags, commands, files and links, and the exit codes."""
import functools
import os
import re
import subprocess
import unittest

from repository import FOLDERS, ROOT, Example

PROGRAM = os.environ.get("LAMINA_PROGRAM", str(ROOT / "build" / "dev" / "lamina"))
SCRIPTS = ("launch/quickstart.sh", "launch/test.sh", "launch/compare_peers.py", "launch/compare_gpu_peers.py",
           "launch/compare_losses.py", "launch/gpu_check.sh", "launch/gpu_packages.sh")
HISTORY = {"DECISIONS.md", "CHANGELOG.md"}  # may name what is no more
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")


def documents(root):
    return [file for file in sorted([*root.glob("*.md"), *(f for folder in (*FOLDERS, "tests")
                                                         for f in (root / folder).rglob("*.md"))])]


@functools.cache
def help_of(*command):
    result = subprocess.run([*command, "--help"], capture_output=True, text=True)
    return result.stdout if result.returncode == 0 else None


def flags_of(*command):
    return set(FLAG.findall(help_of(*command) or ""))


@functools.cache
def commands():
    """The program's commands as tuples of words: ("train",), ("checkpoint", "inspect"), …"""

    def below(words, depth):
        names = re.findall(r"^  ([a-z]+)\s", (help_of(PROGRAM, *words) or "").partition("ommands:")[2], re.M)
        return [words] + [c for name in names if depth for c in below((*words, name), depth - 1)]

    return [words for words in below((), 2) if words]


@functools.cache
def all_flags():
    asked = [(PROGRAM, *words) for words in [(), *commands()]] + [(str(ROOT / script),) for script in SCRIPTS]
    return set().union(*(flags_of(*command) for command in asked))


def code_of(text):
    """The commands and words set as code: lines of fenced blocks (joined at backslashes) and inline spans."""
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```", text, re.M | re.S)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    return lines + [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]


def wrong_flags(code):
    """Complaints about one piece of code."""
    found = []
    for call in (" ".join(part.split()) for part in re.split(r"\|\||&&|[|;]", code)):
        program = re.search(r"(?:^|[\s/])lamina ([a-z].*)", call)
        script = next((s for s in SCRIPTS if s in call), None)
        if program:
            known = [words for words in commands() if program[1].split()[:len(words)] == list(words)]
            if not known:
                found.append(f"`{call[:70]}`: no such command")
                continue
            allowed, given = flags_of(PROGRAM, *max(known, key=len)), program[1]
            if " -- train" in given:  # what the supervisor starts
                found += wrong_flags("lamina " + given.partition(" -- ")[2])
                given = given.partition(" -- ")[0]
        elif script:
            allowed, given = flags_of(str(ROOT / script)), call.partition(script)[2]
        elif call.startswith("--"):
            allowed, given = all_flags(), call
        else:
            continue
        found += [f"`{call[:70]}`: no flag {flag}" for flag in FLAG.findall(given) if flag not in allowed]
    return found


def slug(heading):
    """The anchor that GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", heading).strip().lower()).replace(" ", "-")


def anchors(file):
    return {slug(heading) for heading in re.findall(r"^#+ +(.+)$", file.read_text(), re.M)}


def wrong_links(file, root):
    found = []
    for target in re.findall(r"\]\(([^)\s]+)\)", file.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (file.parent / path).resolve() if path else file
        if not there.exists():
            found.append(f"{file.relative_to(root)}: the link to {target} leads nowhere")
        elif anchor and there.suffix == ".md" and anchor not in anchors(there):
            found.append(f"{file.relative_to(root)}: {target} has no such heading")
    return found


def wrong_paths(file, root):
    """Files of ours that are named as code and do not exist; names with a part `x` are placeholders."""
    named = [code for code in code_of(file.read_text())
             if re.fullmatch(rf"({'|'.join((*FOLDERS, 'tests'))})/[\w./-]*", code)]
    placeholder = re.compile(r"(^|[/_])x(_test)?(\.|/|$)")
    return [f"{file.relative_to(root)}: there is no {code}" for code in named
            if not placeholder.search(code) and not (root / code).exists()]


def undocumented_exit_codes(error_header, readme):
    codes = re.findall(r"^  \w+ = (\d+)", re.search(r"enum class ExitCode.*?\};", error_header, re.S)[0], re.M)
    return [code for code in codes if not re.search(rf"^\| *`?{code}`? *\|", readme, re.M)]


class Documentation(unittest.TestCase):
    def test_flags_exist(self):
        self.assertIn(("train",), commands(), f"{PROGRAM} --help lists no command")
        self.assertIn(("checkpoint", "verify"), commands())
        texts = [file for file in documents(ROOT) if file.name not in HISTORY]
        self.assertIn(ROOT / "README.md", texts)
        wrong = [f"{file.relative_to(ROOT)}: {said}" for file in texts for code in code_of(file.read_text())
                 for said in wrong_flags(code)]
        if wrong:
            self.fail("\n".join(wrong))

    def test_links_and_paths_exist(self):
        wrong = [said for file in documents(ROOT) for said in wrong_links(file, ROOT)]
        wrong += [said for file in documents(ROOT) if file.name not in HISTORY for said in wrong_paths(file, ROOT)]
        if wrong:
            self.fail("\n".join(wrong))

    def test_exit_codes_are_documented(self):
        header, readme = (ROOT / "runtime/error.h").read_text(), (ROOT / "README.md").read_text()
        self.assertEqual([], undocumented_exit_codes(header, readme))

    def test_wrong_flags_are_seen(self):
        for code in ("mpirun -n 4 build/release/lamina train --speed 9", "lamina evaluate --data F --lanes 3",
                     "lamina fly", "launch/quickstart.sh --long", "--no-such-flag 3", "cd x && lamina info --deep"):
            self.assertEqual(1, len(wrong_flags(code)), code)
        for code in ("mpirun -n 4 --bind-to none lamina train --hidden 8 | tee --append log", "launch/test.sh --quick",
                     "--lane-groups 8", "cmake --preset dev", "lamina checkpoint verify FILE"):
            self.assertEqual([], wrong_flags(code))

    def test_wrong_links_and_paths_are_seen(self):
        text = ("# One\n[a](b.md) [b](#one) [c](#two) [d](https://x.org/y) `--a\nb` `io/none.h` `io/x.cpp` `io/there.h`\n"
                "```\nio/nor_this.h\n```\n")
        with Example({"a.md": text, "io/there.h": ""}) as root:
            self.assertEqual(2, len(wrong_links(root / "a.md", root)))
            self.assertEqual(2, len(wrong_paths(root / "a.md", root)))

    def test_missing_exit_codes_are_seen(self):
        header = "enum class ExitCode : int {\n  done = 0,\n  internal_error = 1,\n};\n"
        self.assertEqual(["1"], undocumented_exit_codes(header, "| 0 | done |\nexit code 1\n"))


if __name__ == "__main__":
    unittest.main()
