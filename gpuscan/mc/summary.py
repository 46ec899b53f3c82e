"""A table that judges a run, by ArviZ's diagnostics, and warnings where it can't be trusted."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .kernel import Chunk
from .online import Moments, NonFinite
from .output import import_arviz, require

R_HAT = 1.01  # these two: Vehtari, Gelman, Simpson, Carpenter & Bürkner (2021)
ESS = 400
_NAMED = 3  # rows that a warning names


class SamplingWarning(UserWarning):
    """Draws that don't represent the target well enough, or not at all."""


def summary(
    draws: Any,
    var_names: str | Sequence[str] | None = None,
    *,
    ci_prob: float = 0.9,
    show: bool = True,
) -> Any:
    """A pandas.DataFrame with a row for each element of each variable; `show` prints it, rounded.

    `draws` is what mc.sample returns, an xarray.DataTree or Dataset, ArviZ's InferenceData, or
    `Moments`, which know mean, sd and a split R-hat only. The columns are mean, sd, the ends of
    the equal-tailed interval of probability `ci_prob`, mcse_mean, mcse_sd, ess_bulk, ess_tail (of
    the same tails) and the rank-normalised r_hat: ArviZ's, of 0.23 and of 1.x alike.

    A chain with a value of a variable that isn't finite is left out of that variable's rows.
    Warns (SamplingWarning) of that, of R-hat > 1.01, of an effective sample size < 400, of
    elements that never change, of a single chain, and of transitions that diverged or had an
    invalid log density.
    """
    if not 0 < ci_prob < 1:
        raise ValueError(f"ci_prob is between 0 and 1, got {ci_prob}")
    require("xarray", "pandas")
    if isinstance(draws, Moments):
        table = _table(_chosen(draws.to_xarray(), var_names))
        bad = _of_r_hat(table)
    else:
        groups = _groups(draws)
        posterior = _chosen(groups["posterior"], var_names)
        if not (posterior.sizes.get("chain") and posterior.sizes.get("draw")):
            raise ValueError(
                f"there are no draws: the posterior's dims are {dict(posterior.sizes)}"
            )
        table, bad = _judged(posterior, ci_prob)
        bad = [*_non_finite(groups, posterior), *bad, *_wrong(groups)]
    if show:
        print(_rounded(table))
    for text in bad:
        warnings.warn(text, SamplingWarning, stacklevel=2)
    return table


def _groups(draws: Any) -> dict[str, Any]:
    """Its groups, as Datasets."""
    import xarray

    if hasattr(draws, "to_xarray") and not isinstance(draws, xarray.DataTree):
        draws = draws.to_xarray()
    if isinstance(draws, xarray.Dataset):
        return {"posterior": draws}
    if isinstance(draws, xarray.DataTree):
        found = {name: node.to_dataset() for name, node in draws.children.items()}
    elif hasattr(draws, "groups") and hasattr(draws, "posterior"):
        found = {name: draws[name] for name in draws.groups()}
    else:
        raise TypeError(f"draws are an xarray.DataTree or the like, got {type(draws).__name__}")
    if "posterior" not in found:
        raise ValueError(f"draws have no group 'posterior', only {', '.join(found) or 'none'}")
    return found


def _chosen(dataset: Any, var_names: str | Iterable[str] | None) -> Any:
    if var_names is None:
        return dataset
    names = [var_names] if isinstance(var_names, str) else list(var_names)
    for name in names:
        if name not in dataset.data_vars:
            known = ", ".join(map(str, dataset.data_vars))
            raise ValueError(f"var_names has {name!r}; the variables are {known}")
    return dataset[names]


# ---- the table -----------------------------------------------------------------------------------


def _judged(posterior: Any, ci_prob: float) -> tuple[Any, list[str]]:
    """The table of the draws, and what is wrong with them."""
    import pandas  # type: ignore[import-untyped]
    import xarray

    tables = []
    for name in posterior.data_vars:
        values = posterior[name].compute()
        if values.dtype.kind not in "fiub":
            continue
        if values.dtype.kind == "f":
            others = [d for d in values.dims if d != "chain"]
            finite = np.isfinite(values).all(others)
            values = values.isel(chain=np.flatnonzero(finite)) if finite.any() else values
        values = values.astype(np.float64)
        found = _metrics(values, ci_prob)
        moves = values.max(["chain", "draw"]) != values.min(["chain", "draw"])
        found["moves"] = moves.astype(float)
        metrics = xarray.concat(list(found.values()), "metric", coords="minimal", compat="override")
        table = _table(metrics.assign_coords(metric=list(found)).to_dataset(name=name))
        tables.append(table)
    if not tables:
        raise ValueError("there are no variables with numbers to summarise")
    table = pandas.concat(tables)
    still = list(table.index[table.pop("moves") == 0])
    return table, [*_too_few(posterior), *_never(still), *_of_r_hat(table), *_of_ess(table)]


