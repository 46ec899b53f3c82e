"""Philox: Random123's known answers, the numbering of draws, and the shape of what is drawn."""

import numpy as np
import pytest

from gpuscan import philox
from gpuscan.runtime import emulator

# Random123, tests/kat_vectors: philox4x32 10.
KNOWN = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@pytest.mark.parametrize("counter, key, answer", KNOWN)
def test_known_answers(counter, key, answer):
    assert philox.philox4x32(counter, key).tolist() == answer


def test_known_answers_together():
    counters, keys, answers = (np.array(column, np.uint32) for column in zip(*KNOWN, strict=True))
    assert np.array_equal(philox.philox4x32(counters, keys), answers)


@pytest.mark.parametrize("element", [0, 1, 6, 4 * 4096 + 3, 2**34 + 9, 2**40])
def test_word_of_an_element(element):
    key, draw, lane = (7, 0xFFFFFFFF), 2**33 + 5, 3
    block = element // 4
    counter = [block % 2**32, lane + (block >> 32 << 16), draw % 2**32, draw >> 32]
    wanted = philox.philox4x32(counter, key)[element % 4]
    assert philox.words(*key, draw, 1, lane, element)[0] == wanted


@pytest.mark.parametrize("count", [0, 1, 2, 5, 4 * 4096 - 1, 4 * 4096 + 1])
def test_a_draw_does_not_depend_on_its_size(count):
    long = philox.words(1, 2, 3, 40000)
    short = philox.words(1, 2, 3, count)
    assert short.dtype == np.uint32
    assert np.array_equal(short, long[:count])
    assert np.array_equal(philox.words(1, 2, 3, 100, 0, count), long[count : count + 100])


def test_uniform_ends():
    ends = np.array([0, 0xFFFFFFFF], np.uint32)
    assert philox.uniform32(ends).tolist() == [2.0**-24, 1 - 2.0**-24]
    pairs = np.array([0, 0, 0xFFFFFFFF, 0xFFFFFFFF], np.uint32)
    assert philox.uniform64(pairs).tolist() == [2.0**-53, 1 - 2.0**-53]
    assert philox.uniform64(np.array([0, 2**31], np.uint32)).tolist() == [0.5 + 2.0**-53]


def test_normal_ends():
    ends = np.array([0, 0xFFFFFFFF], np.uint32)
    low, high = philox.normal32(ends)
    assert low == -high and 5.294 < high < 5.295
    low, high = philox.normal64(np.repeat(ends, 2))
    assert low == -high and 8.2 < high < 8.21


def test_moments():
    n = 400_000
    words = philox.words(11, 12, 13, n)
    for u in (philox.uniform32(words), philox.uniform64(words)):
        assert abs(u.mean() - 0.5) < 5 / np.sqrt(12 * u.size)
        assert abs(u.var() - 1 / 12) < 1e-3
    for z in (philox.normal32(words), philox.normal64(words)):
        z = z.astype(np.float64)
        assert abs(z.mean()) < 5 / np.sqrt(z.size)
        assert abs((z**2).mean() - 1) < 5 * np.sqrt(2 / z.size)
        assert abs((z**4).mean() - 3) < 5 * np.sqrt(96 / z.size)


OWN = """
extern "C" __global__ void own_{t}_{count}(const unsigned long long *state, long long row,
                                           long long first, {type} *out) {{
    gs_own_uniforms<{count}>(state, row, first, out);
}}
"""
COUNTS = (0, 1, 2, 3, 4, 5, 10)


@pytest.mark.skipif(bool(emulator.missing()), reason=emulator.missing())
def test_a_threads_own_draw():
    """Of a block's words a thread takes those of its elements, wherever the first one is."""
    types = {"float": np.float32, "double": np.float64}
    text = '#include "block_draws.h"\n'
    text += "".join(OWN.format(t=t[0], count=n, type=t) for t in types for n in COUNTS)
    kernels = emulator.build(text, [f"own_{t[0]}_{n}" for t in types for n in COUNTS])
    key0, key1, draw = 0x12345678, 0x9ABCDEF0, 2**40 + 3
    for begin in (0, 1, 2, 3, 6, 2**34 - 5):
        rows, row = begin // 3, 2  # are before this part of the draw
        state = np.array([key0 | key1 << 32, draw, rows], np.uint64)
        for count in COUNTS:
            for t, dtype in types.items():
                out = np.full(count + 1, 7, dtype)
                arguments = [state.ctypes.data, row, begin - rows * row, out.ctypes.data]
                emulator.launch(kernels[f"own_{t[0]}_{count}"], 1, 1, 0, arguments)
                each = out.itemsize // 4
                words = philox.words(key0, key1, draw, each * count, 0, each * begin)
                made = (philox.uniform32 if each == 1 else philox.uniform64)(words)
                assert np.array_equal(out[:-1], made) and out[-1] == 7
