# ctest: labels=hygiene timeout=240
"""Every header compiles alone, twice in one file, with the flags of the sources around it. Where a source begins with its
own header the build has shown that already."""
import concurrent.futures
import json
import os
import pathlib
import re
import shlex
import subprocess
import unittest

from repository import FOLDERS, ROOT, Example, sources

BUILD = pathlib.Path(os.environ.get("LAMINA_BUILD", ROOT / "build" / "dev"))
# Compiled once per instruction set, from a macro that only the file including them sets.
PER_TARGET = re.compile(r"-inl\.h$")


FIRST_INCLUDE = re.compile(r"^#include +(.*)$", re.MULTILINE)


def compilations(build):
    """Source and words of its command, of everything that the build compiles."""
    return [(pathlib.Path(entry["file"]), shlex.split(entry["command"]))
            for entry in json.loads((build / "compile_commands.json").read_text())]


def commands_by_folder(compiled):
    """Compiler and flags of one source of each folder, without its input and output."""
    commands = {}
    for source, words in compiled:
        if any(word.endswith("nvcc") for word in words[:2]):
            continue  # headers compile as C++
        kept, skip = [], False
        for word in words:
            if skip or word in ("-c", str(source)):
                skip = False
            elif word in ("-o", "-MF", "-MT"):
                skip = True
            elif word not in ("-MD", "-MMD"):
                kept.append(word)
        commands.setdefault(source.parent, kept)
    return commands


def shown_by_the_build(compiled):
    """Headers that guard themselves and come before all else in their own source."""
    def is_shown(header, source):
        first = FIRST_INCLUDE.search(source.read_text())
        return (header.exists() and "#pragma once" in header.read_text().splitlines() and first is not None
                and first[1] == f'"{header.relative_to(ROOT).as_posix()}"')

    return {source.with_suffix(".h") for source, _ in compiled
            if source.is_relative_to(ROOT) and is_shown(source.with_suffix(".h"), source)}


def command_for(header, commands):
    """Of the nearest folder with sources: its own, else one of the same top folder."""
    place = header.parent
    while place != ROOT:
        inside = [folder for folder in sorted(commands) if folder == place or place in folder.parents]
        if inside:
            return commands[inside[0]]
        place = place.parent
    raise LookupError(f"no source is compiled in the folder of {header}")


def complaint(header, root, command):
    """What the compiler says about a file that holds nothing but the header, or None."""
    line = f'#include "{header.relative_to(root).as_posix()}"\n'
    result = subprocess.run([*command, "-O0", f"-I{root}", "-fsyntax-only", "-x", "c++", "-"], input=line + line,
                            capture_output=True, text=True, cwd=root)
    return f"{header.relative_to(root)}:\n{result.stderr}" if result.returncode else None


def complaints(headers, root, commands):
    def ask(header):
        return complaint(header, root, command_for(ROOT / header.relative_to(root), commands))

    workers = min(4, len(os.sched_getaffinity(0)))
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        return [said for said in pool.map(ask, headers) if said]


class Headers(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        compiled = compilations(BUILD)
        cls.commands, cls.shown = commands_by_folder(compiled), shown_by_the_build(compiled)

    def test_each_compiles_alone(self):
        headers = [file for file in sources(ROOT, (*FOLDERS, "tests"))
                   if file.suffix == ".h" and not PER_TARGET.search(file.name)]
        self.assertTrue(headers)
        self.assertIn(ROOT / "runtime" / "error.h", self.shown)
        self.assertNotIn(ROOT / "runtime" / "backend.h", self.shown)  # it has no source
        headers = [file for file in headers if file not in self.shown]
        wrong = complaints(headers, ROOT, self.commands)
        if wrong:
            self.fail("\n".join(wrong))

    def test_wrong_headers_are_seen(self):
        with Example({"runtime/needs_vector.h": "#pragma once\ninline std::vector<int> a;\n",
                      "runtime/no_guard.h": "struct A {};\n",
                      "runtime/good.h": "#pragma once\n#include <vector>\ninline std::vector<int> a;\n"}) as root:
            wrong = complaints(sources(root), root, self.commands)
        self.assertEqual(2, len(wrong), wrong)
        self.assertIn("needs_vector.h", wrong[0])
        self.assertIn("no_guard.h", wrong[1])


if __name__ == "__main__":
    unittest.main()
