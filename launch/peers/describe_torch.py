"""What the PyTorch beside this is made of, as a line of JSON."""
import json
import pathlib
import re
import sysconfig

import numpy
import torch


def found(pattern, text):
    match = re.search(pattern, text)
    return match[0] if match else "none"


configuration, parallel = torch.__config__.show(), torch.__config__.parallel_info()
print(json.dumps({
    "torch": torch.__version__,
    "numpy": numpy.__version__,
    "capability": torch.backends.cpu.get_cpu_capability(),
    "blas": "; ".join([found(r"Intel\(R\) oneAPI Math Kernel Library Version [\d.]+|USE_MKL=\w+", configuration),
                       found(r"Intel\(R\) MKL-DNN v[\d.]+", configuration)]),
    "parallel": "; ".join([found(r"ATen parallel backend: \S+", parallel), found(r"OpenMP \d+[^\n]*", configuration)]),
    "configuration": configuration,
    "python_header": str(pathlib.Path(sysconfig.get_path("include"), "Python.h")),
}))
