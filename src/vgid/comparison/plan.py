"""The plan of a comparison: which entries run, on which people, with which settings."""

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
from vgid.reading import read_json
from vgid.settings import DEFAULT_METHOD
from vgid.synthetic.people import check_counts

Budget = Literal["equal-steps", "equal-time"]
"""What is equal for all entries that train: optimizer steps, or seconds."""
BASE, REFERENCE = "untouched", "retrain"
"""Methods that every comparison runs besides its entries, since scores are relative to them: the model before unlearning, and a model that
is trained without the forget set."""
TIME_BUDGET_METHOD = DEFAULT_METHOD
"""The entry with the time that is the time budget of all, under `equal-time`."""
NO_EARLY_STOP = 1_000_000
"""Patience, in evaluations on the validation rows: more than any run has, so that all take the same steps. Each run still ends with the
weights of its best evaluation."""


class Tuned(NamedTuple):
    """What a search for settings found.

    Attributes:
        settings: the best settings, by dotted key.
        composite: their composite score on the validation rows.
        trials: number of trials.
    """

    settings: Mapping[str, Any]
    composite: float
    trials: int


class EarlierTuning(NamedTuple):
    """What the search of an earlier comparison found.

    Attributes:
        seed: the seed with the people that it was run on.
        trials: number of trials per entry.
        tuned: the findings by entry.
    """

    seed: int
    trials: int
    tuned: Mapping[str, Tuned]


class Entry(NamedTuple):
    """A method, or a variant of one, that is compared.

    Attributes:
        name: the name that users type and results show, such as `npo` or `vgid:paper`.
        method: name of the method.
        recipe: the recipe with the settings of a variant; None for a method with its defaults.
    """

    name: str
    method: str
    recipe: str | None = None

    @property
    def trains(self) -> bool:
        """Whether the method takes optimizer steps."""
        return METHODS.get(self.method).trains

    def search(self) -> dict[str, Any]:
        """Return what to try for each setting in a search; settings that a variant's recipe fixes are left out."""
        fixed = _variant_settings(self.recipe) if self.recipe else {}
        return {key: space for key, space in METHODS.get(self.method).search.items() if not any(_overlap(key, each) for each in fixed)}


@dataclass(frozen=True)
class Plan:
    """A whole comparison.

    Attributes:
        target: the base model and how it memorises.
        people: number of people that it memorises.
        forget: number of people to forget, among them.
        entries: what is compared, besides the base and the reference.
        seeds: random seeds; each draws its own people.
        budget: what is equal for all entries that train.
        steps: optimizer steps; None takes those of the configuration.
        trials: trials in the search for each entry's settings; 0 takes the settings that come with it.
        earlier: settings that an earlier search found, in place of a search.
    """

    target: Target
    people: int
    forget: int
    entries: tuple[Entry, ...]
    seeds: tuple[int, ...]
    budget: Budget = "equal-steps"
    steps: int | None = None
    trials: int = 0
    earlier: EarlierTuning | None = None

    @property
    def found(self) -> dict[str, Tuned]:
        """What an earlier search found for these entries; the others keep the settings that come with them."""
        earlier = self.earlier.tuned if self.earlier else {}
        return {each.name: earlier[each.name] for each in self.entries if each.name in earlier}

    def config(self, entry: Entry, seed: int, settings: Mapping[str, Any] | None = None, steps: int | None = None) -> RunConfig:
        """Return the configuration of one run: the target's settings, then those of the method, then those that a search found.

        Args:
            entry: what to run.
            seed: random seed of the run.
            settings: settings that a search found, by dotted key.
            steps: optimizer steps; None takes those of the plan.

        Raises:
            ConfigError: a setting is not valid.
        """
        overrides = [*self.target.settings(entry.method)]
        if entry.recipe:
            overrides = [*(f"{key}={json.dumps(value)}" for key, value in _variant_settings(entry.recipe).items()), *overrides]
        steps = steps or self.steps
        overrides += [f"training.steps={steps}"] if steps and entry.trains else []
        overrides += [f"{key}={json.dumps(value)}" for key, value in (settings or {}).items()]
        overrides += [f"validation.patience={NO_EARLY_STOP}", f"seed={seed}"]
        return resolve(self.target.recipe, overrides, method=entry.method)


