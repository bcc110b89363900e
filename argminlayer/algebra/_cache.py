"""Models built from algebra, kept for problems that are seen again."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class ModelCache(Generic[T]):
    """The models used last, by the signature of the algebra they were built from; safe to share by threads.

    Args:
        size: how many models are kept.
    """

    def __init__(self, size: int = 16):
        self._size = size
        self._models: OrderedDict[Hashable, T] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, build: Callable[[], T]) -> T:
        """Return the model of ``key``, built if it is not there; what ``build`` raises is passed on."""
        with self._lock:
            if key in self._models:
                self._models.move_to_end(key)
                return self._models[key]
        model = build()
        with self._lock:
            kept = self._models.setdefault(key, model)
            self._models.move_to_end(key)
            while len(self._models) > self._size:
                self._models.popitem(last=False)
        return kept

    def clear(self) -> None:
        """Forget every model."""
        with self._lock:
            self._models.clear()

    def __len__(self) -> int:
        return len(self._models)
