"""Labelled draws: as DataTree, joined, in files, for ArviZ 0.23 and 1.x, and summarised."""

import json
import os
import signal
import subprocess
import sys
import tracemalloc
import warnings

import numpy as np
import pytest

from gpuscan.mc import output
from gpuscan.mc.kernel import Chunk
from gpuscan.mc.online import Moments, NonFinite
from gpuscan.mc.summary import SamplingWarning, summary

pytestmark = pytest.mark.own_device  # these use none
xarray = pytest.importorskip("xarray", reason="labelled draws need xarray")


def run(chains=4, draws=60, tune=0, seed=0, size=3):
    """All draws of a run: (warm-up or not) -> samples and stats."""
    random = np.random.default_rng(seed)
    found = {}
    for warmup, n in ((True, tune), (False, draws)):
        samples = {
            "theta": random.normal(size=(chains, n, size)).astype("float32"),
            "count": random.integers(0, 9, (chains, n)),
            "on": random.integers(0, 2, (chains, n, 2, 2)).astype(bool),
        }
        stats = {"lp": random.normal(size=(chains, n)), "diverging": np.zeros((chains, n), bool)}
        found[warmup] = samples, stats
    return found


def chunk_of(found, warmup=False, at=0, end=None, rows=slice(None)):
    parts = [{k: a[rows, at:end] for k, a in part.items()} for part in found[warmup]]
    chains = np.arange(len(found[warmup][1]["lp"]))[rows]
    return Chunk(warmup, at, chains, *parts)


DIMS = {"theta": ["side"], "on": ["row", "column"]}
COORDS = {"side": ["left", "middle", "right"], "column": [10, 20]}


def assert_same(tree, other):
    """But for when they were made."""
    for t in (tree, other):
        for node in t.subtree:
            node.attrs.pop("created_at", None)
    xarray.testing.assert_identical(tree, other)


# ---- labels --------------------------------------------------------------------------------------


def test_a_chunk_gets_arvizs_groups_and_dims_without_a_copy():
    found = run(draws=10)
    tree = output.labelled(chunk_of(found, at=4), {"sampling_time": 2.5, "tuning_steps": 7})
    assert set(tree.children) == {"posterior", "sample_stats"}
    posterior = tree["posterior"]
    assert posterior["theta"].dims == ("chain", "draw", "theta_dim_0")
    assert posterior["on"].dims == ("chain", "draw", "on_dim_0", "on_dim_1")
    assert posterior["count"].dtype == found[False][0]["count"].dtype
    assert tree["sample_stats"]["lp"].dims == ("chain", "draw")
    np.testing.assert_array_equal(posterior.draw, np.arange(4, 10))
    np.testing.assert_array_equal(posterior.chain, np.arange(4))
    assert np.shares_memory(posterior["theta"].values, found[False][0]["theta"])
    for node in tree.subtree:
        assert node.attrs["inference_library"] == "gpuscan"
        assert {"created_at", "inference_library_version"} <= node.attrs.keys()
        assert node.attrs["sampling_time"] == 2.5 and node.attrs["tuning_steps"] == 7


def test_the_warm_up_has_groups_of_its_own():
    tree = output.labelled(chunk_of(run(tune=5), warmup=True))
    assert set(tree.children) == {"warmup_posterior", "warmup_sample_stats"}


def test_dims_and_coords_of_the_user():
    tree = output.labelled(chunk_of(run()), dims=DIMS, coords=COORDS)
    posterior = tree["posterior"]
    assert posterior["theta"].dims == ("chain", "draw", "side")
    assert posterior["on"].dims == ("chain", "draw", "row", "column")
    assert list(posterior.side.values) == COORDS["side"]
    assert list(posterior.row.values) == [0, 1] and list(posterior.column.values) == [10, 20]


