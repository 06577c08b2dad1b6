"""One configuration for a run: read from a recipe (YAML), changed by `--set a.b=c`, validated as a whole before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vgid.errors import ConfigError, nearest
from vgid.methods import METHODS, Method
from vgid.models.adapters import AdapterConfig


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TrainingConfig(_Frozen):
    """How a model is trained.

    Attributes:
        steps: optimizer steps; None takes `epochs` over the forget set (over the retain set where nothing is forgotten).
        epochs: passes over the forget set; counts only when `steps` is None.
        forget_batch: forget rows in a step.
        retain_batch: retain rows in a step; `retain_ratio` x `forget_batch` when None.
        retain_ratio: retain rows per forget row.
        pack: so many questions about one picture follow each other and share a row, which is faster; 1 for rows in any order.
        learning_rate: peak of the schedule.
        schedule: after the warm-up.
        warmup_steps: steps of linear warm-up.
        optimizer: `adamw`, or `muon` for matrices and AdamW for the rest (full-parameter training of small models).
        weight_decay: decoupled weight decay.
        max_grad_norm: gradients are clipped to this norm.
        precision: `fp32` or `bf16` autocast.
        gradient_checkpointing: keep the inputs of layers only, and compute the rest twice: less memory, about a third more time.
        torch_compile: compile the decoder's layers; the first steps take minutes, those after them less time.
        report_to: trackers that get loss curves, such as `tensorboard` or `wandb`; none by default.
        parts: what full-parameter training (`adapter: null`) trains.
        micro_batch: at most so many rows go through the model at once, in as many passes as it takes; None takes a step in one. What
            comes out is the same.
        checkpoint_every: steps between two checkpoints of `unlearn`; 0 writes one at a signal and at the end only.
        shard: spread parameters, gradients and optimizer over the processes (FSDP2), when a launcher started several.
    """

    steps: int | None = Field(default=200, ge=1)
    epochs: float = Field(default=1.0, gt=0)
    forget_batch: int = Field(default=6, ge=1)
    retain_batch: int | None = Field(default=None, ge=0)
    retain_ratio: float = Field(default=6.0, ge=0)
    pack: int = Field(default=4, ge=1)
    learning_rate: float = Field(default=2e-3, gt=0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_steps: int = Field(default=5, ge=0)
    optimizer: Literal["adamw", "muon"] = "adamw"
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    precision: Literal["fp32", "bf16"] = "fp32"
    gradient_checkpointing: bool = False
    torch_compile: bool = False
    report_to: tuple[str, ...] = ()
    parts: tuple[Literal["language", "projector", "vision"], ...] = ("language", "projector")
    micro_batch: int | None = Field(default=None, ge=1)
    checkpoint_every: int = Field(default=25, ge=0)
    shard: bool = False

    @property
    def retain_rows(self) -> int:
        """Retain rows in a step."""
        return round(self.retain_ratio * self.forget_batch) if self.retain_batch is None else self.retain_batch


class ValidationConfig(_Frozen):
    """Early stop on a part of forget and retain that is never trained on.

    Attributes:
        every: steps between two looks; 0 switches validation off.
        share: part of either set that is put aside.
        rows: at most so many rows of either set are put aside.
        forget_target: the run may stop when at most this share of the forget part is still answered.
        utility_floor: ... and at least this share of what the base answered on the retain part still is.
        patience: looks in a row that must agree before the run stops early.
    """

    every: int = Field(default=30, ge=0)
    share: float = Field(default=0.05, gt=0, lt=1)
    rows: int = Field(default=128, ge=1)
    forget_target: float = Field(default=0.0, ge=0, le=1)
    utility_floor: float = Field(default=0.98, ge=0, le=1)
    patience: int = Field(default=6, ge=1)


class BenchmarkChoice(_Frozen):
    """What `vgid bench` unlearns and asks; no other command looks at it.

    Attributes:
        name: the benchmark.
        forget: which of its forget sets; None for its first.
        data: folder or hub id, `owner/name@revision`; None where the benchmark makes its own, or the command line names it.
        train: where the rows for unlearning are, if they are elsewhere.
        protocol: settings that deviate from the published ones.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)

    name: str
    forget: str | None = None
    data: str | None = None
    train: str | None = None
    protocol: dict[str, Any] = Field(default_factory=dict)


class RunConfig(_Frozen):
    """Everything that decides a run.

    Attributes:
        method: the method's name and its own settings.
        adapter: LoRA; null trains all parameters.
        training: how it is trained.
        validation: early stop.
        neutral_retain: without retain data, so many drawn pictures and general questions stand in for it, with the model's own answers.
        seed: everything random follows from it.
        benchmark: what `vgid bench` runs on.
    """

    method: dict[str, Any] = Field(default_factory=lambda: {"name": "vgid"})
    adapter: AdapterConfig | None = AdapterConfig()
    training: TrainingConfig = TrainingConfig()
    validation: ValidationConfig = ValidationConfig()
    neutral_retain: int = Field(default=0, ge=0)
    seed: int = Field(default=0, ge=0)
    benchmark: BenchmarkChoice | None = None

    def build_method(self) -> Any:
        """The method with its validated config.

        Raises:
            ConfigError: the method cannot train what it is told to.
        """
        name, settings = _split_method(self.method)
        method = METHODS.get(name)
        _check_way(name, method, self.adapter)
        return method(method.Config(**settings))


