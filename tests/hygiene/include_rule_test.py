# ctest: labels=hygiene timeout=60
"""Every folder knows runtime/; only launch/ knows every folder; a folder's sub-folders are private to it; and a
wrapped library is named only where it is wrapped."""
import re
import unittest

from repository import FOLDERS, ROOT, Example, sources

KNOWS = {folder: {"runtime", folder} for folder in FOLDERS} | {"launch": set(FOLDERS)}

# Headers of libraries, and the only places that may include them. Wrapped: not in a folder's public headers.
LIBRARIES = [
    ("MPI", r"mpi(-ext)?\.h", ("runtime/communicators/", "io/"), "wrapped"),
    ("HDF5", r"(hdf5|H5\w+)\.h", ("io/",), "wrapped"),
    ("xxHash", r"xxh\w+\.h", ("io/",), "wrapped"),
    ("zlib", r"zlib\.h", ("io/",), "wrapped"),
    ("oneDNN", r"(oneapi/dnnl/.*|dnnl[\w.]*)", ("kernels/cpu/", "launch/peers/"), "wrapped"),
    ("Highway", r"hwy/.*", ("kernels/cpu/",), "wrapped"),
    ("OpenMP", r"omp\.h", ("kernels/cpu/",), "wrapped"),
    ("CUDA", r"(cuda\w*|cub|cooperative_groups|cublas\w*|nvtx\w*|nvToolsExt)(/.*|\.h|\.cuh)",
     ("kernels/cuda/", "runtime/communicators/"), "wrapped"),
    ("NCCL", r"nccl\w*\.h", ("kernels/cuda/",), "wrapped"),
    ("CLI11", r"CLI/.*", ("launch/",), "open"),
    ("nlohmann-json", r"nlohmann/.*", ("io/", "launch/"), "open"),
    ("GoogleTest", r"(gtest|gmock)/.*", (), "open"),
]


def library_of(header):
    return next((library for library in LIBRARIES if re.fullmatch(library[1], header)), None)


def is_public_header(path):
    return path.suffix in {".h", ".cuh"} and len(path.parts) == 2


def complaint(path, header, quoted):
    """What is wrong with a file's include, or None."""
    folder, library = path.parts[0], library_of(header)
    if library:
        name, _, places, openness = library
        if not path.as_posix().startswith(places or ("nowhere",)):
            return f"{name} belongs in {' or '.join(places) or 'tests/'}"
        if openness == "wrapped" and is_public_header(path):
            return f"{name} may not show in a public header"
        return None
    if not quoted:
        return None
    other, _, rest = header.partition("/")
    if other not in FOLDERS:
        return "a file of ours is included by its path from the root"
    if other not in KNOWS[folder]:
        return f"{folder}/ may not know {other}/"
    if "/" in rest and other != folder:
        return f"{header} is private to {other}/"
    return None


def violations(root):
    found = []
    for file in sources(root):
        path = file.relative_to(root)
        for number, line in enumerate(file.read_text().splitlines(), 1):
            include = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
            wrong = include and complaint(path, include[2], include[1] == '"')
            if wrong:
                found.append(f"{path}:{number}: {include[2]}: {wrong}")
    return found


class IncludeRule(unittest.TestCase):
    def test_sources_keep_it(self):
        wrong = violations(ROOT)
        if wrong:
            self.fail("\n".join(wrong))

    def refuses(self, path, line, reason):
        files = {"runtime/a.h": "", "model/a.h": "", "kernels/cpu/a.h": "", "kernels/a.h": "", path: line + "\n"}
        with Example(files) as root:
            found = violations(root)
        self.assertEqual(1, len(found), f"{path} with {line}: {found}")
        self.assertIn(reason, found[0])

    def test_folders_know_only_runtime(self):
        self.refuses("runtime/b.h", '#include "model/a.h"', "runtime/ may not know model/")
        self.refuses("model/b.cpp", '#include "kernels/a.h"', "model/ may not know kernels/")
        self.refuses("io/b.cpp", '#  include "model/a.h"', "io/ may not know model/")

    def test_sub_folders_are_private(self):
        self.refuses("launch/b.cpp", '#include "kernels/cpu/a.h"', "private to kernels/")

    def test_paths_begin_at_the_root(self):
        self.refuses("model/b.cpp", '#include "a.h"', "by its path from the root")
        self.refuses("kernels/cpu/b.cpp", '#include "../a.h"', "by its path from the root")

    def test_libraries_stay_where_they_are_wrapped(self):
        self.refuses("runtime/b.cpp", "#include <mpi.h>", "MPI belongs in")
        self.refuses("launch/b.cpp", "#include <hdf5.h>", "HDF5 belongs in")
        self.refuses("kernels/b.cpp", '#include "oneapi/dnnl/dnnl.hpp"', "oneDNN belongs in")
        self.refuses("model/b.cpp", '#include "hwy/highway.h"', "Highway belongs in")
        self.refuses("runtime/b.cpp", "#include <cuda_runtime.h>", "CUDA belongs in")
        self.refuses("runtime/b.cpp", "#include <nccl.h>", "NCCL belongs in")
        self.refuses("io/b.cpp", "#include <CLI/CLI.hpp>", "CLI11 belongs in")
        self.refuses("io/b.cpp", "#include <gtest/gtest.h>", "GoogleTest belongs in tests/")

    def test_public_headers_hide_them(self):
        self.refuses("io/b.h", "#include <hdf5.h>", "may not show in a public header")

    def test_what_is_allowed(self):
        with Example({"runtime/a.h": "#include <vector>\n", "kernels/cpu/a.h": "#include <dnnl.h>\n",
                      "kernels/b.cpp": '#include "kernels/cpu/a.h"\n', "kernels/a.h": '#include "runtime/a.h"\n',
                      "runtime/communicators/mpi.cpp": "#include <mpi.h>\n",
                      "launch/a.cpp": '#include "kernels/a.h"\n#include <CLI/CLI.hpp>\n'}) as root:
            self.assertEqual([], violations(root))


if __name__ == "__main__":
    unittest.main()