@pytest.mark.parametrize(
    "dims, coords, text",
    [
        ({"theta": ["a", "b"]}, {}, r"dims\['theta'\] has to name the axes .*: 1, got"),
        ({"theta": "side"}, {}, r"dims\['theta'\]"),
        ({"theta": ["draw"]}, {}, r"dims\['theta'\]"),
        ({"on": ["a", "a"]}, {}, r"dims\['on'\]"),
        ({"phi": ["a"]}, {}, "dims names 'phi'; the variables are theta, count, on"),
        ({"theta": ["a"], "on": ["a", "b"]}, {}, "dim 'a' is 2 long for 'on' and 3"),
        (
            {"theta": ["side"]},
            {"side": [1, 2]},
            r"coords\['side'\] has shape \(2,\); 'theta' has 3",
        ),
        ({"theta": ["count"]}, {}, "'count' is the name of a variable and of an axis"),
    ],
)
def test_labels_that_do_not_fit(dims, coords, text):
    with pytest.raises(ValueError, match=text):
        output.labelled(chunk_of(run()), dims=dims, coords=coords)


def test_attributes_are_what_files_hold():
    given = {
        "a": True, "b": None, "c": np.float32(0.5), "d": [1, 2], "e": {"x": 1}, "f": 2**70,
        "g": np.arange(2), "h": ["p", "q"], "i": "text",
    }  # fmt: skip
    assert output.clean(given) == {
        "a": 1, "c": 0.5, "d": [1, 2], "e": '{"x": 1}', "f": str(2**70), "g": [0, 1],
        "h": '["p", "q"]', "i": "text",
    }  # fmt: skip


# ---- joining -------------------------------------------------------------------------------------


def test_chunks_join_along_draw_and_chain():
    found = run(draws=50, tune=20)
    whole = output.tree([chunk_of(found), chunk_of(found, warmup=True)], {"a": 1}, dims=DIMS)
    parts = []
    for rows in (slice(3, 4), slice(0, 3)):
        parts += [chunk_of(found, True, at, at + 10, rows) for at in (0, 10)]
        parts += [chunk_of(found, False, at, at + 25, rows) for at in (25, 0)]
    joined = output.tree(iter(parts), {"a": 1}, dims=DIMS)
    assert_same(joined, whole)
    for name, values in found[False][0].items():
        np.testing.assert_array_equal(joined["posterior"][name], values)
    for name, values in found[True][1].items():
        np.testing.assert_array_equal(joined["warmup_sample_stats"][name], values)


def test_the_later_part_of_a_run_joins_too():
    found = run()
    late = output.tree([chunk_of(found, at=20, end=40), chunk_of(found, at=40)])
    np.testing.assert_array_equal(late["posterior"].draw, np.arange(20, 60))
    np.testing.assert_array_equal(late["posterior"]["theta"], found[False][0]["theta"][:, 20:])


def test_draws_that_are_missing_are_told():
    found = run()
    with pytest.raises(ValueError, match="draws from 40 to 59 don't follow on the first 20"):
        output.tree([chunk_of(found, end=20), chunk_of(found, at=40)])
    with pytest.raises(ValueError, match="no chunks"):
        output.tree([])


def test_gathered_has_what_all_chains_have_reached():
    found, gathered = run(), output.Gathered(np.arange(4), 60)
    gathered.add(chunk_of(found, end=30, rows=slice(0, 2)))
    gathered.add(chunk_of(found, end=20, rows=slice(2, 4)))
    tree = gathered.tree()
    np.testing.assert_array_equal(tree["posterior"]["theta"], found[False][0]["theta"][:, :20])


# ---- files ---------------------------------------------------------------------------------------

FILES = [pytest.param("run.zarr", id="zarr"), pytest.param("run.nc", id="netcdf")]


@pytest.fixture(autouse=True)
def _writers():
    pytest.importorskip("zarr")
    pytest.importorskip("h5py")
    pytest.importorskip("h5netcdf")


def read(path):
    with xarray.open_datatree(path) as tree:
        return tree.load()


def pieces(found, tune, draws):
    for warmup, total in ((True, tune), (False, draws)):
        for at in range(0, total, 7):
            yield chunk_of(found, warmup, at, min(at + 7, total))


@pytest.mark.parametrize("name", FILES)
def test_a_tree_reads_back_the_same(name, tmp_path):
    about = {"seed": 3, "sampling_time": 0.5, "non_finite": "[]"}
    tree = output.labelled(chunk_of(run()), about, dims=DIMS, coords=COORDS)
    tree["reduced"] = xarray.DataTree(xarray.Dataset({"theta": ("metric", [1.0, 2.0])}))
    output.write(tree, tmp_path / name)
    assert_same(read(tmp_path / name), tree)
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", FILES)
def test_a_tree_without_draws_reads_back_too(name, tmp_path):
    tree = output.labelled(chunk_of(run(draws=0)))
    output.write(tree, tmp_path / name)
    assert_same(read(tmp_path / name), tree)


