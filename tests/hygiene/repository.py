"""What the hygiene tests share: the repository's files, and a place for wrong examples."""
import pathlib
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDERS = ("runtime", "model", "kernels", "io", "launch")
SUFFIXES = {".h", ".cpp", ".cu", ".cuh"}


def sources(root, folders=FOLDERS):
    """All C++ and CUDA files of the folders, in order of path."""
    return sorted(file for folder in folders for file in (root / folder).rglob("*") if file.suffix in SUFFIXES)


class Example:
    """A temporary repository of the given files: `with Example({"io/a.h": "…"}) as root`."""

    def __init__(self, files):
        self.files = files
        self.folder = tempfile.TemporaryDirectory()

    def __enter__(self):
        root = pathlib.Path(self.folder.name)
        for path, text in self.files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        return root

    def __exit__(self, *_):
        self.folder.cleanup()
