"""One configuration for a run, from one resolver: our defaults < the method's own < recipe < overrides, validated as a whole.

Every way to a method (`--method npo`, `--set method.name=npo`, a recipe that names it) goes through `resolve` and gives the same settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple

from pydantic import BaseModel, BeforeValidator, Field, SerializeAsAny, ValidationError

from vgid.errors import ConfigError, nearest
from vgid.methods import METHODS, Method
from vgid.methods.base import MethodConfig
from vgid.reading import parse_yaml, read_yaml
from vgid.settings import DEFAULT_METHOD, LARGEST, LARGEST_SEED, AdapterConfig, DataConfig, Settings, TrainingConfig, ValidationConfig

Values = dict[str, Any]
"""Settings as nested mappings, as YAML gives them."""
RECIPE_KEYS = ("about", "extends", "benchmark", "variant_of", "finetune")
"""Keys of a recipe that are not settings of the run: one line for `vgid recipes`; the recipe it builds on; what `vgid bench` asks; the
method that it is a variant of in comparisons; the recipe by which `vgid bench --from-base` makes the model that knows."""


def _method_settings(value: Any) -> MethodConfig:
    """Settings of the method that `name` names, as that method's own type."""
    if isinstance(value, MethodConfig) and value.name:
        return value
    name, settings = _split_method(value.model_dump(exclude={"name"}) if isinstance(value, MethodConfig) else value)
    if isinstance(value, MethodConfig):
        name = next((known for known in METHODS if METHODS.get(known).Config is type(value)), name)
    return METHODS.get(name).Config(name=name, **settings)


class RunConfig(Settings):
    """All settings that decide what a run does.

    Attributes:
        method: the method's name and its own settings, of the type that the method declares.
        data: how rows are read, and at which size pictures are shown to the model.
        adapter: LoRA; null trains all parameters.
        training: how the model is trained.
        validation: early stopping.
        neutral_retain: number of neutral rows (drawn pictures and general questions, with the model's own answers) that stand in for
            retain data when none is given.
        seed: random seed.
    """

    renamed: ClassVar[dict[str, str]] = {
        "benchmark": "a recipe's `benchmark:` section, or the options of `vgid bench`",
        "examine": "--max-rows",
    }

    method: Annotated[SerializeAsAny[MethodConfig], BeforeValidator(_method_settings)] = Field(
        default_factory=lambda: _method_settings({"name": DEFAULT_METHOD})
    )
    data: DataConfig = DataConfig()
    adapter: AdapterConfig | None = AdapterConfig()
    training: TrainingConfig = TrainingConfig()
    validation: ValidationConfig = ValidationConfig()
    neutral_retain: int = Field(default=0, ge=0, le=LARGEST)
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)

    @property
    def method_class(self) -> type[Method[Any]]:
        """The class of the configured method."""
        return METHODS.get(self.method.name)

    def build_method(self) -> Method[Any]:
        """A new instance of the configured method, with its settings."""
        return self.method_class(self.method)


class Recipe(NamedTuple):
    """A recipe with everything that it extends: `values` are settings of the run, the rest is described at `RECIPE_KEYS`."""

    name: str
    values: Values
    about: str = ""
    benchmark: Values | None = None
    variant_of: str | None = None
    finetune: str | None = None


def resolve(recipe: str | Path | None = None, overrides: Iterable[str] = (), *, method: str | None = None) -> RunConfig:
    """Work out the configuration of a run: our defaults < the method's own < the recipe's < overrides.

    Args:
        recipe: name of a built-in recipe (see `vgid recipes`), or path of a YAML file; None takes none.
        overrides: single settings as `a.b=value`, the value as YAML; the last one counts.
        method: name of a method (see `vgid methods`); with a recipe for another method, the recipe's other settings hold, except
            `adapter` where this method has a default of its own.

    Returns:
        The validated configuration.

    Raises:
        ConfigError: with every problem found, and the nearest name for each unknown key.
    """
    given: Values = {}
    for override in overrides:
        _apply(given, override)
    values = _as_mapping(read_recipe(recipe).values) if recipe is not None else {}
    if method is not None:
        named = _as_mapping(given).get("method", {}).get("name", method)
        if named != method:
            raise ConfigError("two methods are named", got=f"--method {method} and method.name={named}", fix="leave one of them out")
        given = merge({"method": {"name": method}}, _as_mapping(given))
    planned = _split_method(values.get("method") or {})[0]
    name = _split_method(merge(values, _as_mapping(given)).get("method") or {})[0]
    if name != planned and "adapter" in METHODS.get(name).defaults:
        values.pop("adapter", None)  # the recipe's adapter is meant for the recipe's own method
    values = merge(values, _as_mapping(given))
    return validate_config(merge(_own_defaults(name), values))


