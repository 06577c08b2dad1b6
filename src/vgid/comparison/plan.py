"""What a comparison runs: which contenders, on which people, with which settings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from vgid.config import RunConfig, read_recipe, recipe_names, resolve
from vgid.demo.targets import TARGETS, Target
from vgid.errors import ConfigError, nearest
from vgid.methods import METHODS
from vgid.settings import DEFAULT_METHOD

Budget = Literal["equal-steps", "equal-time"]
BEFORE, REFERENCE = "untouched", "retrain"
"""What every comparison measures besides: the model before unlearning, and one that never met those to forget."""
TIMED = DEFAULT_METHOD
"""The method whose time is every method's time budget, where budgets are times."""
NEVER = 1_000_000
"""Looks that would have to agree for an early stop: all take the same steps, and each ends with its best look."""


class Tuned(NamedTuple):
    """What a search found: settings by dotted key, their composite on the validation part, and after how many trials."""

    settings: Mapping[str, Any]
    composite: float
    trials: int


class Earlier(NamedTuple):
    """What an earlier comparison's search found, and on whose people: the seed it was run on."""

    seed: int
    trials: int
    tuned: Mapping[str, Tuned]


class Contender(NamedTuple):
    """A method under the name it is shown by; `recipe` where that says more than the name."""

    name: str
    method: str
    recipe: str | None = None

    @property
    def trains(self) -> bool:
        """Whether it takes steps at all."""
        return METHODS.get(self.method).trains

    def search(self) -> dict[str, Any]:
        """What to try when it is tuned; what a variant's recipe settles is left alone."""
        settled = _settled(self.recipe) if self.recipe else {}
        return {key: space for key, space in METHODS.get(self.method).search.items() if not any(_touch(key, each) for each in settled)}


@dataclass(frozen=True)
class Plan:
    """A whole comparison.

    Attributes:
        target: the base model and how it memorises.
        people: how many it memorises.
        forget: how many of them are forgotten.
        contenders: what is compared, besides the two references.
        seeds: each draws people of its own.
        budget: what is the same for all that train: optimizer steps, or the seconds VGID takes.
        steps: optimizer steps; None leaves them to the configuration.
        trials: trials in the search for each contender's settings; 0 takes the settings that come with it.
        earlier: settings that were found before, in place of a search.
    """

    target: Target
    people: int
    forget: int
    contenders: tuple[Contender, ...]
    seeds: tuple[int, ...]
    budget: Budget = "equal-steps"
    steps: int | None = None
    trials: int = 0
    earlier: Earlier | None = None

    @property
    def found(self) -> dict[str, Tuned]:
        """What an earlier search found for these contenders; the others keep the settings that come with them."""
        earlier = self.earlier.tuned if self.earlier else {}
        return {each.name: earlier[each.name] for each in self.contenders if each.name in earlier}

    def config(self, contender: Contender, seed: int, settings: Mapping[str, Any] | None = None, steps: int | None = None) -> RunConfig:
        """The configuration of one run: what fits the target, then what fits the method, then what was found by tuning.

        Raises:
            ConfigError: a setting is not valid.
        """
        overrides = [*self.target.settings(contender.method)]
        if contender.recipe:
            overrides = [*(f"{key}={json.dumps(value)}" for key, value in _settled(contender.recipe).items()), *overrides]
        steps = steps or self.steps
        overrides += [f"training.steps={steps}"] if steps and contender.trains else []
        overrides += [f"{key}={json.dumps(value)}" for key, value in (settings or {}).items()]
        overrides += [f"validation.patience={NEVER}", f"seed={seed}"]
        return resolve(self.target.recipe, overrides, method=contender.method)


