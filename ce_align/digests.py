"""Content digests: what a cache key or a row trusts instead of a name."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    *("combine_digests", "digest_array", "digest_blocks", "digest_bytes"),
    "digest_json",
]

#: Hexadecimal characters kept of SHA-256: 80 bits, beyond accidental collision.
LENGTH = 20


def digest_bytes(*chunks: bytes | memoryview) -> str:
    """Digest of the concatenated chunks."""
    sha = hashlib.sha256()
    for chunk in chunks:
        sha.update(chunk)
    return sha.hexdigest()[:LENGTH]


def digest_json(value: Any) -> str:
    """Digest of a JSON-serialisable value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return digest_bytes(text.encode())


def digest_array(array: NDArray[Any]) -> str:
    """Digest of an array's type, shape and values (any memory layout)."""
    return digest_blocks(array.dtype, array.shape, [array])


def digest_blocks(
    dtype: np.dtype[Any], shape: tuple[int, ...], blocks: Iterable[NDArray[Any]]
) -> str:
    """`digest_array` of what blocks are along the first axis, of which one is held."""
    sha = hashlib.sha256(f"{dtype.str}{shape}".encode())
    for block in blocks:
        contiguous = np.ascontiguousarray(block, dtype=dtype)
        sha.update(contiguous.reshape(-1).view(np.uint8).data)
    return sha.hexdigest()[:LENGTH]


def combine_digests(*digests: str) -> str:
    """Digest of several digests, in their order."""
    return digest_bytes("/".join(digests).encode())
