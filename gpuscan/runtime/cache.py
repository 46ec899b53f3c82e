"""Built libraries on disk, found by what they were made from."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def directory() -> Path:
    """Where libraries are kept: GPUSCAN_CACHE_DIR, or the user's cache directory. Raises OSError
    where there is none."""
    try:
        if own := os.environ.get("GPUSCAN_CACHE_DIR"):
            return Path(own).expanduser()
        if base := os.environ.get("XDG_CACHE_HOME"):
            return Path(base) / "gpuscan"
        return Path.home() / ".cache" / "gpuscan"
    except RuntimeError as e:  # a user without a home, as in containers
        raise OSError(str(e)) from None


def digest(*parts: str) -> str:
    """A name for what a library is made from."""
    h = hashlib.sha256()
    for part in parts:
        h.update(part.encode())
        h.update(b"\0")
    return h.hexdigest()[:40]


def fetch(key: str, build: Callable[[Path], None], load: Callable[[Path], Any]) -> Any:
    """The library of this key: from the cache, or built and put there.

    `build` writes a file at the path it is given, `load` opens one and raises OSError for a
    broken one. An entry appears by a rename, so other processes see all of it or nothing. A cache
    that can't be read or written costs the build, not the call.
    """
    try:
        entry = directory() / f"{key}.so"
    except OSError:
        return _private(build, load)
    with contextlib.suppress(OSError):  # none, or a broken one: made again
        if _is_whole(entry):
            return load(entry)
    made = entry.with_name(f"{key}.{os.urandom(8).hex()}.so")
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        # as the umask has it, which mkstemp does not ask: other users may share the cache
        os.close(os.open(made, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError:
        return _private(build, load)
    try:
        build(made)
        _seal(made)
        found = load(made)
        os.replace(made, entry)
    except OSError:  # a full disk, say
        return _private(build, load)
    finally:
        _remove(made)
    return found


def _seal(path: Path) -> None:
    """A checksum behind the library: to load a part of one would end the process."""
    made = path.read_bytes()
    with path.open("ab") as f:
        f.write(hashlib.sha256(made).digest())


def _is_whole(path: Path) -> bool:
    content = path.read_bytes()
    return hashlib.sha256(content[:-32]).digest() == content[-32:]


def _private(build: Callable[[Path], None], load: Callable[[Path], Any]) -> Any:
    """Built for this process alone."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="gpuscan-") as folder:
        made = Path(folder) / "library.so"
        build(made)
        return load(made)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