def plan_of(
    target: str,
    methods: Sequence[str],
    *,
    seeds: int,
    first_seed: int = 0,
    people: int | None = None,
    forget: int | None = None,
    budget: Budget = "equal-steps",
    steps: int | None = None,
    trials: int = 0,
    settings: Path | None = None,
) -> Plan:
    """Check everything that can be checked before anything runs.

    Raises:
        ConfigError: an unknown target, method or setting; a method named twice; equal times without VGID's; settings both searched
            and given.
    """
    base = TARGETS.get(target)
    chosen = tuple(each for each in contenders(methods or everything()) if each.name not in (BEFORE, REFERENCE))
    if budget == "equal-time" and TIMED not in [each.name for each in chosen]:
        raise ConfigError(f"equal times are those of {TIMED}", expected=f"{TIMED} among the methods", got=", ".join(methods), fix="add it")
    if settings and trials:
        raise ConfigError("settings are either searched or given", got="--tune and --settings", fix="leave one of them out")
    numbers, earlier = tuple(range(first_seed, first_seed + seeds)), read_earlier(settings) if settings else None
    plan = Plan(base, people or base.people[0], forget or base.people[1], _timed_first(chosen), numbers, budget, steps, trials, earlier)
    for contender in plan.contenders:
        found = plan.found.get(contender.name)
        plan.config(contender, first_seed, found.settings if found else None)
    return plan


def read_earlier(path: Path) -> Earlier:
    """The settings in the results of an earlier comparison.

    Raises:
        ConfigError: the file cannot be read, or holds no settings that were tuned.
    """
    expected = "the comparison.json of a comparison with --tune"
    try:
        results = json.loads(path.read_text("utf-8"))
        tuned = {name: Tuned(**found) for name, found in results["tuned"].items()}
        earlier = Earlier(results["tuned_on"], max(found.trials for found in tuned.values()), tuned)
    except OSError as error:
        raise ConfigError(f"cannot read the settings: {error.strerror or error}", where=str(path), expected=expected) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError("the file holds no settings that were tuned", where=str(path), expected=expected) from error
    return earlier


def everything() -> list[str]:
    """All methods but references and those that are a variant's, and all variants."""
    found = variants()
    own = {method for _, method in found.values()}
    names = [name for name in METHODS if METHODS.get(name).kind != "reference"]
    return [*(name for name in names if name in {of for of, _ in found.values()} or name not in own), *map(variant_name, found)]


def variants() -> dict[str, tuple[str, str]]:
    """Built-in recipes that are variants of a method in comparisons: to that method, and to the one they run.

    A variant has the recipe's method settings; how it trains is the comparison's.
    """
    recipes = {name: read_recipe(name) for name in recipe_names()}
    return {
        name: (recipe.variant_of, str(recipe.values.get("method", {}).get("name", recipe.variant_of)))
        for name, recipe in recipes.items()
        if recipe.variant_of
    }


def variant_name(recipe: str) -> str:
    """What a comparison calls a variant, such as `vgid:paper`."""
    return f"{variants()[recipe][0]}:{recipe}"


def contenders(names: Sequence[str]) -> tuple[Contender, ...]:
    """Contenders by name: a method, or `vgid:` and a variant.

    Raises:
        ConfigError: there is none of that name, or one is named twice.
    """
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ConfigError("a method is named twice", got=repr(twice), fix="name it once")
    return tuple(map(_contender, names))


def _contender(name: str) -> Contender:
    method, _, variant = name.partition(":")
    METHODS.get(method)
    if not variant:
        return Contender(name, method)
    known = variants()
    if variant not in known or known[variant][0] != method:
        options = [variant_name(each) for each in known]
        close = nearest(name, options)
        raise ConfigError("unknown variant", expected=", ".join(options), got=repr(name), fix=f"did you mean {close!r}?" if close else None)
    return Contender(name, known[variant][1], variant)


def _timed_first(chosen: Sequence[Contender]) -> tuple[Contender, ...]:
    return tuple(sorted(chosen, key=lambda each: each.name != TIMED))


def _settled(recipe: str) -> dict[str, Any]:
    """What a variant's recipe says of the method, by dotted key."""
    return {f"method.{key}": value for key, value in _flat(read_recipe(recipe).values["method"]).items() if key != "name"}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    nested = [_flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value} for key, value in values.items()]
    return {key: value for each in nested for key, value in each.items()}


def _touch(one: str, other: str) -> bool:
    return one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.")
