"""Minibatches: made ahead of time by a thread, and cut from long sequences."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np

from .config import config
from .runtime.device import select

Item = TypeVar("Item")


def prefetch(iterable: Iterable[Item], depth: int = 2, device: str | None = None) -> Prefetch[Item]:
    """The items of an iterable, which a thread takes from it ahead of time: at most `depth` of them
    wait to be used. What the iterable raises is raised by `next`, after the items before it.

    On a GPU, `device` or that of the settings, the arrays of booleans, integers and floats in an
    item are copied there while earlier items are computed with, through page-locked memory and on
    a stream of their own, and the item has the GPU's arrays instead, of the same dtype: also in
    tuples, lists and dictionaries, and with anything else between them. Numbers stay as they are.
    Of several GPUs it is the one that is current now, and has to be when an item is taken.

    A loop that is left early leaves the thread to the garbage collector; `with prefetch(...)` and
    `close()` end it, once the iterable has given the item that it is at. Items have to be arrays of
    their own: an iterable that fills the same array again changes what waits.

    Raises ValueError for a depth below 1 or a device that there is not, DeviceError for one that is
    not here.
    """
    if isinstance(depth, bool) or not isinstance(depth, int) or depth < 1:
        raise ValueError(f"prefetch: depth is a whole number above 0, got {depth!r}")
    iterator = iter(iterable)
    made = select(config.device if device is None else device)
    return Prefetch(iterator, depth, _Uploaded(made) if hasattr(made, "uploads") else _Plain())


class Prefetch(Iterator[Item]):
    """What `prefetch` returns: an iterator that can be closed."""

    def __init__(self, iterator: Iterator[Item], depth: int, way: _Plain | _Uploaded) -> None:
        self._feed, self._way = _Feed(depth), way
        # The thread has no reference to this object, so that it can be collected.
        self._thread = threading.Thread(
            target=_produce, args=(self._feed, iterator, way.prepared), name="prefetch", daemon=True
        )
        weakref.finalize(self, self._feed.stop)
        self._thread.start()

    def __next__(self) -> Item:
        return self._feed.take(self._way)

    def close(self) -> None:
        """Ends the thread and drops the items that wait. Then there are no more."""
        self._feed.stop()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def __enter__(self) -> Prefetch[Item]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Feed:
    """The items between the thread and its consumer."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.ready: deque[Any] = deque()
        self.changed = threading.Condition()
        self.ended = False  # no more items come
        self.stopped = False  # none are wanted
        self.error: BaseException | None = None

    def has_room(self) -> bool:
        """Waits for it. False: no more items are wanted."""
        with self.changed:
            self.changed.wait_for(lambda: self.stopped or len(self.ready) < self.depth)
            return not self.stopped

    def put(self, item: Any) -> None:
        with self.changed:
            if not self.stopped:
                self.ready.append(item)
                self.changed.notify_all()

    def end(self, error: BaseException | None = None) -> None:
        with self.changed:
            self.ended, self.error = True, error
            self.changed.notify_all()

    def stop(self) -> None:
        with self.changed:
            self.stopped = self.ended = True
            self.error = None
            self.ready.clear()
            self.changed.notify_all()

    def take(self, way: _Plain | _Uploaded) -> Any:
        with self.changed:
            self.changed.wait_for(lambda: self.ready or self.ended)
            if self.ready:
                for item in self.ready:
                    way.begin(item)
                item = self.ready.popleft()
                self.changed.notify_all()
                return way.finished(item)
            error, self.error = self.error, None
        try:
            raise StopIteration if error is None else error
        finally:
            del error  # its traceback has this frame


def _produce(feed: _Feed, iterator: Iterator[Any], prepared: Callable[[Any], Any]) -> None:
    try:
        while feed.has_room():
            try:
                item = next(iterator)
            except StopIteration:
                break
            feed.put(prepared(item))
            del item  # it is the consumer's alone
    except BaseException as e:
        feed.end(e)
    else:
        feed.end()


class _Plain:
    """Items as they are."""

    def prepared(self, item: Any) -> Any:
        return item

    def begin(self, item: Any) -> None: ...

    def finished(self, item: Any) -> Any:
        return item


