"""Arrays in files: what was saved comes back, and nothing is ever half of it."""

import os
import stat
import subprocess
import sys
import zipfile

import numpy as np
import pytest

import gpuscan
from gpuscan import saving
from gpuscan import tensor as T

SUFFIXES = [
    ".npz",
    pytest.param(
        ".safetensors",
        marks=pytest.mark.skipif(
            not __import__("importlib.util").util.find_spec("safetensors"), reason="not installed"
        ),
    ),
]


@pytest.fixture(params=SUFFIXES)
def path(request, tmp_path):
    return tmp_path / f"model{request.param}"


def values():
    r = np.random.default_rng(0)
    kinds = "bool int8 uint8 int16 uint16 int32 uint32 int64 uint64 float16 float32 float64"
    arrays = {k: (100 * r.standard_normal((2, 3))).astype(k) for k in kinds.split()}
    arrays |= {"number": np.float32(2.5), "none": np.zeros((0, 4), "float32")}
    arrays |= {"turned": r.standard_normal((3, 5)).T, "big": np.arange(3, dtype=">f4")}
    arrays |= {"file": np.ones(1), "a/b.c": np.ones(2), "dot.npy": np.ones(3)}  # names
    return arrays | {"special": np.array([np.nan, -np.inf, -0.0, 5e-324])}


def same(x, y):
    return x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()


def test_every_dtype_and_shape_comes_back_to_the_bit(path):
    saving.save(path, values(), epoch=3, name="é", nested={"a": [1, None, 0.1]})
    arrays, metadata = saving.load(path)
    assert metadata == {"epoch": 3, "name": "é", "nested": {"a": [1, None, 0.1]}}
    assert arrays.keys() == values().keys()
    for name, x in values().items():
        x = np.asarray(x)
        assert same(arrays[name], x.astype(x.dtype.newbyteorder("="))), name


def test_numpy_and_safetensors_read_it_without_gpuscan(path):
    saving.save(path, {"W": np.arange(6.0).reshape(2, 3)}, epoch=1)
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as found:
            assert np.array_equal(found["W"], np.arange(6.0).reshape(2, 3))
    else:
        from safetensors.numpy import load_file

        assert np.array_equal(load_file(path)["W"], np.arange(6.0).reshape(2, 3))


def test_files_of_others_are_read_too(path):
    W = np.arange(6.0).reshape(2, 3)
    if path.suffix == ".npz":
        np.savez_compressed(path, W=W)
    else:
        from safetensors.numpy import save_file

        save_file({"W": W}, path, {"format": "pt"})
    arrays, metadata = saving.load(path)
    assert list(arrays) == ["W"] and same(arrays["W"], W) and metadata == {}


def model():
    return [gpuscan.shared(np.arange(6, dtype="f").reshape(2, 3), "W"), gpuscan.shared(1.5, "b")]


def test_shared_variables_are_set_by_name(path, device):
    one, two = model(), model()[::-1]
    W, b = one
    f = gpuscan.function([], updates={W: W * 2, b: b - 1}, device=device)
    f()  # on a GPU the value is there now
    saving.save(path, one)
    saving.load(path, into=two)
    assert np.array_equal(two[1].get_value(), 2 * np.arange(6).reshape(2, 3))
    assert two[0].get_value() == 0.5
    g = gpuscan.function([], T.sum(two[1]) + two[0], device=device)
    assert g() == 30.5


def test_what_is_loaded_is_nobody_elses(path):
    saving.save(path, model())
    variables = model()
    arrays, _ = saving.load(path, into=variables)
    arrays["W"][:] = -1
    assert variables[0].get_value()[0, 1] == 1


@pytest.mark.parametrize(
    ("saved", "words"),
    [
        ({"W": np.ones((2, 3), "f")}, "has no array 'b'"),
        ({"b": np.ones(()), "W": np.ones((2, 3), "f"), "c": 1, "a": 2}, "also has 'a' and 'c'"),
        ({"b": np.ones(()), "W": np.ones((3, 2), "f")}, r"'W' is float32 \(3, 2\), and the shared"),
        ({"W": np.ones((2, 3), "f"), "b": np.ones((), "f")}, r"'b' is float32 \(\), and the"),
    ],
    ids=["missing", "more", "shape", "dtype"],
)
def test_what_does_not_fit_changes_nothing(path, saved, words):
    saving.save(path, saved)
    variables = model()
    with pytest.raises(ValueError, match=words):
        saving.load(path, into=variables)
    assert all(same(v.get_value(), w.get_value()) for v, w in zip(variables, model()))