@pytest.mark.parametrize("name", FILES)
def test_chunks_read_back_as_their_tree(name, tmp_path):
    found = run(draws=60, tune=20)
    output.write(pieces(found, 20, 60), tmp_path / name)
    assert_same(read(tmp_path / name), output.tree(pieces(found, 20, 60)))
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", FILES)
def test_labelled_chunks_of_a_late_part_are_written_too(name, tmp_path):
    found = run()
    with output.Writer(tmp_path / name) as out:
        for at in (20, 40):
            about = {"seed": 3, "sampling_time": at, "non_finite": "[]"}  # of this chunk
            out.append(output.labelled(chunk_of(found, at=at, end=at + 20), about, dims=DIMS))
            assert out.draws == {"posterior": at, "sample_stats": at}
    chunks = [chunk_of(found, at=20, end=40), chunk_of(found, at=40)]
    assert_same(read(tmp_path / name), output.tree(chunks, {"seed": 3}, dims=DIMS))


@pytest.mark.parametrize("name", FILES)
def test_writing_takes_the_memory_of_a_chunk(name, tmp_path):
    def source(count):
        random = np.random.default_rng(0)
        for i in range(count):
            yield Chunk(False, 10 * i, np.arange(4), {"x": random.random((4, 10, 2500))}, {})

    def peak(count):
        tracemalloc.start()
        output.write(source(count), tmp_path / name, mode="w")
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(3)  # imports
    assert peak(18) < 1.1 * peak(6) < 9 * 8 * 4 * 10 * 2500


@pytest.mark.parametrize("name", FILES)
def test_what_came_before_an_exception_is_there(name, tmp_path):
    found = run()

    def source():
        yield chunk_of(found, end=20)
        yield chunk_of(found, at=20, end=40)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        output.write(source(), tmp_path / name)
    assert_same(read(tmp_path / name), output.labelled(chunk_of(found, end=40)))


@pytest.mark.parametrize("name", FILES)
def test_a_path_that_is_there_is_replaced_on_request_only(name, tmp_path):
    first, second = (output.labelled(chunk_of(run(seed=i, draws=20 + i))) for i in (0, 1))
    output.write(first, tmp_path / name)
    for source in (second, iter([])):
        with pytest.raises(FileExistsError, match="is there already; mode='w' replaces it"):
            output.write(source, tmp_path / name)
    assert_same(read(tmp_path / name), first)
    output.write(second, tmp_path / name, mode="w")
    assert_same(read(tmp_path / name), second)
    output.write(pieces(run(), 0, 60), tmp_path / name, mode="w")
    assert read(tmp_path / name)["posterior"].sizes["draw"] == 60


@pytest.mark.parametrize("name", FILES)
def test_chunks_that_do_not_follow_are_refused(name, tmp_path):
    found = run()
    with output.Writer(tmp_path / name) as out:
        out.append(chunk_of(found, end=20))
        for at in (0, 10, 21):
            with pytest.raises(ValueError, match=f"has draws 0 to 19 in posterior; .* {at} on"):
                out.append(chunk_of(found, at=at))
        with pytest.raises(ValueError, match="has 4 chains of .* got 2 of"):
            out.append(chunk_of(found, at=20, rows=slice(0, 2)))
        with pytest.raises(ValueError, match="has 4 chains of .* got 4 of"):
            out.append(chunk_of(run(size=2), at=20))
        other = chunk_of(found, at=20)
        other.samples["theta"] = other.samples["theta"].astype("float64")
        with pytest.raises(ValueError, match="'float32', 3.*'float64', 3"):
            out.append(other)
        out.append(chunk_of(found, at=20))
    assert_same(read(tmp_path / name), output.labelled(chunk_of(found)))


