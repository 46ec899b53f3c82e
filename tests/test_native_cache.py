"""Built libraries: where they are kept, what survives, and what a compiler's failure looks like."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpuscan
from gpuscan import tensor as T
from gpuscan.errors import BuildError, DeviceError
from gpuscan.runtime import cache, compiler, emulator

pytestmark = pytest.mark.skipif(
    compiler.find() is None, reason="no C compiler: set CC, or install gcc or clang"
)

ROOT = Path(gpuscan.__file__).resolve().parents[1]
SOURCE = "long long {name}(void) {{ return {value}; }}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: Any) -> Path:
    """A cache of its own."""
    monkeypatch.setenv("GPUSCAN_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def fresh(monkeypatch: Any) -> Iterator[None]:
    """What is known of the compiler is found again, before and after."""
    compiler.find.cache_clear()
    compiler.identity.cache_clear()
    yield
    monkeypatch.undo()
    compiler.find.cache_clear()
    compiler.identity.cache_clear()


def answer(value: int) -> int:
    return int(compiler.library(SOURCE.format(name="answer", value=value)).answer())


def script(path: Path, text: str) -> str:
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return str(path)


def counting(tmp_path: Path) -> tuple[str, Path]:
    """A compiler that writes a line for every build, and where."""
    log = tmp_path / "builds"
    real = " ".join(compiler.find() or ())
    word = 'case "$*" in *--version*) ;; *) echo build >> '
    return script(tmp_path / "counting", f'{word}{log} ;; esac\nexec {real} "$@"\n'), log


BUILDS = "build\n" * 2  # the kernel, and the team that runs it

PROGRAM = """
    import numpy as np, gpuscan
    from gpuscan import tensor as T
    x = T.vector("x")
    y, _ = gpuscan.scan(lambda a: T.tanh(a) + 0.25, outputs_info=[x], n_steps=3)
    f = gpuscan.function([x], y[-1], device="native")
    print(f.explain().scans[0].path, f(np.ones(2, "float32"))[0])
"""


# Root may write anywhere, other than what these tests are about: a process gives that up, and then
# starts its program. 24 is PR_CAPBSET_DROP, 1 and 2 are CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH.
OBEYING = """
    import ctypes, os, sys
    prctl = ctypes.CDLL(None).prctl
    prctl(24, 1, 0, 0, 0), prctl(24, 2, 0, 0, 0)
    os.execv(sys.executable, [sys.executable, "-c", sys.argv[1]])
