"""Draws with labels: chunks as xarray.DataTree, joined, written to files and read by ArviZ.

The groups are those of ArviZ's schema: posterior and sample_stats, and before them
warmup_posterior and warmup_sample_stats where the warm-up was asked for. The first axes of every
variable are `chain` and `draw`; the others are called as `dims` says, or `<name>_dim_0`, ...
"""

from __future__ import annotations

import datetime
import importlib
import json
import os
import shutil
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ..record import record, replace
from .kernel import Array, Chunk

Dims: TypeAlias = Mapping[str, Sequence[str]]
Coords: TypeAlias = Mapping[str, Any]

SAMPLE_DIMS = ("chain", "draw")


def require(*modules: str) -> None:
    """Imports the modules; ImportError says what to install where one is missing."""
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as e:
            missing = e.name or module
            raise ImportError(
                f"the module {missing} is missing: pip install 'gpuscan[mc]'", name=missing
            ) from None


# ---- labels --------------------------------------------------------------------------------------


def labelled(
    chunk: Chunk,
    attributes: Mapping[str, Any] | None = None,
    *,
    dims: Dims | None = None,
    coords: Coords | None = None,
) -> Any:
    """The chunk as a DataTree, without copying its arrays.

    `dims` names the axes after chain and draw, by variable; `coords` gives values along them, by
    dim. `attributes` are those of the root and of each group, beside when and by whom they were
    made. ValueError where dims or coords don't fit the variables.
    """
    return _tree(_datasets(_groups(chunk), attributes, dims, coords))


_Group: TypeAlias = tuple[dict[str, Array], Array, Array]  # variables, chains, draws


def _groups(chunk: Chunk) -> dict[str, _Group]:
    draws = np.arange(chunk.first, chunk.first + _draws(chunk))
    names = ("warmup_" * chunk.warmup + name for name in ("posterior", "sample_stats"))
    return {g: (v, chunk.chains, draws) for g, v in zip(names, (chunk.samples, chunk.stats))}


def _draws(chunk: Chunk) -> int:
    return next((a.shape[1] for part in (chunk.samples, chunk.stats) for a in part.values()), 0)


def _datasets(
    groups: Mapping[str, _Group],
    attributes: Mapping[str, Any] | None = None,
    dims: Dims | None = None,
    coords: Coords | None = None,
) -> dict[str, Any]:
    """By path, with the root's attributes at "/"."""
    require("xarray")
    import xarray

    made = {**provenance(), **clean(attributes or {})}
    found = {"/": xarray.Dataset(attrs=made)}
    for group, (variables, chains, draws) in groups.items():
        if variables:
            labels = {"chain": chains, "draw": draws}
            own = (dims or {}) if group.endswith("posterior") else {}
            found[group] = dataset(variables, labels, own, coords or {}).assign_attrs(made)
    return found


def _tree(datasets: dict[str, Any]) -> Any:
    import xarray

    return xarray.DataTree.from_dict(datasets)


def dataset(variables: dict[str, Array], first: Coords, dims: Dims, coords: Coords) -> Any:
    """An xarray.Dataset of variables whose first axes are those of `first`, which labels them."""
    require("xarray")
    import xarray

    for name in dims:
        if name not in variables:
            raise ValueError(f"dims names {name!r}; the variables are {', '.join(variables)}")
    labels = {dim: np.asarray(values) for dim, values in first.items()}
    data = {}
    for name, values in variables.items():
        count = values.ndim - len(first)
        rest = dims.get(name, [f"{name}_dim_{i}" for i in range(count)])
        if isinstance(rest, str) or len(rest) != count or len({*first, *rest}) != values.ndim:
            raise ValueError(
                f"dims[{name!r}] has to name the axes of {name!r} after {', '.join(first)}: "
                f"{count}, got {rest!r}"
            )
        for dim, size in zip(rest, values.shape[len(first) :]):
            label = np.asarray(coords.get(dim, np.arange(size)))
            if label.shape != (size,):
                raise ValueError(
                    f"coords[{dim!r}] has shape {label.shape}; {name!r} has {size} elements there"
                )
            if len(labels.setdefault(dim, label)) != size:
                raise ValueError(
                    f"dim {dim!r} is {size} long for {name!r} and {len(labels[dim])} for another"
                )
        data[name] = ((*first, *rest), values)
    if clash := {*data} & {*labels}:
        raise ValueError(f"{min(clash)!r} is the name of a variable and of an axis")
    return xarray.Dataset(data, coords=labels)