def _metrics(values: Any, ci_prob: float) -> dict[str, Any]:
    """Of a DataArray whose first dims are chain and draw."""
    arviz = import_arviz()
    both = ["chain", "draw"]
    tails = (1 - ci_prob) / 2, (1 + ci_prob) / 2
    dataset = values.to_dataset(name="x")
    # R-hat of an element that never changes is 0 / 0
    with np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "invalid value encountered", RuntimeWarning)
        ends = values.quantile(tails, both, skipna=False)
        return {
            "mean": values.mean(both, skipna=False),
            "sd": values.std(both, ddof=1, skipna=False),
            f"eti_{100 * tails[0]:.3g}%": ends.isel(quantile=0, drop=True),
            f"eti_{100 * tails[1]:.3g}%": ends.isel(quantile=1, drop=True),
            "mcse_mean": arviz.mcse(dataset, method="mean")["x"],
            "mcse_sd": arviz.mcse(dataset, method="sd")["x"],
            "ess_bulk": arviz.ess(dataset, method="bulk")["x"],
            "ess_tail": arviz.ess(dataset, method="tail", prob=tails)["x"],
            "r_hat": arviz.rhat(dataset, method="rank")["x"],
        }


def _table(dataset: Any) -> Any:
    """A row for each element, labelled as ArviZ does; a column for each element along `metric`."""
    import pandas

    rows: dict[str, Any] = {}
    for name, values in dataset.data_vars.items():
        values = values.transpose("metric", ...)
        labels = [
            values[d].values if d in values.coords else range(n) for d, n in values.sizes.items()
        ]
        numbers = values.values.reshape(len(values), -1).T
        for where, row in zip(itertools.product(*labels[1:]), numbers):
            rows[f"{name}[{', '.join(map(str, where))}]" if where else str(name)] = row
    return pandas.DataFrame.from_dict(
        rows, orient="index", columns=[str(m) for m in dataset.metric.values]
    )


def _rounded(table: Any) -> str:
    """As text, to four digits."""
    whole = {"ess_bulk": "{:.0f}", "ess_tail": "{:.0f}", "r_hat": "{:.3f}"}
    shown = {c: whole.get(c, "{:.4g}").format for c in table.columns}
    return table.to_string(formatters=shown)


# ---- warnings ------------------------------------------------------------------------------------


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" * (len(names) > _NAMED)
    return ", ".join(names[:_NAMED]) + more


def _too_few(posterior: Any) -> list[str]:
    found = []
    if posterior.sizes["chain"] < 2:
        found.append("there is one chain: R-hat compares two or more")
    if posterior.sizes["draw"] < 4:
        found.append("R-hat and effective sample sizes need at least 4 draws of each chain")
    return found


def _never(names: list[str]) -> list[str]:
    return [f"never changed: {_some(names)}"] * bool(names)


def _of_r_hat(table: Any) -> list[str]:
    high = table["r_hat"][table["r_hat"] > R_HAT].sort_values(ascending=False)
    if high.empty:
        return []
    named = [f"{name} ({value:.3g})" for name, value in high.items()]
    return [f"R-hat is above {R_HAT}, the chains have not mixed: {_some(named)}"]


def _of_ess(table: Any) -> list[str]:
    least = table[["ess_bulk", "ess_tail"]].min(axis=1)
    low = least[least < ESS].sort_values()
    if low.empty:
        return []
    named = [f"{name} ({value:.0f})" for name, value in low.items()]
    return [f"the effective sample size is below {ESS}, take more draws: {_some(named)}"]


def _non_finite(groups: dict[str, Any], posterior: Any) -> list[str]:
    """By what the run recorded, which knows of draws that weren't kept, else by the draws."""
    recorded = groups["posterior"].attrs.get("non_finite")
    if recorded is not None:
        found = NonFinite.from_json(recorded)
    else:
        found = NonFinite()
        stats = groups.get("sample_stats")
        for dataset in [posterior] if stats is None else [posterior, stats]:
            variables = {
                str(k): v.transpose("chain", "draw", ...).values
                for k, v in dataset.data_vars.items()
                if dataset is posterior or k == "lp"
            }
            first, chains = int(dataset.draw[0]), dataset.chain.values
            found.update(Chunk(False, first, chains, variables, {}))
    without = " (the table is without such chains)"
    return [
        line + without * (not warmup and name in posterior)
        for (warmup, name), line in zip(found.found, found.lines())
    ]


_WRONG = {
    "diverging": "transitions diverged{first}, the target is too sharp for the step size: raise "
    "target_accept, or choose other parameters for the model",
    "invalid": "moves led to a log density that is NaN or +infinity{first}; they were not taken",
}


def _wrong(groups: dict[str, Any]) -> list[str]:
    """What kernels say of transitions that could not be made."""
    stats, found = groups.get("sample_stats"), []
    for name, text in _WRONG.items():
        if stats is None or name not in stats:
            continue
        flags = stats[name].transpose("draw", "chain")
        if count := int(flags.sum()):
            draw, chain = np.argwhere(flags.values)[0]
            first = f" (first draw {flags.draw.values[draw]} of chain {flags.chain.values[chain]})"
            found.append(f"{count} of {flags.size} {text.format(first=first)}")
    return found
