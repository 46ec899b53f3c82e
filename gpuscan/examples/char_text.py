"""The text of the character model: where it is from, its characters as numbers, and what simpler
means than a network make of it."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .arguments import Bad

HELD_OUT = 20  # one part in so many, from the end, is kept from training
SMOOTHING = np.geomspace(0.1, 1000, 17)  # of the bigrams, in characters


class Text:
    """A text in two parts, `training` and `held_out`, as the numbers of its `characters`."""

    def __init__(self, content: str, source: str | None = None) -> None:
        """source: the file that it is from, None: Python."""
        self.content, self.source = content, source
        self.name = source or "pydoc_data.topics"
        self.digest = hashlib.sha256(content.encode()).hexdigest()
        # as numbers, faster than character by character
        points = np.frombuffer(content.encode("utf-32-le"), "<u4")
        known, codes = np.unique(points, return_inverse=True)
        self.characters = "".join(map(chr, known))
        self.cut = len(content) - len(content) // HELD_OUT
        codes = codes.astype("int32")
        self.training, self.held_out = codes[: self.cut], codes[self.cut :]

    @property
    def line_end(self) -> int:
        """The code of the end of a line; 0 in a text of one line."""
        return max(0, self.characters.find("\n"))

    def written(self, codes: np.ndarray) -> str:
        return "".join(self.characters[k] for k in codes)

    def compressed_bits(self) -> tuple[float, str]:
        """Bits that a character of the held-out part takes where the training part was compressed
        before it, by lzma or zlib, which of them is better; and which it is."""
        sizes: dict[str, Callable[[bytes], int]] = {
            "zlib": lambda data: len(zlib.compress(data, 9))
        }
        try:
            import lzma
        except ImportError:  # some builds of Python are without
            pass
        else:
            best = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
            sizes["lzma"] = lambda data: len(lzma.compress(data, lzma.FORMAT_RAW, filters=best))
        whole, first = self.content.encode(), self.content[: self.cut].encode()
        bits = {name: 8 * (size(whole) - size(first)) for name, size in sizes.items()}
        name = min(bits, key=lambda n: bits[n])
        return bits[name] / len(self.held_out), name

    def bigram_bits(self) -> float:
        """Bits a held-out character by the counts of pairs in the training part."""
        n, end = len(self.characters), len(self.training) - len(self.training) // HELD_OUT
        fitted = [
            bigram_bits(self.training[:end], self.training[end - 1 :], n, k) for k in SMOOTHING
        ]
        best = SMOOTHING[int(np.argmin(fitted))]
        return bigram_bits(self.training, self.held_out, n, float(best))


def bigram_bits(training: np.ndarray, text: np.ndarray, characters: int, smoothing: float) -> float:
    """Bits a character of the text, the first apart, where p(b | a) is (count of ab + smoothing
    p(b)) / (count of a + smoothing): the counts with a Dirichlet prior around p(b), which is
    (count of b + 1) / (count of all + characters). The counts are the training text's."""
    pairs = training[:-1].astype("int64") * characters + training[1:]
    counts = np.bincount(pairs, minlength=characters**2).reshape(characters, characters)
    single = np.bincount(training, minlength=characters) + 1.0
    prior = smoothing * single / single.sum()
    p = (counts + prior) / (counts.sum(1, keepdims=True) + smoothing)
    return float(-np.log2(p[text[:-1], text[1:]]).mean())


def read(path: str | None) -> Text:
    """The text of a file, or what Python says of itself: `pydoc_data.topics`. There every paragraph
    is taken once: many topics quote others, and held-out text that was seen in training would
    measure memory."""
    if path is None:
        from pydoc_data.topics import topics

        paragraphs: dict[str, str] = {}
        for name in sorted(topics):
            for paragraph in topics[name].split("\n\n"):
                paragraphs.setdefault(" ".join(paragraph.split()), paragraph)
        return Text("\n\n".join(paragraphs.values()))
    try:
        content = Path(path).read_text("utf-8-sig")
    except FileNotFoundError:
        raise Bad(f"there is no file {path}") from None
    except UnicodeDecodeError as e:
        raise Bad(f"{path} is not UTF-8: {e.reason} at byte {e.start}") from None
    except (OSError, ValueError) as e:
        raise Bad(f"cannot read {path}: {getattr(e, 'strerror', None) or e}") from None
    return Text(content, path)
