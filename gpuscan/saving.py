"""Arrays in files: parameters of a model, all that a training needs to go on.

    saving.save("model.npz", model.parameters, epoch=3)
    arrays, metadata = saving.load("model.npz")
    saving.load("model.npz", into=model.parameters)  # sets the shared variables

The suffix says the format: `.npz` is NumPy's and needs nothing else, `.safetensors` needs the
package of that name. Both are read by other programs, and neither holds code: nothing is pickled.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from .errors import describe, listed
from .shared import SharedVariable

SUFFIXES = (".npz", ".safetensors")
_METADATA = "__metadata__"  # an .npz has it as an array of one string, JSON


class Saved(NamedTuple):
    """What a file holds."""

    arrays: dict[str, np.ndarray]
    metadata: dict[str, Any]


def save(path: str | os.PathLike[str], arrays: Any, **metadata: Any) -> None:
    """Writes a file of arrays by name, and of metadata, which is anything that JSON can hold.

    arrays: a mapping from names to arrays or shared variables, of booleans, integers or floats; or
    shared variables that have names, each another one. An old file is replaced at once when the
    new one is complete on the disk: at no moment is there half a file.

    Raises ValueError and TypeError for what can't be saved, before anything is written, and OSError
    where that fails.
    """
    place, suffix = _place(path)
    found = {name: _array(name, x) for name, x in _named(arrays, "arrays").items()}
    try:
        text = json.dumps(metadata)
    except (TypeError, ValueError) as e:
        raise TypeError(f"save: JSON can't hold the metadata: {e}") from None
    write = _write_npz if suffix == ".npz" else _write_safetensors
    with _replacing(place) as file:
        write(file, found, text)


def load(path: str | os.PathLike[str], into: Any = None) -> Saved:
    """The arrays of a file by name, and its metadata; a file of another program has none.

    into: shared variables, as in `save`, that get the arrays of their names. The file must have an
    array for each of them, of its dtype and present shape, and no others: otherwise a ValueError
    says which, and none is changed.

    Raises ValueError for a file that is damaged or not of its suffix's format, and OSError where it
    can't be read.
    """
    place, suffix = _place(path)
    read = _read_npz if suffix == ".npz" else _read_safetensors
    arrays, text = read(place)
    try:
        metadata = json.loads(text)
    except ValueError:
        raise ValueError(f"{place}: its metadata is not JSON") from None
    if into is not None:
        _set(place, arrays, _named(into, "into"))
    return Saved(arrays, metadata)


def _set(place: Path, arrays: Mapping[str, np.ndarray], targets: Mapping[str, Any]) -> None:
    for name, v in targets.items():
        if not isinstance(v, SharedVariable):
            raise TypeError(f"load: into[{name!r}] is no shared variable, got {v!r}")
    for words, names in (
        ("has no array", targets.keys() - arrays.keys()),
        ("also has", arrays.keys() - targets.keys()),
    ):
        if names:
            raise ValueError(f"{place} {words} {listed(map(repr, sorted(names)))}")
    for name, v in targets.items():
        found, wanted = (f"{x.dtype} {tuple(x.shape)}" for x in (arrays[name], v.held))
        if found != wanted:
            raise ValueError(f"{place}: {name!r} is {found}, and the shared variable {wanted}")
    for name, v in targets.items():
        v.set_value(arrays[name])


# ---- what is given -------------------------------------------------------------------------------


def _place(path: str | os.PathLike[str]) -> tuple[Path, str]:
    place = Path(path)
    if place.suffix not in SUFFIXES:
        raise ValueError(f"{place}: the name of the file ends with {' or '.join(SUFFIXES)}")
    return place, place.suffix


def _named(arrays: Any, what: str) -> dict[str, Any]:
    if isinstance(arrays, Mapping):
        for name in arrays:
            if not isinstance(name, str) or name in ("", _METADATA):
                raise ValueError(f"{what}: {name!r} can't be the name of an array")
        return dict(arrays)
    if isinstance(arrays, SharedVariable | np.ndarray) or not isinstance(arrays, Iterable):
        raise TypeError(f"{what}: a mapping or shared variables, got {arrays!r}")
    found: dict[str, Any] = {}
    for v in arrays:
        if not isinstance(v, SharedVariable):
            raise TypeError(f"{what}: without names these are shared variables, got {v!r}")
        if not v.name:
            raise ValueError(f"{what}: {describe(v)} has no name; give a mapping")
        if v.name in found:
            raise ValueError(f"{what}: two shared variables have the name {v.name!r}")
        found[v.name] = v
    return _named(found, what)


def _array(name: str, x: Any) -> np.ndarray:
    array: np.ndarray = x.storage if isinstance(x, SharedVariable) else np.asarray(x)
    if array.dtype.kind not in "buif" or array.dtype.itemsize > 8:
        raise TypeError(f"arrays: {name!r} has the dtype {array.dtype}, which is not saved")
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(array.shape)


# ---- files ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def _replacing(place: Path) -> Iterator[BinaryIO]:
    """A file beside the place, which takes it over in the end."""
    target = Path(os.path.realpath(place))  # a link stays one
    beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        with open(beside, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # the folder has to be on the disk, too
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _write_npz(file: BinaryIO, arrays: Mapping[str, np.ndarray], metadata: str) -> None:
    """As numpy.savez does, which takes its own arguments for names of arrays."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, x in {**arrays, _METADATA: np.array(metadata)}.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, x, allow_pickle=False)


def _read_npz(place: Path) -> tuple[dict[str, np.ndarray], str]:
    arrays: dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(place) as archive:
            for name in archive.namelist():
                with archive.open(name) as member:
                    x = np.lib.format.read_array(member, allow_pickle=False)
                arrays[name.removesuffix(".npy")] = x
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as e:
        raise ValueError(f"{place} is not a whole .npz of arrays: {_line(e)}") from None
    return arrays, str(arrays.pop(_METADATA, "{}"))


def _write_safetensors(file: BinaryIO, arrays: Mapping[str, np.ndarray], metadata: str) -> None:
    file.write(_safetensors().numpy.save(dict(arrays), {"gpuscan": metadata}))


def _read_safetensors(place: Path) -> tuple[dict[str, np.ndarray], str]:
    package = _safetensors()
    try:
        with package.safe_open(place, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except (package.SafetensorError, ValueError, TypeError, AttributeError) as e:
        raise ValueError(f"{place} is not a whole .safetensors: {_line(e)}") from None
    return arrays, metadata.get("gpuscan", "{}")


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError:
        raise ImportError(
            "the package safetensors is missing: pip install safetensors, or save as .npz"
        ) from None
    return safetensors


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