class _Array:
    """An array of an item on its way to the device: its values in page-locked memory, and when the
    copy was started the array of the device, and what tells that the copy is done."""

    __slots__ = ("copy", "memory", "target", "values")

    def __init__(self, memory: np.ndarray, x: np.ndarray) -> None:
        self.memory = memory
        self.values = memory[: x.nbytes].view(x.dtype).reshape(x.shape)
        self.values[...] = x
        self.target = self.copy = None


class _Uploaded:
    """Items with their arrays on a device. The thread fills page-locked memory; the copies are
    started by the consumer, as memory of a GPU may belong to the thread that asks for it."""

    def __init__(self, device: Any) -> None:
        self.device = device
        with device.active():
            self.uploads = device.uploads()
        self.free: dict[int, deque[np.ndarray]] = {}  # page-locked memory by its size

    def prepared(self, item: Any) -> Any:
        return _mapped(lambda x: _Array(self._memory(x.nbytes), x) if _is_moved(x) else x, item)

    def _memory(self, size: int) -> np.ndarray:
        size = max(256, 1 << (size - 1).bit_length())  # so that a shorter last batch fits, too
        free = self.free.setdefault(size, deque())
        return free.popleft() if free else self.uploads.staging(size)

    def begin(self, item: Any) -> None:
        with self.device.active():
            _mapped(self._begin, item)

    def _begin(self, x: Any) -> None:
        if isinstance(x, _Array) and x.target is None:
            target = self.device.empty(x.values.shape, x.values.dtype.name)
            if x.values.size:
                x.copy = self.uploads.start(target, x.values)
            x.target = target

    def finished(self, item: Any) -> Any:
        with self.device.active():
            return _mapped(self._finished, item)

    def _finished(self, x: Any) -> Any:
        if not isinstance(x, _Array):
            return x
        if x.values.size:
            self.uploads.finish(x.copy)
        self.free[len(x.memory)].append(x.memory)
        return x.target


def _is_moved(x: Any) -> bool:
    return isinstance(x, np.ndarray) and x.ndim > 0 and x.dtype.kind in "buif"


def _mapped(change: Callable[[Any], Any], item: Any) -> Any:
    """The item with its leaves changed, what is in no tuple, list or dictionary."""
    match item:
        case tuple() | list():
            parts = [_mapped(change, x) for x in item]
            return type(item)(*parts) if hasattr(item, "_fields") else type(item)(parts)
        case dict():
            return {key: _mapped(change, x) for key, x in item.items()}
    return change(item)


# ---- long sequences ------------------------------------------------------------------------------


def streams(sequence: Any, count: int) -> np.ndarray:
    """A sequence (n, ...) cut into `count` equal pieces that lie side by side, (n // count, count,
    ...): column k is the k-th piece. A remainder at the end is left out.

    Raises ValueError where the sequence is shorter than that.
    """
    x = np.asarray(sequence)
    if count < 1 or x.ndim < 1 or len(x) < count:
        shape = " x ".join(map(str, x.shape)) or "no axis"
        raise ValueError(f"streams: {count} pieces of a sequence of {shape}")
    steps = len(x) // count
    pieces = x[: steps * count].reshape(count, steps, *x.shape[1:])
    return np.ascontiguousarray(pieces.swapaxes(0, 1))


def windows(
    sequence: np.ndarray, length: int, overlap: int = 1, start: int = 0
) -> Iterator[np.ndarray]:
    """Windows over the steps of a sequence (n, ...), for backpropagation that is truncated: views
    of length + overlap steps, each begins `length` steps after the one before, and the first one at
    step `start`. The last has the steps that are left, if they are more than `overlap`.

    With overlap=1 a window has the inputs [:-1] and what follows each of them, [1:].
    """
    if length < 1 or overlap < 0 or start < 0:
        raise ValueError(f"windows: length {length}, overlap {overlap}, start {start}")
    return (
        sequence[k : k + length + overlap] for k in range(start, len(sequence) - overlap, length)
    )