def provenance() -> dict[str, Any]:
    """When and by whom, in the words of ArviZ's schema."""
    return {
        "created_at": datetime.datetime.now(datetime.UTC).isoformat(),
        "inference_library": "gpuscan",
        "inference_library_version": importlib.import_module("gpuscan").__version__,
    }


def clean(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as files can hold them: text, numbers and lists of numbers. None is left out, an
    integer of more than 64 bits becomes text, and what has structure JSON."""
    kept: dict[str, Any] = {}
    for name, value in attributes.items():
        if isinstance(value, np.ndarray | np.generic):
            value = value.tolist()
        if isinstance(value, bool):
            value = int(value)
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            value = str(value)
        flat = isinstance(value, list | tuple) and {type(v) for v in value} in ({int}, {float})
        if flat:
            kept[name] = list(value)
        elif isinstance(value, str | int | float):
            kept[name] = value
        elif value is not None:
            kept[name] = json.dumps(value, default=str)
    return kept


# ---- joining -------------------------------------------------------------------------------------


class Gathered:
    """A run's chunks, put in their place as they come, in any order of chains.

    `chains` are the numbers of all chains; `draws` and `tune` say for how many draws of either
    phase there is room. A chunk's arrays are copied once and not kept.
    """

    def __init__(self, chains: Array, draws: int, tune: int = 0) -> None:
        require("xarray")  # now, not after the run
        self.chains = np.asarray(chains, np.int64)
        self._row = {int(c): i for i, c in enumerate(self.chains)}
        self._room = {False: range(draws), True: range(tune)}
        self._groups: dict[bool, list[dict[str, Array]]] = {}  # by warmup: samples, stats
        self._reached = {phase: np.zeros(len(self.chains), np.int64) for phase in (False, True)}

    def add(self, chunk: Chunk) -> None:
        """ValueError where the chunk's draws don't follow on those of its chains."""
        room, count = self._room[chunk.warmup], _draws(chunk)
        start = chunk.first - room.start
        rows = np.array([self._row[int(c)] for c in chunk.chains], np.int64)
        reached = self._reached[chunk.warmup]
        if (reached[rows] != start).any() or start + count > len(room):
            raise ValueError(
                f"draws from {chunk.first} to {chunk.first + count - 1} don't follow on the first "
                f"{reached[rows].min()} of {len(room)}"
            )
        parts = chunk.samples, chunk.stats
        if chunk.warmup not in self._groups:
            # draws first, as loops make them: so a chunk is copied as one piece. What is empty
            # takes memory once it is written.
            lead = len(room), len(self.chains)
            self._groups[chunk.warmup] = [
                {
                    name: np.empty(lead + a.shape[2:], a.dtype).swapaxes(0, 1)
                    for name, a in part.items()
                }
                for part in parts
            ]
        where: Any = rows
        if len(rows) and (np.diff(rows) == 1).all():
            where = slice(rows[0], rows[-1] + 1)
        for whole, part in zip(self._groups[chunk.warmup], parts):
            if whole.keys() != part.keys():
                raise ValueError(f"a chunk has {sorted(part)}, those before have {sorted(whole)}")
            for name, values in part.items():
                whole[name][where, start : start + count] = values
        reached[rows] += count

    def tree(
        self,
        attributes: Mapping[str, Any] | None = None,
        *,
        dims: Dims | None = None,
        coords: Coords | None = None,
    ) -> Any:
        """A DataTree of the draws that all chains have reached; it shares their memory."""
        groups = {}
        for warmup, parts in sorted(self._groups.items()):
            n = int(self._reached[warmup].min())
            there = [{name: a[:, :n] for name, a in part.items()} for part in parts]
            first = self._room[warmup].start
            groups.update(_groups(Chunk(warmup, first, self.chains, *there)))
        return _tree(_datasets(groups, attributes, dims, coords))


def tree(
    chunks: Iterable[Chunk],
    attributes: Mapping[str, Any] | None = None,
    *,
    dims: Dims | None = None,
    coords: Coords | None = None,
) -> Any:
    """The chunks of a run as one DataTree, joined along draw and along chain.

    A chunk that is alone in its phase is not copied. `Gathered` does the same for a run whose
    length is known, without keeping the chunks. ValueError where there are none, or draws are
    missing.
    """
    chunks = sorted(chunks, key=lambda c: (c.warmup, c.first))
    if not chunks:
        raise ValueError("there are no chunks")
    if len({c.warmup for c in chunks}) == len(chunks):
        groups = {name: group for c in chunks for name, group in _groups(c).items()}
        return _tree(_datasets(groups, attributes, dims, coords))
    gathered = Gathered(np.unique(np.concatenate([c.chains for c in chunks])), 0)
    for warmup in {c.warmup for c in chunks}:
        phase = [c for c in chunks if c.warmup == warmup]
        end = max(c.first + _draws(c) for c in phase)
        gathered._room[warmup] = range(phase[0].first, end)
    for chunk in chunks:
        gathered.add(chunk)
    return gathered.tree(attributes, dims=dims, coords=coords)


# ---- files ---------------------------------------------------------------------------------------


def write(chunks: Any, path: str | os.PathLike[str], mode: str = "x") -> None:
    """Writes a DataTree, or chunks as they come, to `path`: .zarr or .nc, see `Writer`.

    A DataTree is at `path` as a whole or not at all. Of chunks all that came are there, also
    where their source ends in an exception. ValueError where there are none.
    """
    require("xarray")
    from xarray import DataTree

    if not isinstance(chunks, DataTree):
        with Writer(path, mode) as out:
            for chunk in chunks:
                out.append(chunk)
        if not out.began:
            raise ValueError(f"there are no chunks to write to {path}")
        return
    if mode == "a":
        with Writer(path, mode) as out:
            out.append(chunks)
        return
    Writer(path, mode)  # its checks
    whole = Path(path)
    part = whole.with_name(f".part-{os.getpid()}-{whole.name}")
    try:
        with Writer(part, "w") as out:
            out._append(chunks, whole=True)
        if whole.is_dir():
            shutil.rmtree(whole)
        os.replace(part, whole)
    finally:
        _remove(part)


class Writer:
    """A file of draws that grows along draw: Zarr or NetCDF, by the path's ending.

    A `.zarr` store (format 2) is whole after each chunk: whoever opens it, while it is written or
    after its writer was killed, finds all chunks but the last. A `.nc` file promises no such
    thing, so it is called `<name>.part` until `close`. One chunk is in memory at a time.

    `mode` is that of `open`: "x" refuses a path that is there (FileExistsError), "w" replaces it,
    and "a" goes on with a `.zarr` store: draws that it has are written again and later ones
    appended, so a resumed run can write to the store of the run that was killed.
    """

    def __init__(self, path: str | os.PathLike[str], mode: str = "x") -> None:
        self.path = Path(path)
        files: dict[str, type[_File]] = {".zarr": _Zarr, ".nc": _NetCDF}
        if self.path.suffix not in files:
            raise ValueError(f"the path of draws ends in {' or '.join(files)}, got {str(path)!r}")
        if mode not in ("x", "w", "a"):
            raise ValueError(f"mode is 'x', 'w' or 'a', got {mode!r}")
        if mode == "a" and self.path.suffix == ".nc":
            raise ValueError(f"mode 'a' is for .zarr, which can grow safely, got {str(path)!r}")
        if not self.path.absolute().parent.is_dir():
            raise FileNotFoundError(f"cannot write {path}: there is no folder {self.path.parent}")
        if mode == "x" and self.path.exists():
            raise FileExistsError(f"{path} is there already; mode='w' replaces it")
        self._file = files[self.path.suffix](self.path, mode == "a")

    @property
    def draws(self) -> dict[str, int]:
        """How many draws there are, by group."""
        return {name: group.length for name, group in self._file.groups.items()}

    @property
    def began(self) -> bool:
        """Has anything been written?"""
        return self._file.started

    def append(self, chunk: Any) -> None:
        """Writes a Chunk, or a DataTree such as mc.stream yields.

        ValueError, with nothing written, where its draws don't follow on those of its group, or
        its chains or variables are others.
        """
        self._append(chunk)

    def _append(self, chunk: Any, whole: bool = False) -> None:
        if isinstance(chunk, Chunk):
            # no DataTree: its nodes hold each other, so it stays until a full collection
            datasets = _datasets(_groups(chunk))
        else:
            datasets = {name: node.to_dataset() for name, node in chunk.children.items()}
            datasets["/"] = chunk.to_dataset()
            if chunk.depth > 1:
                raise ValueError("draws are in groups, got groups within groups")
        if not whole:
            for part in datasets.values():
                part.attrs = _lasting(part.attrs)
        self._file.append(datasets)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()


@record
class _Stored:
    """A group of a file."""

    first: int  # draw
    length: int
    chains: tuple[int, ...]
    kinds: dict[str, tuple[Any, ...]]  # of its variables: dtype, shape after chain and draw

    @classmethod
    def of(cls, dataset: Any) -> _Stored:
        kinds = {str(k): (v.dtype.name, *v.shape[2:]) for k, v in dataset.data_vars.items()}
        chains = tuple(int(c) for c in dataset.chain.values)
        return cls(int(dataset.draw[0]), dataset.sizes["draw"], chains, kinds)


class _File:
    """What the two kinds of files share."""

    modules: tuple[str, ...] = ()

    def __init__(self, path: Path, goes_on: bool) -> None:
        require("xarray", *self.modules)
        self.path = path
        self.groups: dict[str, _Stored] = {}
        self.rewrites = goes_on  # may draws come that are there?
        self.whole = True  # was the last chunk written to its end?
        self.started = False
        self.others: dict[str, Any] = {}  # groups without draws, for the end

    def append(self, datasets: dict[str, Any]) -> None:
        groups = {name: dataset for name, dataset in datasets.items() if name != "/"}
        parts = {name: group for name, group in groups.items() if group.sizes.get("draw")}
        for name, part in parts.items():
            if name in self.groups:
                self._check(self.groups[name], _Stored.of(part), name)
        if not groups:
            return
        self.whole = False
        self.others |= {name: group for name, group in groups.items() if name not in parts}
        if not self.started:
            self.start(datasets["/"])
            self.started = True
        for name, part in parts.items():
            new, along = _Stored.of(part), {k: v for k, v in part.variables.items() if _along(v)}
            if name not in self.groups:
                self.create(name, part, {k: _file_chunk(v) for k, v in along.items()})
                self.groups[name] = new
                continue
            old = self.groups[name]
            at = new.first - old.first
            length = max(old.length, at + new.length)
            values = {k: (v.dims.index("draw"), v.values) for k, v in along.items()}
            self.extend(name, values, at, length)
            self.groups[name] = replace(old, length=length)
        self.commit()
        self.whole = True

    def _check(self, old: _Stored, new: _Stored, group: str) -> None:
        if (old.chains, old.kinds) != (new.chains, new.kinds):
            raise ValueError(
                f"{self.path} has {len(old.chains)} chains of {old.kinds} in {group}, "
                f"got {len(new.chains)} of {new.kinds}"
            )
        end = old.first + old.length
        if new.first != end and not (self.rewrites and old.first <= new.first < end):
            raise ValueError(
                f"{self.path} has draws {old.first} to {end - 1} in {group}; "
                f"draws from {new.first} on don't follow on them"
            )

    def start(self, root: Any) -> None:
        raise NotImplementedError

    def create(self, group: str, dataset: Any, chunks: dict[str, tuple[int, ...]]) -> None:
        raise NotImplementedError

    def extend(
        self, group: str, values: dict[str, tuple[int, Array]], at: int, length: int
    ) -> None:
        """Writes values, each with its axis of draws, from draw `at` on, of then `length`."""
        raise NotImplementedError

    def commit(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        if self.whole:
            for name, group in self.others.items():
                if name not in self.groups:
                    self.create(name, group, {})
            if self.others:
                self.commit()
        self.others = {}


def _lasting(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a chunk that are true of the run too."""
    so_far = ("non_finite", "sampling_time")
    return {name: value for name, value in attributes.items() if name not in so_far}


def _along(variable: Any) -> bool:
    return "draw" in variable.dims


def _file_chunk(variable: Any) -> tuple[int, ...]:
    """The shape of the pieces that a file keeps together: some draws of all chains."""
    sizes = dict(variable.sizes)
    size = max(1, variable.nbytes // sizes["draw"])  # of a draw
    target = min(max(variable.nbytes, 1 << 18), 1 << 23)
    sizes["draw"] = max(1, target // size)
    if size > target and "chain" in sizes:
        sizes["chain"] = max(1, sizes["chain"] * target // size)
    return tuple(max(1, n) for n in sizes.values())


class _Zarr(_File):
    """Metadata is consolidated after each chunk. Readers go by that file, which is replaced at
    once, so what a killed writer left behind it isn't seen."""

    modules = ("zarr",)

    def __init__(self, path: Path, goes_on: bool) -> None:
        super().__init__(path, goes_on)
        if goes_on and path.exists() and any(path.iterdir()):
            import xarray

            if not (path / ".zgroup").exists():
                raise ValueError(f"{path} is not a store that gpuscan wrote")
            self.started = (path / ".zmetadata").exists()
            if self.started:
                with xarray.open_datatree(path, engine="zarr", consolidated=True) as tree:
                    for name, node in tree.children.items():
                        if node.sizes.get("draw"):
                            self.groups[name] = _Stored.of(node.dataset)

    def start(self, root: Any) -> None:
        # mode "w" empties the folder
        root.to_zarr(self.path, mode="w", zarr_format=2, consolidated=False)

    def create(self, group: str, dataset: Any, chunks: dict[str, tuple[int, ...]]) -> None:
        encoding = {name: {"chunks": shape} for name, shape in chunks.items()}
        dataset.to_zarr(
            self.path, group=group, mode="w", zarr_format=2, consolidated=False, encoding=encoding
        )

    def extend(
        self, group: str, values: dict[str, tuple[int, Array]], at: int, length: int
    ) -> None:
        import zarr

        arrays = zarr.open_group(self.path, path=group, mode="r+", use_consolidated=False)
        for name, (axis, new) in values.items():
            array: Any = arrays[name]
            shape = list(array.shape)
            shape[axis] = length
            if tuple(shape) != array.shape:
                array.resize(tuple(shape))
            array[(slice(None),) * axis + (slice(at, at + new.shape[axis]),)] = new

    def commit(self) -> None:
        import zarr

        zarr.consolidate_metadata(str(self.path), zarr_format=2)


class _NetCDF(_File):
    """xarray writes a group's first chunk, with draw as an unlimited dimension, and the labels;
    it can't append, so later chunks go through h5netcdf."""

    modules = ("h5netcdf", "h5py")

    def __init__(self, path: Path, goes_on: bool) -> None:
        super().__init__(path, goes_on)
        self.part = path.with_name(path.name + ".part")
        self._open: Any = None

    def start(self, root: Any) -> None:
        root.to_netcdf(self.part, mode="w", engine="h5netcdf")

    def create(self, group: str, dataset: Any, chunks: dict[str, tuple[int, ...]]) -> None:
        self._shut()
        dataset.to_netcdf(
            self.part,
            group=group,
            mode="a",
            engine="h5netcdf",
            unlimited_dims=["draw"] if "draw" in dataset.dims else [],
            encoding={name: {"chunksizes": shape} for name, shape in chunks.items()},
        )

    def extend(
        self, group: str, values: dict[str, tuple[int, Array]], at: int, length: int
    ) -> None:
        import h5netcdf  # type: ignore[import-untyped]

        if self._open is None:
            self._open = h5netcdf.File(self.part, "r+")
        there = self._open[group]
        there.resize_dimension("draw", length)
        for name, (axis, new) in values.items():
            variable = there.variables[name]
            variable[(slice(None),) * axis + (slice(at, at + new.shape[axis]),)] = new.astype(
                variable.dtype
            )

    def commit(self) -> None:
        if self._open is not None:
            self._open.flush()

    def _shut(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def close(self) -> None:
        super().close()
        self._shut()
        if self.whole and self.part.exists():
            os.replace(self.part, self.path)
        _remove(self.part)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


# ---- ArviZ ---------------------------------------------------------------------------------------


def to_arviz(tree: Any) -> Any:
    """The tree as the ArviZ that is installed takes it: from 1.0 on as it is, before as an
    InferenceData."""
    arviz = import_arviz()
    return tree if hasattr(arviz, "convert_to_datatree") else arviz.from_datatree(tree)


def import_arviz() -> Any:
    """The module; what it says about its own future, at its import, is no matter of its users."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "\\s*ArviZ is undergoing", FutureWarning)
        require("arviz")
        import arviz
    return arviz
