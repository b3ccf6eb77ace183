"""Reads the sample checkpoint as io/README.md tells, by running the README's own examples.

check_with_h5py.py README.md sample.h5
"""

import ctypes
import pathlib
import re
import struct
import sys
import types

try:
    import h5py
except ImportError:
    print("SKIPPED-ALL: this Python has no h5py")
    sys.exit(0)



class Hash(ctypes.Structure):
    _fields_ = [("low", ctypes.c_uint64), ("high", ctypes.c_uint64)]


def xxh3_128_digest(data):
    library = ctypes.CDLL("libxxhash.so.0")
    library.XXH3_128bits.restype = Hash
    library.XXH3_128bits.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
    result = library.XXH3_128bits(data, len(data))
    return struct.pack(">QQ", result.high, result.low)


try:
    import xxhash
except ImportError:  # the example's package is rarely there, the C library always
    xxhash = types.ModuleType("xxhash")
    xxhash.xxh3_128_digest = xxh3_128_digest
    xxhash.xxh3_128_hexdigest = lambda data: xxh3_128_digest(data).hex()
    sys.modules["xxhash"] = xxhash

readme, path = pathlib.Path(sys.argv[1]).read_text(), sys.argv[2]
reading, checking = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)

V, E, H, B, UNIT_BLOCKS, LANE_GROUPS = 9, 8, 8, 8, 4, 4
PARAMETERS = {
    "embedding/table": (V, E), "lstm0/W_x": (4 * H, E), "lstm0/W_h": (4 * H, H), "lstm0/gain_x": (4 * H,),
    "lstm0/gain_h": (4 * H,), "lstm0/bias": (4 * H,), "lstm0/gain_c": (H,), "lstm0/bias_c": (H,),
    "output/W": (V, H), "output/bias": (V,)}
EXPECTED = {f"{place}/{name}": shape for name, shape in PARAMETERS.items()
            for place in ("parameters", "optimizer/first_moment", "optimizer/second_moment")}
EXPECTED |= {"state/lstm0/h": (B, H), "state/lstm0/c": (B, H)}

with h5py.File(path, "r") as file:
    found = {}
    file.visititems(lambda name, item: found.update({name: item}) if isinstance(item, h5py.Dataset) else None)
    digests = {name.removeprefix("digests/"): item for name, item in found.items() if name.startswith("digests/")}
    tensors = {name: item for name, item in found.items() if not name.startswith("digests/")}
    vocabulary = tensors.pop("vocabulary")

    assert {name: item.shape for name, item in tensors.items()} == EXPECTED
    for name, item in tensors.items():
        assert item.dtype.str == "<f4" and item.chunks is None and item.compression is None, name
        assert digests[name].shape == (LANE_GROUPS if name.startswith("state") else 1, UNIT_BLOCKS, 16), name
        assert digests[name].dtype.str == "|u1", name
    assert digests.keys() == tensors.keys()
    assert vocabulary.dtype.str == "<u4" and "".join(map(chr, vocabulary[:])) == "\n abcd\u00e9\u20ac\U0001F600"

    attributes = dict(file.attrs)
    assert len(attributes.pop("root_digest")) == 32
    assert attributes.pop("configuration").decode() == 'hidden = 8\ndata = "na\u00efve.txt"\n'
    assert attributes.pop("build").decode() == "lamina 0.1.0"
    assert attributes.pop("text_digest").decode() == "00112233445566778899aabbccddeeff"
    loss = attributes.pop("validation_loss")
    assert loss == 1.25 and loss.dtype.str == "<f8"
    assert attributes == {"format_version": 2, "step": 1200, "seed": 0xFEDCBA9876543210, "lane_groups": LANE_GROUPS,
                          "unit_blocks": UNIT_BLOCKS, "batch": B, "epoch": 3, "chunk": 17}

    # Numbers follow from their place: tensor * 4096 + index + 0.25, the first three tensors in this order.
    for tensor, name in enumerate(("embedding/table", "lstm0/W_x", "lstm0/W_h")):
        numbers = file["parameters/" + name][:].ravel()
        assert all(numbers[i] == tensor * 4096 + i + 0.25 for i in range(numbers.size)), name

example = {"path": path}
exec(reading, example)
assert example["forget"].shape == example["candidate"].shape == (H, H)
assert example["into"][0, 0] == 2 * 4096 + H * H + 0.25
assert example["vector"][0] == 0 * 4096 + 2 * E + 0.25

example = {}
exec(checking, example)
example["check"](path)
print("as specified")