def _check_way(name: str, method: type[Method[Any]], adapter: AdapterConfig | None) -> None:
    way = "full" if adapter is None else "adapter"
    if method.trains and way not in method.ways:
        full = "full" in method.ways
        raise ConfigError(
            f"the method {name} {'changes the weights themselves' if full else 'works with adapters'}",
            expected="adapter: null" if full else "an adapter",
            got="an adapter" if full else "adapter: null",
            fix="set adapter=null" if full else "leave the adapter at its default",
        )


def _split_method(method: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    settings = dict(method)
    return str(settings.pop("name", "vgid")), settings


def load_config(recipe: str | Path | None = None, overrides: Iterable[str] = ()) -> RunConfig:
    """Read a recipe (a built-in name such as `paper`, or a YAML file; None = our defaults), apply `a.b=c` overrides, validate all.

    Raises:
        ConfigError: with every problem found, and the nearest name for each unknown key.
    """
    values = _read_recipe(recipe) if recipe is not None else {}
    for override in overrides:
        _apply(values, override)
    return validate_config(values)


def method_config(name: str, overrides: Iterable[str] = ()) -> RunConfig:
    """Our defaults with what the method's own authors or our trials found to fit it; `a.b=c` overrides come last.

    Raises:
        ConfigError: there is no such method, or an override is not valid.
    """
    values: dict[str, Any] = {"method": {"name": name}}
    for key, value in METHODS.get(name).defaults.items():
        _put(values, key, value)
    for override in overrides:
        _apply(values, override)
    return validate_config(values)


def validate_config(values: Mapping[str, Any]) -> RunConfig:
    """Validate a configuration given as nested mappings, the method's own settings included.

    Raises:
        ConfigError: with every problem found.
    """
    method = values.get("method") or {}
    name, settings = _split_method(method if isinstance(method, Mapping) else {"name": method})
    method_config = METHODS.get(name).Config
    problems: list[str] = []
    try:
        settings = method_config(**settings).model_dump(mode="json")
    except ValidationError as error:
        problems += explain(error, method_config, "method.")
    try:
        config = RunConfig(**{**values, "method": {"name": name, **settings}})
    except ValidationError as error:
        problems += explain(error, RunConfig, "")
    if problems:
        raise ConfigError("the configuration is not valid", got="\n  ".join(["", *problems]))
    config.build_method()
    return config


def recipe_names() -> list[str]:
    """Names of the built-in recipes."""
    return sorted(path.name.removesuffix(".yaml") for path in files("vgid.recipes").iterdir() if path.name.endswith(".yaml"))


def _read_recipe(recipe: str | Path) -> dict[str, Any]:
    path = Path(recipe)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise ConfigError("no such recipe file", where=str(path), expected="a YAML file", fix="check the path")
        text = path.read_text("utf-8")
    elif str(recipe) in recipe_names():
        text = (files("vgid.recipes") / f"{recipe}.yaml").read_text("utf-8")
    else:
        close = nearest(str(recipe), recipe_names())
        raise ConfigError(
            "unknown recipe",
            expected=f"a YAML file or one of {', '.join(recipe_names())}",
            got=repr(str(recipe)),
            fix=f"did you mean {close!r}?" if close else None,
        )
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError("the recipe is no valid YAML", where=str(recipe), got=str(error)) from error
    if values is not None and not isinstance(values, dict):
        raise ConfigError("the recipe is no mapping", where=str(recipe), expected="key: value lines", got=type(values).__name__)
    return values or {}


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError("cannot read an override", expected="key.subkey=value", got=repr(override))
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError("cannot read an override", expected="key.subkey=value", got=repr(override)) from error
    _put(values, key, value)


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        child = values.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError("an override goes below a plain value", got=repr(key), expected=f"{parent} to have keys of its own")
        values = child
    values[last] = value


def explain(error: ValidationError, model: type[BaseModel], prefix: str) -> list[str]:
    """Every problem that pydantic found, a line each, with the nearest name for an unknown key."""
    lines = []
    for problem in error.errors(include_url=False):
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            close = nearest(str(problem["loc"][-1]), _fields_at(model, problem["loc"][:-1]))
            lines.append(f"{prefix}{key}: unknown key" + (f"; did you mean {close!r}?" if close else ""))
        else:
            lines.append(f"{(prefix + key).rstrip('.')}: {problem['msg']}, got {problem['input']!r}")
    return lines


def _fields_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    for part in location:
        annotation = model.model_fields[str(part)].annotation if str(part) in model.model_fields else None
        options = (annotation, *getattr(annotation, "__args__", ()))
        model = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), model)
    return list(model.model_fields)