def load_config(recipe: str | Path | None = None, overrides: Iterable[str] = ()) -> RunConfig:
    """`resolve` without a method: the configuration of a recipe, or our defaults, with overrides.

    Raises:
        ConfigError: with every problem found, and the nearest name for each unknown key.
    """
    return resolve(recipe, overrides)


def merge(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> Values:
    """Nested settings, those of `upper` over those of `lower`; another method's settings are not mixed in."""
    out: Values = dict(lower)
    for key, value in upper.items():
        below = out.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            other = key == "method" and value.get("name", below.get("name")) != below.get("name", DEFAULT_METHOD)
            out[key] = dict(value) if other else merge(below, value)
        else:
            out[key] = value
    return out


def validate_config(values: Mapping[str, Any]) -> RunConfig:
    """Validate a configuration given as nested mappings, the method's own settings included.

    Raises:
        ConfigError: with every problem found.
    """
    name, settings = _split_method(values.get("method") or {})
    kind = METHODS.get(name)
    problems: list[str] = []
    try:
        own: MethodConfig | None = kind.Config(name=name, **settings)
    except ValidationError as error:
        own, problems = None, explain(error, kind.Config, "method.")
    try:
        config = RunConfig(**{**values, "method": own or RunConfig().method})
    except ValidationError as error:
        problems += explain(error, RunConfig, "")
    if problems:
        raise ConfigError("the configuration is not valid", got="\n  ".join(["", *problems]))
    _check_trainable(name, kind, config.adapter)
    return config


def _check_trainable(name: str, method: type[Method[Any]], adapter: AdapterConfig | None) -> None:
    way = "full" if adapter is None else "adapter"
    if method.trains and way not in method.trainable:
        full = "full" in method.trainable
        raise ConfigError(
            f"the method {name} {'changes the weights themselves' if full else 'works with adapters'}",
            expected="adapter: null" if full else "an adapter",
            got="an adapter" if full else "adapter: null",
            fix="set adapter=null" if full else "leave the adapter at its default",
        )


def _own_defaults(name: str) -> Values:
    values: Values = {"method": {"name": name}}
    for key, value in METHODS.get(name).defaults.items():
        _put(values, key, value)
    return values


def _split_method(method: Any) -> tuple[str, Values]:
    settings = dict(method) if isinstance(method, Mapping) else {"name": method}
    return str(settings.pop("name", DEFAULT_METHOD)), settings


def _as_mapping(values: Mapping[str, Any]) -> Values:
    """The values, with `method: npo` written as `method: {name: npo}`."""
    out = dict(values)
    if "method" in out and not isinstance(out["method"], Mapping):
        out["method"] = {"name": out["method"]}
    return out


# -- recipes --------------------------------------------------------------------------------------------------------------


def recipe_names() -> list[str]:
    """Names of the built-in recipes, sorted."""
    return sorted(path.name.removesuffix(".yaml") for path in files("vgid.recipes").iterdir() if path.name.endswith(".yaml"))


def read_recipe(recipe: str | Path) -> Recipe:
    """Read a recipe and those that it extends.

    Args:
        recipe: name of a built-in recipe, or path of a YAML file. `extends:` in it names another one in the same way; a path is taken
            relative to the file.

    Raises:
        ConfigError: it does not exist, is not a YAML mapping, or extends itself.
    """
    return _read_recipe(recipe, ())


def _read_recipe(recipe: str | Path, seen: tuple[str, ...]) -> Recipe:
    name = str(recipe)
    if name in seen:
        raise ConfigError("recipes extend each other in a circle", got=" -> ".join((*seen, name)), fix="take one `extends:` out")
    values = _parse_recipe(name)
    about, parent, benchmark, variant_of, finetune = (values.pop(key, None) for key in RECIPE_KEYS)
    below = Recipe("", {})
    if parent is not None:
        beside = Path(name).parent / str(parent) if _is_file_name(name) and _is_file_name(str(parent)) else parent
        below = _read_recipe(str(beside), (*seen, name))
    merged = merge(below.values, _as_mapping(values))
    asked = merge(below.benchmark or {}, benchmark) if isinstance(benchmark, Mapping) else below.benchmark
    learned = str(finetune) if finetune else below.finetune
    return Recipe(name, merged, str(about or ""), asked, str(variant_of) if variant_of else None, learned)


def _is_file_name(name: str) -> bool:
    return Path(name).suffix in (".yaml", ".yml")


def _parse_recipe(recipe: str) -> Values:
    if _is_file_name(recipe):
        if not Path(recipe).is_file():
            raise ConfigError("no such recipe file", where=recipe, expected="a YAML file", fix="check the path")
        values = read_yaml(Path(recipe), ConfigError)
    elif recipe in recipe_names():
        values = parse_yaml((files("vgid.recipes") / f"{recipe}.yaml").read_text("utf-8"), recipe, ConfigError)
    else:
        close = nearest(recipe, recipe_names())
        raise ConfigError(
            "unknown recipe",
            expected=f"a YAML file or one of {', '.join(recipe_names())}",
            got=repr(recipe),
            fix=f"did you mean {close!r}?" if close else None,
        )
    if values is not None and not isinstance(values, dict):
        raise ConfigError("the recipe is not a mapping", where=recipe, expected="lines of `key: value`", got=type(values).__name__)
    unnamed = [key for key in values or {} if not isinstance(key, str)]
    if unnamed:
        raise ConfigError("a key of the recipe is not text", where=recipe, expected="names of settings", got=type(unnamed[0]).__name__)
    return values or {}


# -- overrides ------------------------------------------------------------------------------------------------------------


def _apply(values: Values, override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError("cannot read an override", expected="key.subkey=value", got=repr(override))
    value = parse_yaml(text, f"--set {key}", ConfigError)
    if key == "method" and not isinstance(value, Mapping):
        key = "method.name"
    _put(values, key, value)


def _put(values: Values, key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        if values.get(parent) is None:  # a section that was switched off, such as `adapter: null`, is set anew
            values[parent] = {}
        child = values[parent]
        if not isinstance(child, dict):
            raise ConfigError("an override sets a key below a scalar", got=repr(key), expected=f"{parent} to have keys of its own")
        values = child
    values[last] = value


# -- what is wrong --------------------------------------------------------------------------------------------------------


def explain(error: ValidationError, model: type[BaseModel], prefix: str) -> list[str]:
    """Describe every problem that pydantic found, one line each.

    Args:
        error: the validation error.
        model: the type that was validated; its known keys give the nearest name, its `renamed` the new one.
        prefix: put before every key, such as `method.`.

    Returns:
        One line for each problem.
    """
    lines = []
    for problem in error.errors(include_url=False):
        # Of a setting that may be of several types, pydantic adds the type that it tried; `[key]` says that a key is wrong, not its value.
        parts = [str(part) for part in problem["loc"] if str(part).isidentifier() or isinstance(part, int) or part == "[key]"]
        unknown = problem["type"] == "extra_forbidden"
        if unknown and not str(problem["loc"][-1]).isidentifier():  # such as one with a hyphen
            parts.append(str(problem["loc"][-1]))
        key = ".".join(parts)
        if unknown:
            last, owner = str(problem["loc"][-1]), _model_at(model, problem["loc"][:-1])
            new = getattr(owner, "renamed", {}).get(last)
            close = nearest(last, list(owner.model_fields))
            hint = f"; it is now {new}" if new else f"; did you mean {close!r}?" if close else ""
            lines.append(f"{prefix}{key}: {'renamed' if new else 'unknown key'}{hint}")
        else:
            lines.append(f"{(prefix + key).rstrip('.')}: {problem['msg']}, got {problem['input']!r}")
    return lines


def _model_at(model: type[BaseModel], location: tuple[int | str, ...]) -> type[BaseModel]:
    for part in location:
        annotation = model.model_fields[str(part)].annotation if str(part) in model.model_fields else None
        options = (annotation, *getattr(annotation, "__args__", ()))
        model = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), model)
    return model
