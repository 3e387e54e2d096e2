"""The weights and inputs behind the golden files: each array follows from its name and shape, so none is stored.

numpy's legacy `RandomState` gives the same stream in every version of numpy; its seed is the CRC-32 of the name.
"""

import math
import zlib

import numpy as np


def array(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the standard-normal float32 input `name` (pictures are tanh of it)."""
    stream = np.random.RandomState(zlib.crc32(name.encode()))
    return stream.standard_normal(math.prod(shape)).astype(np.float32).reshape(shape)


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the state-dict entry `name`, scaled so that activations stay of order one in deep networks.

    Matrices and kernels: normal / sqrt(fan in). Variances: 1 + 0.1 |normal|. Biases and means: 0.1 normal.
    Counters: 0. All other vectors (scales, gates): 1 + 0.1 normal.
    """
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    normal = array(name, shape)
    if len(shape) > 1:
        return normal / np.float32(math.sqrt(math.prod(shape[1:])))
    if name.endswith("running_var"):
        return 1 + 0.1 * np.abs(normal)
    offset = 0 if name.endswith(("bias", "running_mean")) else 1
    return offset + 0.1 * normal