def test_bad_paths_and_modes(tmp_path):
    tree = output.labelled(chunk_of(run()))
    with pytest.raises(ValueError, match=r"ends in \.zarr or \.nc, got '.*run.csv'"):
        output.write(tree, tmp_path / "run.csv")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        output.write(tree, tmp_path / "no" / "run.zarr")
    with pytest.raises(ValueError, match="mode is 'x', 'w' or 'a', got 'r'"):
        output.write(tree, tmp_path / "run.zarr", mode="r")
    with pytest.raises(ValueError, match=r"mode 'a' is for \.zarr"):
        output.write(tree, tmp_path / "run.nc", mode="a")
    with pytest.raises(ValueError, match="no chunks to write"):
        output.write([], tmp_path / "run.nc")
    (tmp_path / "other.zarr").mkdir()
    (tmp_path / "other.zarr" / "file").touch()
    with pytest.raises(ValueError, match="not a store that gpuscan wrote"):
        output.write(tree, tmp_path / "other.zarr", mode="a")
    assert sorted(os.listdir(tmp_path)) == ["other.zarr"]


def test_a_resumed_run_goes_on_with_its_store(tmp_path):
    """It starts again where its checkpoint was: before the last draws that are stored."""
    found, path = run(draws=60, tune=20), tmp_path / "run.zarr"
    output.write([chunk_of(found, True), chunk_of(found, end=30)], path, mode="a")
    output.write([chunk_of(found, at=14, end=28), chunk_of(found, at=28)], path, mode="a")
    assert_same(read(path), output.tree([chunk_of(found, True), chunk_of(found)]))
    with pytest.raises(ValueError, match="has draws 0 to 59"):
        output.write([chunk_of(run(draws=80), at=70)], path, mode="a")


WRITER = """
import sys, numpy as np
from gpuscan.mc import output
from gpuscan.mc.kernel import Chunk
x = np.arange(4 * 3000.).reshape(4, 3000, 1) + np.zeros(50)
with output.Writer(sys.argv[1]) as out:
    for at in range(0, 3000, 3):
        rows = x[:, at:at + 3]
        samples, stats = {"x": rows, "y": rows[..., 0]}, {"lp": rows[..., 0]}
        out.append(Chunk(False, at, np.arange(4), samples, stats))
        print(at + 3, flush=True)
"""


def test_a_killed_writer_leaves_whole_chunks(tmp_path):
    """And whoever goes on with the store ends with all draws."""
    path = tmp_path / "run.zarr"
    x = np.arange(4 * 3000.0).reshape(4, 3000, 1) + np.zeros(50)
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        for _ in range(5):
            done = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
    tree = read(path)
    n = tree["posterior"].sizes["draw"]
    assert n >= done == 15 and n % 3 == 0 and tree["sample_stats"].sizes["draw"] == n
    np.testing.assert_array_equal(tree["posterior"]["x"], x[:, :n])
    np.testing.assert_array_equal(tree["sample_stats"]["lp"], x[:, :n, 0])
    rest = {"x": x[:, done:90], "y": x[:, done:90, 0]}
    output.write([Chunk(False, done, np.arange(4), rest, {"lp": rest["y"]})], path, mode="a")
    tree = read(path)
    assert tree["posterior"].sizes["draw"] == max(n, 90)
    np.testing.assert_array_equal(tree["posterior"]["x"][:, :90], x[:, :90])


def test_what_a_killed_writer_left_behind_the_last_chunk_is_not_seen(tmp_path, monkeypatch):
    """As if it was killed while it wrote sample_stats of the second chunk."""
    found, path = run(), tmp_path / "run.zarr"
    out = output.Writer(path)
    out.append(chunk_of(found, end=20))
    extend = output._Zarr.extend

    def killed(self, group, values, at, length):
        extend(self, group, dict(list(values.items())[:1]), at, length)
        if group == "sample_stats":
            raise MemoryError

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(output._Zarr, "extend", killed)
        out.append(chunk_of(found, at=20, end=30))
    assert_same(read(path), output.labelled(chunk_of(found, end=20)))
    output.write([chunk_of(found, at=20)], path, mode="a")
    assert_same(read(path), output.labelled(chunk_of(found)))


# ---- ArviZ ---------------------------------------------------------------------------------------


@pytest.fixture
def az():
    pytest.importorskip("arviz")
    return output.import_arviz()


