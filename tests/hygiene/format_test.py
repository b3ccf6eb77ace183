# ctest: labels=hygiene timeout=120
"""Sources look as clang-format 14 (Debian 12) makes them; other versions differ in details and are not asked."""
import re
import shutil
import subprocess
import sys
import unittest

from repository import FOLDERS, ROOT, Example, sources

WANTED = 14


def clang_format():
    """The formatter of the wanted version, or None."""
    for name in (f"clang-format-{WANTED}", "clang-format"):
        program = shutil.which(name)
        if program:
            said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
            if re.search(rf"version {WANTED}\.", said):
                return program
    return None


def misformatted(root):
    """The files that the formatter would change, with the first place in each."""
    style = f"--style=file:{ROOT / '.clang-format'}"
    result = subprocess.run([clang_format(), style, "--dry-run", "-Werror", *sources(root, (*FOLDERS, "tests"))],
                            capture_output=True, text=True)
    places = re.findall(r"^(.+?):(\d+):\d+: error:", result.stderr, re.M)
    first = {file: line for file, line in reversed(places)}
    return [f"{file}:{line}" for file, line in first.items()] or ([result.stderr] if result.returncode else [])


class Format(unittest.TestCase):
    def test_sources_are_formatted(self):
        wrong = misformatted(ROOT)
        if wrong:
            self.fail("\n".join(["run clang-format -i on these:", *wrong]))

    def test_wrong_format_is_seen(self):
        with Example({"model/a.cpp": "int  a( ) {return 1;}\n", "model/b.cpp": "int b();\n"}) as root:
            wrong = misformatted(root)
        self.assertEqual([str(root / "model/a.cpp:1")], wrong)


if __name__ == "__main__":
    if clang_format() is None:
        print(f"SKIPPED-ALL: clang-format {WANTED} is not installed")
        sys.exit(0)
    unittest.main()
