"""A search for each contender's settings: the same number of trials for all, on rows that are never reported."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vgid.comparison.datasets import Ready
from vgid.comparison.identity import identity
from vgid.comparison.plan import Contender, Plan, Tuned
from vgid.comparison.scores import score
from vgid.comparison.tuning_rows import Validation, cut
from vgid.config import RunConfig
from vgid.errors import ConfigError, RunError, StoppedError
from vgid.evaluation.evaluate import evaluate
from vgid.methods.base import Range, Search
from vgid.models.loading import LoadedModel, load_model
from vgid.progress import Stages
from vgid.seeds import derive_seed
from vgid.training.fit import fit

Score = Callable[[Mapping[str, Any]], float]
"""The composite on the validation part, by settings."""


def tune(plan: Plan, ready: Ready, out: Path, stages: Stages) -> dict[str, Tuned]:
    """Search the settings of every contender that has some, on the people of this seed.

    Several processes may search at once: `tuning.log` in `out` is what they share.

    Raises:
        ConfigError: Optuna is not installed.
    """
    _optuna()
    cutting = cut(ready.data, ready.seed)
    base = load_model(ready.folder / "base")
    known = {name: _accuracies(load_model(ready.folder / name), cutting) for name in ("base", "retrained")}
    found = {}
    for contender in plan.contenders:
        if not contender.search():
            continue
        config = plan.config(contender, ready.seed)
        depends = identity(config, cutting.forget, cutting.retain, base.model, cutting.splits)

        def trial(settings: Mapping[str, Any], contender: Contender = contender) -> float:
            loaded = load_model(ready.folder / "base")
            fitted = fit(loaded, cutting.forget, cutting.retain, plan.config(contender, ready.seed, settings))
            return score(_accuracies(fitted.loaded, cutting), known["base"], known["retrained"]).composite

        with stages(f"Tuning {contender.name}", "tuning") as tick:
            name = f"{contender.name}/{_short(depends)}/{_short(contender.search())}"
            first = {key: _default(config, key) for key in contender.search()}
            found[contender.name] = search(out / "tuning.log", name, contender.search(), first, plan.trials, trial, tick)
    return found


def search(
    log: Path, name: str, space: Search, first: Mapping[str, Any], trials: int, trial: Score, tick: Callable[[int, int], None]
) -> Tuned:
    """Search `space` until so many trials are done, those that earlier or other processes did under this name included.

    The first trial takes the settings a method comes with; a trial whose run fails scores 0. Of the first `trials` that were done the
    best is taken, so that workers that end at the same time do not give a contender more of them.
    """
    optuna = _optuna()
    log.parent.mkdir(parents=True, exist_ok=True)
    backend = optuna.storages.journal.JournalFileBackend(str(log))
    study = optuna.create_study(storage=optuna.storages.JournalStorage(backend), study_name=name, direction="maximize", load_if_exists=True)
    while (done := len(_complete(optuna, study))) < trials:
        tick(done, trials)
        number = len(study.get_trials(deepcopy=False))
        study.sampler = optuna.samplers.TPESampler(seed=derive_seed(name, number) % 2**32)
        if number == 0:
            study.enqueue_trial({key: _written(value, space[key]) for key, value in first.items() if _inside(value, space[key])})
        asked = study.ask()
        settings = {key: _suggest(asked, key, each) for key, each in space.items()}
        try:
            value = trial(settings)
        except StoppedError:
            raise
        except RunError as error:
            asked.set_user_attr("failed", error.problem)
            value = 0.0
        asked.set_user_attr("settings", settings)
        study.tell(asked, value)
    counted = _complete(optuna, study)[:trials]
    best = max(counted, key=lambda each: (each.value, -each.number))
    return Tuned(best.user_attrs["settings"], float(best.value), len(counted))


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ConfigError("tuning needs Optuna", got="it is not installed", fix='pip install "vgid[tune]"') from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _complete(optuna: Any, study: Any) -> list[Any]:
    trials = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    return sorted(trials, key=lambda trial: trial.number)


def _suggest(trial: Any, key: str, space: Range | tuple[Any, ...]) -> Any:
    if isinstance(space, Range):
        return trial.suggest_float(key, space.low, space.high, log=space.log)
    return json.loads(trial.suggest_categorical(key, [json.dumps(value) for value in space]))


def _written(value: Any, space: Range | tuple[Any, ...]) -> Any:
    """A value as Optuna keeps it: one of several is kept as JSON, since it may be a list."""
    return value if isinstance(space, Range) else json.dumps(value)


def _inside(value: Any, space: Range | tuple[Any, ...]) -> bool:
    if isinstance(space, Range):
        return space.low <= float(value) <= space.high
    return json.dumps(value) in [json.dumps(each) for each in space]


def _default(config: RunConfig, key: str) -> Any:
    value: Any = config.model_dump(mode="json")
    for part in key.split("."):
        value = value[part]
    return value


def _accuracies(loaded: LoadedModel, cutting: Validation) -> dict[str, float]:
    return {split: result.accuracy for split, result in evaluate(loaded, cutting.splits).items()}


def _short(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