def normals(chains=4, draws=500, seed=0):
    random = np.random.default_rng(seed)
    samples = {
        "mu": random.normal(size=(chains, draws)),
        "w": random.normal(size=(chains, draws, 2)),
    }
    stats = {
        "lp": random.normal(size=(chains, draws)),
        "diverging": np.zeros((chains, draws), bool),
    }
    return Chunk(False, 0, np.arange(chains), samples, stats)


@pytest.mark.parametrize("name", [None, *FILES])
def test_arviz_reads_a_tree_and_what_was_written(az, name, tmp_path):
    tree = output.labelled(normals(), dims={"w": ["side"]}, coords={"side": ["a", "b"]})
    if name is not None:
        output.write(tree, tmp_path / name)
        tree = read(tmp_path / name)
    data = output.to_arviz(tree)
    np.testing.assert_array_equal(data["posterior"]["mu"], normals().samples["mu"])
    assert data["sample_stats"]["diverging"].shape == (4, 500)
    table = az.summary(data, round_to="none")
    assert list(table.index) == ["mu", "w[a]", "w[b]"]
    assert ((table["r_hat"] < 1.01) & (table["ess_bulk"] > 1000)).all()


def test_summary_has_the_figures_of_arviz_0_23(az):
    """Under 1.x too: tests/figures/summary.json names its origin."""
    from benchmarks.figures.summary import FILE, draws

    expected = json.loads(FILE.read_text())["table"]
    chunk = Chunk(False, 0, np.arange(4), draws(), {})
    tree = output.labelled(chunk, dims={"slow": ["side"]}, coords={"side": ["a", "b"]})
    with pytest.warns(SamplingWarning) as caught:
        table = summary(tree, show=False)
    assert len(caught) == 2  # of R-hat and of the effective sample size
    assert list(table.index) == list(expected)
    for name, row in expected.items():
        for column, value in row.items():
            np.testing.assert_allclose(table.loc[name, column], value, rtol=1e-9)


def test_summary_is_arvizs_table(az, capsys):
    tree = output.labelled(normals(), dims={"w": ["side"]}, coords={"side": ["a", "b"]})
    table = summary(tree)
    x = normals().samples["w"][..., 1]
    row = table.loc["w[b]"]
    np.testing.assert_allclose(row["mean"], x.mean())
    np.testing.assert_allclose(row["sd"], x.std(ddof=1))
    np.testing.assert_allclose(row[["eti_5%", "eti_95%"]], np.quantile(x, [0.05, 0.95]))
    data = tree["posterior"].to_dataset()
    for column, values in {
        "r_hat": az.rhat(data),
        "ess_bulk": az.ess(data, method="bulk"),
        "ess_tail": az.ess(data, method="tail", prob=(0.05, 0.95)),
        "mcse_mean": az.mcse(data, method="mean"),
        "mcse_sd": az.mcse(data, method="sd"),
    }.items():
        np.testing.assert_allclose(row[column], float(values["w"].sel(side="b")))
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == list(table.columns)
    assert [line.split()[0] for line in printed[1:]] == ["mu", "w[a]", "w[b]"]


def test_summary_takes_what_holds_draws(az, capsys):
    tree = output.labelled(normals())
    table = summary(tree, show=False)
    for other in (tree["posterior"].to_dataset(), output.to_arviz(tree)):
        assert summary(other, show=False).equals(table)
    assert summary(tree, "mu", show=False).equals(table.loc[["mu"]])
    assert summary(tree, ["w"], ci_prob=0.5, show=False).columns[2] == "eti_25%"
    assert not capsys.readouterr().out
    with pytest.raises(ValueError, match="var_names has 'nu'; the variables are mu, w"):
        summary(tree, "nu")
    with pytest.raises(TypeError, match="got int"):
        summary(3)
    with pytest.raises(ValueError, match="no group 'posterior', only sample_stats"):
        summary(tree.filter(lambda node: node.name != "posterior"))
    with pytest.raises(ValueError, match="there are no draws"):
        summary(output.labelled(normals(draws=0)))
    with pytest.raises(ValueError, match="between 0 and 1, got 94"):
        summary(tree, ci_prob=94)


def warned(draws):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SamplingWarning)
        summary(draws, show=False)
    return [str(w.message) for w in caught]


