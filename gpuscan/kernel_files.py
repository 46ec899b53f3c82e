"""Where the C and CUDA sources are."""

from __future__ import annotations

from pathlib import Path


def kernels_dir() -> Path:
    """The folder of the C and CUDA sources: inside the package where it was installed from a
    wheel, beside it in a checkout, an editable install or an unpacked sdist.

    Raises FileNotFoundError where neither is there.
    """
    package = Path(__file__).resolve().parent
    places = (package / "_kernels", package.parent / "kernels")
    for place in places:
        if (place / "portable.h").is_file():
            return place
    raise FileNotFoundError(
        f"gpuscan's kernel sources are missing: neither {places[0]} nor {places[1]} is there. "
        "Install gpuscan again."
    )


def source_of(name: str, **macros: object) -> str:
    """The text of one of them, behind the definitions of its macros."""
    definitions = [f"#define {macro} {x}\n" for macro, x in macros.items()]
    return "".join(definitions) + (kernels_dir() / name).read_text()