@pytest.mark.parametrize(
    ("arrays", "error", "words"),
    [
        ({"x": np.array(["a"])}, TypeError, "'x' has the dtype <U1"),
        ({"x": object()}, TypeError, "'x' has the dtype object"),
        ({"x": np.ones(2, "complex64")}, TypeError, "'x' has the dtype complex64"),
        ({3: np.ones(2)}, ValueError, "3 can't be the name"),
        ({"": np.ones(2)}, ValueError, "'' can't be the name"),
        ({"__metadata__": np.ones(2)}, ValueError, "'__metadata__' can't be the name"),
        ([gpuscan.shared(1.0)], ValueError, "has no name"),
        ([gpuscan.shared(1.0, "a"), gpuscan.shared(2.0, "a")], ValueError, "two .* name 'a'"),
        ([np.ones(2)], TypeError, "without names these are shared variables"),
        (np.ones(2), TypeError, "a mapping or shared variables"),
        (gpuscan.shared(1.0, "a"), TypeError, "a mapping or shared variables"),
    ],
)
def test_what_cannot_be_saved_writes_nothing(path, arrays, error, words):
    with pytest.raises(error, match=words):
        saving.save(path, arrays)
    assert not list(path.parent.iterdir())


def test_metadata_that_json_cannot_hold(path):
    with pytest.raises(TypeError, match="JSON can't hold the metadata"):
        saving.save(path, {}, x=np.ones(2))
    assert not list(path.parent.iterdir())


def test_other_suffixes_are_named(tmp_path):
    for call in (lambda p: saving.save(p, {}), saving.load):
        with pytest.raises(ValueError, match=r"model.pkl: .* ends with .npz or .safetensors"):
            call(tmp_path / "model.pkl")


def test_a_place_that_is_not_there(path):
    with pytest.raises(FileNotFoundError):
        saving.load(path)
    with pytest.raises(FileNotFoundError):
        saving.save(path.parent / "no" / path.name, {})
    with pytest.raises(TypeError, match=r"into\['W'\] is no shared variable"):
        saving.save(path, {"W": 1})
        saving.load(path, into={"W": np.ones(())})


# ---- files that are damaged ----------------------------------------------------------------------


def test_a_file_that_was_cut_off_is_refused(path):
    saving.save(path, {"W": np.arange(100.0), "b": np.arange(3)})
    whole = path.read_bytes()
    for size in (0, 1, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=f"{path.name} is not a whole {path.suffix}"):
            saving.load(path)


def test_a_byte_that_changed_is_found(tmp_path):
    path = tmp_path / "x.npz"
    saving.save(path, {"W": np.arange(100.0)})
    content = bytearray(path.read_bytes())
    content[400] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not a whole .npz of arrays: Bad CRC-32"):
        saving.load(path)


def test_pickles_are_never_read(tmp_path):
    class Harm:
        def __reduce__(self):
            return open, (str(tmp_path / "harm"), "w")

    path = tmp_path / "x.npz"
    np.savez(path, allow_pickle=True, x=np.array([Harm()], object))
    with pytest.raises(ValueError, match="Object arrays cannot be loaded"):
        saving.load(path)
    assert not (tmp_path / "harm").exists()


def test_other_things_in_an_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("readme.txt", "three blind mice")
    with pytest.raises(ValueError, match="not a whole .npz of arrays"):
        saving.load(tmp_path / "x.npz")


# ---- never half a file ---------------------------------------------------------------------------


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_save_that_fails_leaves_the_old_file(path, monkeypatch, error, where):
    saving.save(path, {"W": np.zeros(3)})

    def fails(*_):
        raise error

    with monkeypatch.context() as m:
        m.setattr(os, where, fails)
        with pytest.raises(type(error)):
            saving.save(path, {"W": np.ones(3)})
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert not saving.load(path).arrays["W"].any()


KILLED = """
import os, sys, numpy as np
from gpuscan import saving
def killed(*_): os._exit(9)
setattr(os, sys.argv[2], killed)
saving.save(sys.argv[1], {"W": np.ones(1000)})
"""


@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_process_that_dies_leaves_the_old_file(path, where):
    saving.save(path, {"W": np.zeros(3)})
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), where], check=False)
    assert done.returncode == 9
    assert not saving.load(path).arrays["W"].any()


@pytest.mark.skipif(os.name != "posix", reason="modes and links are POSIX's")
def test_modes_and_links_are_as_with_any_file(path):
    old = os.umask(0o027)
    try:
        saving.save(path, {"W": np.zeros(3)})
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    link = path.with_name(f"link{path.suffix}")
    link.symlink_to(path.name)
    saving.save(link, {"W": np.ones(3)})
    assert link.is_symlink() and saving.load(path).arrays["W"].all()


def test_without_safetensors_the_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(ImportError, match="pip install safetensors, or save as .npz"):
        saving.save(tmp_path / "x.safetensors", {})
    assert not list(tmp_path.iterdir())