"""


def start(program: str = PROGRAM, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(OBEYING), textwrap.dedent(program)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, **environment},
    )  # fmt: skip


def output(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert err == ""
    return out


# ---- the folder ---------------------------------------------------------------------------------


def test_the_folder_of_the_setting_holds_the_library(folder: Path) -> None:
    assert answer(41) == 41
    (entry,) = folder.iterdir()
    assert entry.suffix == ".so"


@pytest.mark.parametrize(("mask", "wanted"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_who_may_read_an_entry_is_the_umasks(folder: Path, mask: int, wanted: int) -> None:
    old = os.umask(mask)
    try:
        answer(42)
        cache.fetch("text", lambda path: path.write_text("made"), Path.read_bytes)
    finally:
        os.umask(old)
    (library,) = [p for p in folder.iterdir() if p.name != "text.so"]
    assert (folder / "text.so").stat().st_mode & 0o777 == wanted
    assert library.stat().st_mode & 0o666 == wanted


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({"GPUSCAN_CACHE_DIR": "/a", "XDG_CACHE_HOME": "/b"}, "/a"),
        ({"GPUSCAN_CACHE_DIR": "~/a", "HOME": "/c"}, "/c/a"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/gpuscan"),
        ({"HOME": "/c"}, "/c/.cache/gpuscan"),
    ],
)
def test_where_the_folder_is(variables: dict[str, str], wanted: str, monkeypatch: Any) -> None:
    for name in ("GPUSCAN_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache.directory() == Path(wanted)


def test_a_second_process_builds_nothing(folder: Path, tmp_path: Path) -> None:
    cc, log = counting(tmp_path)
    first = output(start(CC=cc))
    assert log.read_text() == BUILDS
    assert output(start(CC=cc)) == first
    assert first.startswith("fused")
    assert log.read_text() == BUILDS


def test_processes_that_build_at_once_agree_and_leave_one_entry_for_each(
    folder: Path, tmp_path: Path
) -> None:
    processes = [start() for _ in range(4)]
    assert len({output(p) for p in processes}) == 1
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("content", [b"", b"not a library", None], ids=["empty", "text", "cut"])
def test_a_corrupted_entry_is_built_again(folder: Path, content: bytes | None) -> None:
    value = 50 if content is None else 51 + len(content)
    source = SOURCE.format(name="answer", value=value)
    entry = folder / f"{cache.digest(compiler.identity(), source)}.so"
    if content is None:  # what a crash of the machine leaves: the start of a library
        command = [*(compiler.find() or ()), *compiler.flags(), "-x", "c", "-", "-o", "whole.so"]
        subprocess.run(command, input=source, text=True, check=True, cwd=folder.parent)
        content = (folder.parent / "whole.so").read_bytes()[:3000]
    folder.mkdir()
    entry.write_bytes(content)
    assert answer(value) == value
    assert entry.read_bytes() != content
    assert [p.name for p in folder.iterdir()] == [entry.name]


@pytest.fixture
def read_only(folder: Path) -> Iterator[Callable[[], None]]:
    """Makes the folder one that processes of `start` may read and not write."""
    folder.mkdir()

    def protect() -> None:
        folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
        _, err = start(f"open({str(folder / 'written')!r}, 'w')").communicate(timeout=60)
        if "PermissionError" not in err:
            pytest.skip("this user may write to folders that are read-only")

    yield protect
    folder.chmod(stat.S_IRWXU)


def test_a_folder_that_cannot_be_written_costs_the_build_only(
    folder: Path, read_only: Callable[[], None], tmp_path: Path
) -> None:
    cc, log = counting(tmp_path)
    read_only()
    assert output(start(CC=cc)) == output(start(CC=cc))
    assert log.read_text() == BUILDS * 2
    assert list(folder.iterdir()) == []


def test_a_read_only_folder_is_read(
    folder: Path, read_only: Callable[[], None], tmp_path: Path
) -> None:
    cc, log = counting(tmp_path)
    first = output(start(CC=cc))
    read_only()
    assert output(start(CC=cc)) == first
    assert log.read_text() == BUILDS


def test_no_home_costs_the_build_only(tmp_path: Path, monkeypatch: Any) -> None:
    for name in ("GPUSCAN_CACHE_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)

    def unknown(uid: int) -> Any:  # a user that /etc/passwd does not name
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", unknown)
    with pytest.raises(OSError, match="home"):
        cache.directory()
    assert answer(64) == 64


def test_a_file_in_the_folders_place_costs_the_build_only(folder: Path) -> None:
    folder.write_text("a file")
    assert answer(61) == 61
    assert folder.read_text() == "a file"


FULL = 'case "$*" in *{where}*) echo "cannot write: No space left on device" >&2; exit 1;; esac\n'


def test_a_disk_that_is_full_when_the_compiler_writes_costs_the_entry_only(
    folder: Path, tmp_path: Path
) -> None:
    text = FULL.format(where=folder) + f'exec {" ".join(compiler.find() or ())} "$@"\n'
    assert output(start(CC=script(tmp_path / "full", text))).startswith("fused")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("step", ["_seal", "os.replace"])
def test_a_disk_that_is_full_later_costs_the_entry_only(
    folder: Path, monkeypatch: Any, step: str
) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"gpuscan.runtime.cache.{step}", full)
    value = 620 + len(step)
    assert answer(value) == value
    assert list(folder.iterdir()) == []


def test_no_space_anywhere_is_a_build_error(
    folder: Path, tmp_path: Path, monkeypatch: Any, fresh: None
) -> None:
    monkeypatch.setenv("CC", script(tmp_path / "full", FULL.format(where=".so")))
    compiler.find.cache_clear()
    with pytest.raises(BuildError, match="No space left"):
        answer(65)


def test_another_compiler_or_flag_is_another_entry(
    folder: Path, tmp_path: Path, monkeypatch: Any, fresh: None
) -> None:
    assert answer(63) == 63
    monkeypatch.setenv("CC", counting(tmp_path)[0])
    compiler.find.cache_clear()
    compiler.identity.cache_clear()
    assert answer(63) == 63
    assert len(list(folder.iterdir())) == 2


def test_a_compiler_is_told_by_its_file_without_being_started(
    folder: Path, tmp_path: Path, monkeypatch: Any, fresh: None
) -> None:
    log, real = tmp_path / "starts", " ".join(compiler.find() or ())
    text = f'echo start >> {log}\nexec {real} "$@"\n'
    monkeypatch.setenv("CC", script(tmp_path / "own", text))

    def entries() -> tuple[int, int]:
        compiler.find.cache_clear()
        compiler.identity.cache_clear()
        assert answer(64) == 64
        return log.read_text().count("start"), len(list(folder.iterdir()))

    assert entries() == (1, 1)
    assert entries() == (1, 1)
    script(tmp_path / "own", text + "# a new version\n")
    assert entries() == (2, 2)


# ---- compilers ----------------------------------------------------------------------------------


def test_a_failing_build_shows_the_numbered_source_and_the_compilers_words(folder: Path) -> None:
    with pytest.raises(BuildError) as e:
        compiler.library("int one;\nint two = nothing_of_this_name;\n")
    text = str(e.value)
    assert "   1 int one;\n   2 int two = nothing_of_this_name;" in text
    assert "error" in text
    assert "nothing_of_this_name" in text.split("   1 int one;")[0]  # the compiler's own words
    assert list(folder.iterdir()) == []


def test_a_function_that_is_not_there_is_the_compilers_error(folder: Path) -> None:
    with pytest.raises(BuildError, match="nowhere_defined"):
        compiler.library("int answer(void) { return nowhere_defined(1); }\n")


# What several libraries call: a number of its own in each test, so that no other has built it.
TWICE = '__attribute__((visibility("hidden"))) long long twice(long long x) {{ {} return 2 * x; }}'
CALLS = "long long twice(long long); long long answer(void) {{ return twice({}); }}"


def test_a_routine_is_built_once_for_all_that_call_it(
    folder: Path, tmp_path: Path, monkeypatch: Any, fresh: None
) -> None:
    compiler_, log = counting(tmp_path)
    monkeypatch.setenv("CC", compiler_)
    compiler.find.cache_clear()
    compiler.identity.cache_clear()
    routine = TWICE.format("/* once */")
    found = [compiler.library(CALLS.format(x), [routine]).answer() for x in (31, 32)]
    assert found == [62, 64]
    # the routine; a source and a link for each library
    assert log.read_text().count("build") == 1 + 2 * 2
    compiler._objects.clear()  # as in another process, which finds it on disk
    assert compiler.library(CALLS.format(33), [routine]).answer() == 66
    assert log.read_text().count("build") == 1 + 3 * 2
    assert len(list(folder.iterdir())) == 4


def test_a_routine_that_fails_is_tried_again(
    folder: Path, tmp_path: Path, monkeypatch: Any, fresh: None
) -> None:
    source, routine = CALLS.format(34), TWICE.format("x += NOT_YET;")
    with pytest.raises(BuildError, match="NOT_YET"):
        compiler.library(source, [routine])
    assert list(folder.iterdir()) == []
    monkeypatch.setenv("CC", " ".join(compiler.find() or ()) + " -DNOT_YET=1")
    compiler.find.cache_clear()
    assert compiler.library(source, [routine]).answer() == 70


def test_a_compiler_that_fails_stops_a_function_that_asked_for_native(
    folder: Path, tmp_path: Path, monkeypatch: Any, fresh: None
) -> None:
    monkeypatch.setenv("CC", script(tmp_path / "broken", "echo out of order >&2\nexit 3\n"))
    x = T.vector("x")
    with pytest.raises(BuildError, match="out of order"):
        gpuscan.function([x], T.exp(x) * 2, device="native")


def test_a_compiler_that_is_killed_is_a_build_error(
    folder: Path, tmp_path: Path, monkeypatch: Any, fresh: None
) -> None:
    monkeypatch.setenv("CC", script(tmp_path / "killed", "kill -9 $$\n"))
    with pytest.raises(BuildError):
        answer(70)


def test_a_compiler_that_is_not_there_is_passed_over(
    folder: Path, monkeypatch: Any, fresh: None
) -> None:
    monkeypatch.delenv("CC", raising=False)
    compiler.find.cache_clear()
    plain = compiler.find()
    compiler.find.cache_clear()
    monkeypatch.setenv("CC", "/no/such/compiler -m64")
    assert compiler.find() == plain
    assert answer(71) == 71


def test_a_setting_that_is_no_command_is_named(monkeypatch: Any, fresh: None) -> None:
    monkeypatch.setenv("CC", 'gcc "')
    compiler.find.cache_clear()
    x = T.vector("x")
    words = r"'native' is not available: CC is no command: 'gcc \"' .No closing quotation"
    with pytest.raises(DeviceError, match=words):
        gpuscan.function([x], x + 1, device="native")
    f = gpuscan.function([x], x + 1, device="auto")
    assert f.device == "reference" and "CC is no command" in f.explain().fallback
    monkeypatch.setenv("CXX", "g++ '")
    emulator.find.cache_clear()
    try:
        assert emulator.missing() == 'CXX is no command: "g++ \'" (No closing quotation)'
    finally:
        emulator.find.cache_clear()


def test_options_in_the_setting_reach_the_compiler(
    folder: Path, monkeypatch: Any, fresh: None
) -> None:
    monkeypatch.setenv("CC", " ".join(compiler.find() or ()) + " -DFROM_CC=72")
    compiler.find.cache_clear()
    assert compiler.library("int answer(void) { return FROM_CC; }\n").answer() == 72


def test_without_a_compiler_native_is_not_available(monkeypatch: Any, fresh: None) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setitem(sys.modules, "ziglang", None)
    x = T.vector("x")
    with pytest.raises(DeviceError, match="no C compiler"):
        gpuscan.function([x], x + 1, device="native")
    np.testing.assert_array_equal(gpuscan.function([x], x + 1, device="auto")([1, 2]), [2, 3])
