"""The kernel sources are found in a checkout, in a wheel and in an sdist."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from gpuscan import kernel_files

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(p.relative_to(ROOT / "kernels") for p in (ROOT / "kernels").rglob("*.*"))


def listing(folder):
    return sorted(p.relative_to(folder) for p in Path(folder).rglob("*.*"))


def found_from(folder):
    """What kernels_dir() gives in a new process whose gpuscan is the one in `folder`."""
    code = (
        f"import sys; sys.path.insert(0, {str(folder)!r});"
        "from gpuscan import kernel_files as k; print(k.__file__); print(k.kernels_dir())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, check=True
    )
    module, place = done.stdout.split("\n")[:2]
    assert Path(module).is_relative_to(folder)
    return Path(place)


def test_a_checkout_and_an_editable_install_read_the_top_level_folder():
    assert kernel_files.kernels_dir() == ROOT / "kernels"


def test_a_missing_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(kernel_files, "__file__", str(tmp_path / "gpuscan" / "kernel_files.py"))
    with pytest.raises(FileNotFoundError, match=r"_kernels nor .*kernels is there"):
        kernel_files.kernels_dir()


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder with the wheel and the sdist of this checkout."""
    folder = tmp_path_factory.mktemp("built")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-t", "sdist", "-d", folder]
    subprocess.run(build, check=True, cwd=ROOT, capture_output=True)
    return folder


def test_a_wheel_carries_every_source(built, tmp_path):
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    place = found_from(tmp_path)
    assert place == tmp_path / "gpuscan" / "_kernels"
    assert listing(place) == SOURCES
    assert (tmp_path / "gpuscan" / "py.typed").is_file()


def test_an_sdist_carries_every_source(built, tmp_path):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (project,) = tmp_path.iterdir()
    assert found_from(project) == project / "kernels"
    assert listing(project / "kernels") == SOURCES
