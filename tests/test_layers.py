"""The house: layers import one way, `import gpuscan` is light, the top level is fixed."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "gpuscan"

# From the lowest to the highest. A name stands for a module, or for a folder of modules.
LAYERS = (
    (
        "config",
        "errors",
        "record",
        "types",
        "operators",
        "maths",
        "philox",
        "kernel_files",
        "modes",
    ),
    ("graph",),
    ("evaluate",),
    ("ops",),
    ("shared", "rewrite", "gradient", "printing", "clone"),
    ("scan", "rules", "tensor"),
    ("codegen", "runtime"),
    ("compile", "compile_native", "compile_cuda", "selection", "explain"),
    ("memory_walk", "memory_walk_cuda", "memory_report"),
    ("function",),
    ("optim", "data", "saving", "distributed"),
    ("mc",),
    ("__init__", "theano", "examples", "selftest", "__main__"),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

# What a part may not import although its layer would allow it.
NEVER = {
    "rewrite": {"ops"},
    "gradient": {"scan", "codegen", "runtime"},
    "codegen": {"runtime"},
    "runtime": {"codegen"},
}

MODULES = sorted(PACKAGE.rglob("*.py"))


def part(names):
    """The part of the package that a module (its names below gpuscan) belongs to."""
    return names[0] if names and names[0] in LEVEL else "__init__"


def imported(path):
    """(line, names below gpuscan) of every import of the package's own modules."""
    folder = path.relative_to(PACKAGE).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top, *rest = alias.name.split(".")
                if top == "gpuscan":
                    yield node.lineno, tuple(rest)
        elif isinstance(node, ast.ImportFrom):
            module = tuple((node.module or "").split(".")) if node.module else ()
            if node.level:
                base = folder[: len(folder) - (node.level - 1)] + module
            elif module[:1] == ("gpuscan",):
                base = module[1:]
            else:
                continue
            for alias in node.names:  # `from . import x` names a module only by its alias
                yield node.lineno, base or (alias.name,)


def test_every_module_has_a_layer():
    folders = {p.name for p in PACKAGE.iterdir() if p.is_dir() and list(p.glob("*.py"))}
    assert folders | {p.stem for p in PACKAGE.glob("*.py")} <= set(LEVEL)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_layers_import_one_way(path):
    own = part(path.relative_to(PACKAGE).with_suffix("").parts)
    wrong = []
    for line, names in imported(path):
        other = part(names)
        if names[:2] in (("codegen", "program"), ("codegen", "limits"), ("runtime", "device")):
            continue  # data: where codegen and runtime meet; and what devices there are
        if LEVEL[other] > LEVEL[own] or other in NEVER.get(own, ()):
            wrong.append(f"line {line}: {own} imports {other} ({'.'.join(names)})")
    assert not wrong


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_file_is_too_long_to_read(path):
    assert len(path.read_text().splitlines()) <= 700


def test_the_sources_of_kernels_are_short_too():
    long = {
        p.name: n
        for p in (ROOT / "kernels").rglob("*.*")
        if (n := len(p.read_text().splitlines())) > 700
    }
    long.pop("maths_tables.h", None)  # numbers, not read
    assert not long


def test_the_top_level_holds_nothing_else():
    done = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip("not a git checkout")
    top = {line.split("/")[0] for line in done.stdout.splitlines()}
    allowed = {"gpuscan", "kernels", "tests", "benchmarks", "pyproject.toml", "README.md"}
    assert {name for name in top if not name.startswith(".")} <= allowed


def in_a_new_process(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", f"import json, sys, time; {code}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
        check=True,
    )
    return json.loads(done.stdout)


def test_import_brings_in_only_numpy():
    tops = in_a_new_process(
        "import numpy; before = set(sys.modules); import gpuscan;"
        "print(json.dumps(sorted({m.split('.')[0] for m in set(sys.modules) - before})))"
    )
    assert set(tops) - sys.stdlib_module_names <= {"gpuscan", "numpy"}


def test_import_is_quick(tmp_path):
    """Less than 0.1 s of processor time after NumPy; one quick import shows it, as whatever else
    a machine does only adds to it."""

    def seconds():
        return in_a_new_process(
            "import numpy; t = time.process_time(); import gpuscan; print(time.process_time() - t)",
            PYTHONDONTWRITEBYTECODE="",
            PYTHONPYCACHEPREFIX=str(tmp_path),
        )

    seconds()  # writes the byte code
    assert any(seconds() < 0.1 for _ in range(20))
