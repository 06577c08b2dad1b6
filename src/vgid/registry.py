"""Registries of methods, attacks and benchmarks by name.

Other packages add theirs with entry points (docs/extend.md). They are imported when their name is looked up, or when all names are listed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pkgutil import iter_modules
from typing import Any, Generic, TypeVar

from vgid.errors import ConfigError, nearest

T = TypeVar("T")
BROKEN = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)
"""Errors that importing another package's module raises where that module is at fault."""

log = logging.getLogger("vgid")


class Registry(Generic[T]):
    """A mapping from names to things of one kind; it refuses duplicates, and suggests a name for a misspelt one.

    Args:
        kind: word for the things in messages, such as `method`.
        group: group of entry points with which other packages offer theirs; None for none.
        base: class that theirs must derive from.
        must: attributes that theirs must have, each with its type or the values it may have.
    """

    def __init__(self, kind: str, *, group: str | None = None, base: type = object, must: Mapping[str, Any] | None = None) -> None:
        self.kind, self.group, self._base, self._must = kind, group, base, dict(must or {})
        self._things: dict[str, T] = {}
        self._warned: set[str] = set()

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that adds a thing under a name.

        Raises:
            ConfigError: the name is registered already.
        """

        def add(thing: T) -> T:
            if name in self._things:
                raise ConfigError(f"{self.kind} {name!r} is registered twice")
            self._things[name] = thing
            return thing

        return add

    def get(self, name: str) -> T:
        """Look up a name, first among vgid's own, then among those of other packages.

        Raises:
            ConfigError: the name is unknown (the message suggests the most similar one), or the package that offers it cannot be used.
        """
        if name in self._things:
            return self._things[name]
        offered = self._offered()
        if name in offered:
            return self._load(offered[name])
        known = [*self._things, *offered]
        close = nearest(name, known)
        raise ConfigError(
            f"unknown {self.kind}",
            expected=", ".join(known),
            got=repr(name),
            fix=f"did you mean {close!r}?" if close else None,
        )

    def __iter__(self) -> Iterator[str]:
        """Iterate over vgid's own names, then those of other packages; unusable ones are left out, with one warning for each."""
        own, offered = list(self._things), self._offered()
        usable = [name for name in offered if name not in own and self._usable(name, offered[name])]
        for point in [point for name, points in offered.items() if name in own for point in points]:
            if _root(getattr(self._things[point.name], "__module__", "")) != _root(point.module):
                self._warn(f"{package(point)} offers a {self.kind} {point.name!r}, which vgid has itself; that of the package is not used")
        return iter([*own, *usable])

    def package(self, name: str) -> str | None:
        """Return name and version of the other package that offers a name; None for vgid's own."""
        offered = {} if name in self._things else self._offered()
        return package(offered[name][0]) if name in offered else None

    def _offered(self) -> dict[str, list[EntryPoint]]:
        """Entry points by their names; several packages may offer the same name."""
        found: dict[str, list[EntryPoint]] = {}
        for point in entry_points(group=self.group) if self.group else ():
            found.setdefault(point.name, []).append(point)
        return dict(sorted(found.items()))

    def _usable(self, name: str, points: list[EntryPoint]) -> bool:
        try:
            self._load(points)
        except ConfigError as problem:
            self._warn(f"{self.kind} {name!r} is left out: {problem}")
            return False
        return True

    def _warn(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            log.warning(text)

    def _load(self, points: list[EntryPoint]) -> T:
        """Import what an entry point names, and check it.

        Raises:
            ConfigError: several packages offer the name, or this one cannot be imported or does not fit; the message names the package.
        """
        point, *others = points
        if others:
            raise ConfigError(
                f"{self.kind} {point.name!r} is offered more than once",
                got=", ".join(package(each) for each in points),
                fix="uninstall all but one of them",
            )
        try:
            thing: T = point.load()
        except BROKEN as error:
            raise ConfigError(
                f"the package {package(point)} cannot be used",
                where=f"{self.group}: {point.name} = {point.value}",
                got=f"{type(error).__name__}: {error}",
                fix="correct or uninstall it",
            ) from error
        faults = self._faults(thing, point.name)
        if faults:
            raise ConfigError(
                f"the package {package(point)} does not offer a valid {self.kind}",
                where=f"{self.group}: {point.name} = {point.value}",
                got="; ".join(faults),
                fix="see docs/extend.md",
            )
        return thing

    def _faults(self, thing: Any, name: str) -> list[str]:
        if not (isinstance(thing, type) and issubclass(thing, self._base)):
            return [f"not a class derived from {self._base.__module__}.{self._base.__name__}"]
        faults = [f"{each} is not defined" for each in sorted(getattr(thing, "__abstractmethods__", ()))]
        faults += [fault for each, wanted in self._must.items() if (fault := _fault(thing, each, wanted))]
        own = getattr(thing, "name", name)
        return faults if own == name else [*faults, f"its name is {own!r}"]


def discover(package: str) -> None:
    """Import every module of a package, so that what they define is registered without a list of names.

    Args:
        package: dotted name, such as `vgid.methods`.
    """
    for module in iter_modules(import_module(package).__path__):
        import_module(f"{package}.{module.name}")


def _fault(thing: type, name: str, wanted: Any) -> str | None:
    """What is wrong with a class's attribute: it must have a type, be a class derived from it, or have one of several values."""
    if not hasattr(thing, name):
        return f"{name} is not set"
    value = getattr(thing, name)
    if isinstance(wanted, tuple):
        return None if value in wanted else f"{name} is not one of {', '.join(map(repr, wanted))}"
    fits = issubclass(value, wanted) if isinstance(value, type) else isinstance(value, wanted)
    return None if fits else f"{name} is not a {wanted.__name__}"


def _root(module: str) -> str:
    return module.partition(".")[0]


def package(point: EntryPoint) -> str:
    """Return name and version of the package that an entry point belongs to; the module's name where it has none."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.module
