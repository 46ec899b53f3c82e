"""Philox4x32-10: random words that depend on a counter and a key, and on nothing else.

A site has key = (seed, site). Draw n of a site, element i, is word i % 4 of
philox(key, (i // 4, lane, n low, n high)). Where i // 4 passes 32 bits, its high part is added to
the lane's word, shifted left by 16; so lanes stay below 65536.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC11), Random123.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from . import maths

Words = npt.NDArray[np.uint32]

_MULTIPLY = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_BLOCK = 4096
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


def _rounds(
    c0: npt.NDArray[np.uint64],
    c1: npt.NDArray[np.uint64],
    c2: npt.NDArray[np.uint64],
    c3: npt.NDArray[np.uint64],
    k0: Any,
    k1: Any,
    rounds: int,
) -> tuple[npt.NDArray[np.uint64], ...]:
    """Words ride in the low halves of uint64, so that a product is one multiply."""
    for i in range(rounds):
        if i:
            k0 = (k0 + _WEYL[0]) & _LOW
            k1 = (k1 + _WEYL[1]) & _LOW
        a = c0 * _MULTIPLY[0]
        b = c2 * _MULTIPLY[1]
        c0 = b >> _32
        c0 ^= c1
        c0 ^= k0
        c2 = a >> _32
        c2 ^= c3
        c2 ^= k1
        b &= _LOW
        a &= _LOW
        c1, c3 = b, a
    return c0, c1, c2, c3


def philox4x32(counter: npt.ArrayLike, key: npt.ArrayLike, rounds: int = 10) -> Words:
    """Philox of counters (..., 4) under keys (..., 2), both uint32; leading shapes broadcast."""
    c = np.asarray(counter, np.uint32).astype(np.uint64)
    k = np.asarray(key, np.uint32).astype(np.uint64)
    c0, c1, c2, c3, k0, k1 = np.broadcast_arrays(
        *(c[..., i] for i in range(4)), *(k[..., i] for i in range(2))
    )
    return np.stack(_rounds(c0, c1, c2, c3, k0, k1, rounds), axis=-1).astype(np.uint32)


def words(key0: int, key1: int, draw: int, count: int, lane: int = 0, start: int = 0) -> Words:
    """Words start .. start + count of draw number `draw`: uint32[count]."""
    first = start // 4
    blocks = (start + count + 3) // 4 - first
    out = np.empty((blocks, 4), np.uint32)
    k0, k1 = np.uint64(key0 & 0xFFFFFFFF), np.uint64(key1 & 0xFFFFFFFF)
    for i in range(0, blocks, _BLOCK):
        n = min(_BLOCK, blocks - i)
        index = np.arange(first + i, first + i + n, dtype=np.uint64)
        c1 = index >> _32
        c1 <<= np.uint64(16)
        c1 += np.uint64(lane)
        c1 &= _LOW
        index &= _LOW
        c2 = np.full(n, draw & 0xFFFFFFFF, np.uint64)
        c3 = np.full(n, (draw >> 32) & 0xFFFFFFFF, np.uint64)
        block = out[i : i + n]
        for j, w in enumerate(_rounds(index, c1, c2, c3, k0, k1, 10)):
            block[:, j] = w
    return out.reshape(-1)[start - 4 * first : start - 4 * first + count]


def uniform32(words: Words) -> npt.NDArray[np.float32]:
    """float32 in (0, 1), one word each: (r >> 9) 2^-23 + 2^-24; from 2^-24 to 1 - 2^-24."""
    u = (words >> np.uint32(9)).astype(np.float32)
    u *= np.float32(2.0**-23)
    u += np.float32(2.0**-24)
    return u


def uniform64(words: Words) -> npt.NDArray[np.float64]:
    """float64 in (0, 1), two words each: (r >> 12) 2^-52 + 2^-53, r = word 2i + 2^32 word 2i+1."""
    r = words[1::2].astype(np.uint64)
    r <<= _32
    r |= words[0::2]
    r >>= np.uint64(12)
    u = r.astype(np.float64)
    u *= 2.0**-52
    u += 2.0**-53
    return u


def normal32(words: Words) -> npt.NDArray[np.float32]:
    """Standard normal float32, one word each, by the inverse CDF; |value| < 5.295."""
    return maths.normal_icdf(uniform32(words))


def normal64(words: Words) -> npt.NDArray[np.float64]:
    """Standard normal float64, two words each, by the inverse CDF; |value| < 8.21."""
    return maths.normal_icdf(uniform64(words))