def test_summary_counts_transitions_that_could_not_be_made(az):
    found = normals()
    found.stats["diverging"][3, 7] = found.stats["diverging"][1, 9] = True
    found.stats["invalid"] = np.zeros((4, 500), bool)
    assert warned(output.labelled(found)) == [
        "2 of 2000 transitions diverged (first draw 7 of chain 3), the target is too sharp for the "
        "step size: raise target_accept, or choose other parameters for the model"
    ]
    found.stats["diverging"][:] = False
    found.stats["invalid"][2, 4] = True
    assert warned(output.labelled(found)) == [
        "1 of 2000 moves led to a log density that is NaN or +infinity (first draw 4 of chain 2); "
        "they were not taken"
    ]


def test_summary_warns(az):
    assert warned(output.labelled(normals())) == []

    apart = normals()
    apart.samples["w"][2, :, 1] += 1
    high, low = warned(output.labelled(apart))
    assert "R-hat is above 1.01" in high and "w[1] (1." in high and "mu" not in high
    assert "effective sample size is below 400" in low and "w[1]" in low

    short = warned(output.labelled(normals(draws=60)))
    assert any("below 400" in line and "mu" in line for line in short)

    diverging = normals()
    diverging.stats["diverging"][1, [3, 5]] = True
    (line,) = warned(output.labelled(diverging))
    assert line.startswith("2 of 2000 transitions diverged")

    stuck = normals()
    stuck.samples["w"][..., 0] = 2.0
    assert any(line == "never changed: w[0]" for line in warned(output.labelled(stuck)))

    assert any("there is one chain" in line for line in warned(output.labelled(normals(chains=1))))
    assert any("at least 4 draws" in line for line in warned(output.labelled(normals(draws=3))))


def test_summary_names_values_that_are_not_finite_and_spares_other_chains(az):
    chunk = normals(chains=5, draws=800)
    clean = Chunk(
        False, 0, np.arange(4), {k: v[[0, 1, 2, 4]] for k, v in chunk.samples.items()}, {}
    )
    chunk.samples["w"][3, 40:, 0] = np.nan
    tree = output.labelled(chunk)
    with pytest.warns(
        SamplingWarning, match="w: 760 values not finite, first at draw 40 of chain 3"
    ):
        table = summary(tree, show=False)
    expected = summary(output.labelled(clean), show=False)
    np.testing.assert_allclose(table.loc[["w[0]", "w[1]"]], expected.loc[["w[0]", "w[1]"]])
    assert np.isfinite(table).all(axis=None)
    # what the run has recorded knows of more than what is kept
    found = NonFinite()
    found.update(Chunk(False, 7, np.array([2]), {"x": np.full((1, 1), np.inf)}, {}))
    recorded = output.labelled(normals(), {"non_finite": found.to_json()})
    assert warned(recorded) == found.lines()


def test_summary_of_moments(capsys):
    pytest.importorskip("pandas")
    found = Moments(500)
    found.update(normals())
    table = summary(found)
    assert list(table.columns) == ["mean", "sd", "r_hat"] and list(table.index)[1] == "w[0]"
    np.testing.assert_allclose(table.loc["mu", "mean"], normals().samples["mu"].mean())
    assert "r_hat" in capsys.readouterr().out


# ---- what is missing -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "missing, call",
    [
        ("xarray", "output.labelled(chunk)"),
        ("xarray", "output.Gathered(chunk.chains, 9)"),
        ("zarr", "output.Writer('run.zarr')"),
        ("h5netcdf", "output.Writer('run.nc')"),
        ("h5py", "output.Writer('run.nc')"),
        ("arviz", "summary(output.labelled(chunk))"),
        ("pandas", "summary(output.labelled(chunk))"),
    ],
)
def test_a_missing_module_is_named_with_what_to_install(missing, call, monkeypatch):
    chunk = normals()
    monkeypatch.setitem(sys.modules, missing, None)
    names = {"output": output, "chunk": chunk, "summary": summary}
    with pytest.raises(ImportError, match=rf"{missing} is missing: pip install 'gpuscan\[mc\]'"):
        eval(call, names)


def test_import_brings_in_none_of_them():
    code = "import gpuscan.mc, sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    tops = {name.split(".")[0] for name in json.loads(done.stdout)}
    assert not tops & {"xarray", "arviz", "pandas", "zarr", "h5netcdf", "h5py", "tqdm", "scipy"}