def make_plan(
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
    """Make a plan, and check all that can be checked before anything runs.

    Args:
        target: name of the target.
        methods: names of entries; none takes all.
        seeds: number of seeds.
        first_seed: the first seed; the others follow.
        people: number of people to memorise; None takes the target's.
        forget: number of people to forget; None takes the target's.
        budget: what is equal for all entries that train.
        steps: optimizer steps; None takes those of the configuration.
        trials: trials in the search for each entry's settings.
        settings: the comparison.json of an earlier comparison with a search.

    Returns:
        The plan; the entry with the time budget comes first.

    Raises:
        ConfigError: a target, method or setting is unknown; a method is named twice; equal times lack the method that sets them; or
            settings are both searched and given.
    """
    base = TARGETS.get(target)
    chosen = tuple(each for each in parse_entries(methods or all_entry_names()) if each.name not in (BASE, REFERENCE))
    if budget == "equal-time" and TIME_BUDGET_METHOD not in [each.name for each in chosen]:
        raise ConfigError(
            f"the time of {TIME_BUDGET_METHOD} is the time budget of all methods",
            expected=f"{TIME_BUDGET_METHOD} among the methods",
            got=", ".join(methods),
            fix="add it",
        )
    if settings and trials:
        raise ConfigError("settings are either searched or given", got="--tune and --settings", fix="leave one of them out")
    numbers, earlier = tuple(range(first_seed, first_seed + seeds)), read_earlier_tuning(settings) if settings else None
    ordered = tuple(sorted(chosen, key=lambda each: each.name != TIME_BUDGET_METHOD))
    counts = (people or base.people[0], forget or base.people[1])
    check_counts(*counts)
    plan = Plan(base, *counts, ordered, numbers, budget, steps, trials, earlier)
    for entry in plan.entries:
        found = plan.found.get(entry.name)
        plan.config(entry, first_seed, found.settings if found else None)
    return plan


def read_earlier_tuning(path: Path) -> EarlierTuning:
    """Read the settings that an earlier comparison found from its results.

    Raises:
        ConfigError: the file cannot be read, or holds no settings that were tuned.
    """
    expected = "the comparison.json of a comparison with --tune"
    results = read_json(path, ConfigError)
    try:
        tuned = {name: Tuned(**found) for name, found in results["tuned"].items()}
        earlier = EarlierTuning(results["tuned_on"], max(found.trials for found in tuned.values()), tuned)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError("the file holds no settings that were tuned", where=str(path), expected=expected) from error
    return earlier


def all_entry_names() -> list[str]:
    """Return the names of all methods and variants, except references and methods that only a variant runs."""
    found = variants()
    run_by_variants = {method for _, method in found.values()}
    names = [name for name in METHODS if METHODS.get(name).kind != "reference"]
    return [*(name for name in names if name in {of for of, _ in found.values()} or name not in run_by_variants), *map(variant_name, found)]


def variants() -> dict[str, tuple[str, str]]:
    """Return the built-in recipes that are variants of a method in comparisons: by recipe, that method, and the method it runs.

    A variant has the recipe's method settings; how it trains is the comparison's.
    """
    recipes = {name: read_recipe(name) for name in recipe_names()}
    return {
        name: (recipe.variant_of, str(recipe.values.get("method", {}).get("name", recipe.variant_of)))
        for name, recipe in recipes.items()
        if recipe.variant_of
    }


def variant_name(recipe: str) -> str:
    """Return the name of a variant's entry: the method's name, a colon, and the recipe's name."""
    return f"{variants()[recipe][0]}:{recipe}"


def parse_entries(names: Sequence[str]) -> tuple[Entry, ...]:
    """Return entries by name: a method's name, or `METHOD:RECIPE` for a variant.

    Raises:
        ConfigError: there is no such method or variant, or one is named twice.
    """
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ConfigError("a method is named twice", got=repr(twice), fix="name it once")
    return tuple(map(_parse_entry, names))


def _parse_entry(name: str) -> Entry:
    method, _, variant = name.partition(":")
    METHODS.get(method)
    if not variant:
        return Entry(name, method)
    known = variants()
    if variant not in known or known[variant][0] != method:
        options = [variant_name(each) for each in known]
        close = nearest(name, options)
        raise ConfigError("unknown variant", expected=", ".join(options), got=repr(name), fix=f"did you mean {close!r}?" if close else None)
    return Entry(name, known[variant][1], variant)


def _variant_settings(recipe: str) -> dict[str, Any]:
    """Return the method settings of a variant's recipe, by dotted key."""
    return {f"method.{key}": value for key, value in _flat(read_recipe(recipe).values["method"]).items() if key != "name"}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    nested = [_flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value} for key, value in values.items()]
    return {key: value for each in nested for key, value in each.items()}


def _overlap(one: str, other: str) -> bool:
    """Return whether two dotted keys are equal, or one is a section that holds the other."""
    return one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.")
