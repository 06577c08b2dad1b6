"""Names for things that come in many kinds; a method is one file and one registry line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from vgid.errors import ConfigError, nearest

T = TypeVar("T")


class Registry(Generic[T]):
    """A mapping from name to thing that refuses duplicates and knows the nearest name."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._things: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator: make a thing known under a name."""

        def add(thing: T) -> T:
            if name in self._things:
                raise ConfigError(f"{self.kind} {name!r} is registered twice")
            self._things[name] = thing
            return thing

        return add

    def get(self, name: str) -> T:
        """Look a name up.

        Raises:
            ConfigError: with the nearest known name.
        """
        if name not in self._things:
            close = nearest(name, self._things)
            raise ConfigError(
                f"unknown {self.kind}",
                expected=", ".join(self),
                got=repr(name),
                fix=f"did you mean {close!r}?" if close else None,
            )
        return self._things[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._things)
