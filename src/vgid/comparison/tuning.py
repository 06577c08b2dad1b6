"""A search for each entry's settings: the same number of trials for all, scored on rows that are never reported."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vgid.comparison.datasets import SeedDataset
from vgid.comparison.identity import identity
from vgid.comparison.plan import Entry, Plan, Tuned
from vgid.comparison.scores import score
from vgid.comparison.tuning_rows import TuningRows, split_off_validation
from vgid.config import RunConfig
from vgid.errors import ConfigError, RunError, StoppedError
from vgid.evaluation.evaluate import evaluate
from vgid.methods.base import Range, Search
from vgid.models.loading import LoadedModel, load_model
from vgid.progress import Progress, Stages
from vgid.run_folder import note
from vgid.seeds import derive_seed
from vgid.training.fit import fit

Objective = Callable[[Mapping[str, Any]], float]
"""Takes settings by dotted key, runs a trial with them, and returns its composite on the validation rows."""


def tune(plan: Plan, dataset: SeedDataset, out: Path, stages: Stages) -> dict[str, Tuned]:
    """Search the settings of every entry with a search space, on the people of one seed.

    Several processes may search at once; they share `tuning.log` in `out`.

    Args:
        plan: the comparison.
        dataset: the seed's rows and models.
        out: output folder of the comparison.
        stages: shows and times what is done.

    Returns:
        The best settings by entry.

    Raises:
        ConfigError: Optuna is not installed.
    """
    _import_optuna()
    rows = split_off_validation(dataset.data, dataset.seed)
    base = load_model(dataset.folder / "base")
    known = {name: _accuracies(load_model(dataset.folder / name), rows) for name in ("base", "retrained")}
    found = {}
    for entry in plan.entries:
        if not entry.search():
            continue
        config = plan.config(entry, dataset.seed)
        depends = identity(config, rows.forget, rows.retain, base.model, rows.splits)

        def trial(settings: Mapping[str, Any], entry: Entry = entry) -> float:
            loaded = load_model(dataset.folder / "base")
            fitted = fit(loaded, rows.forget, rows.retain, plan.config(entry, dataset.seed, settings))
            return score(_accuracies(fitted.loaded, rows), known["base"], known["retrained"]).composite

        with stages(f"Tuning {entry.name}", "tuning") as tick:
            # The name holds all that a trial depends on: trials of other code, rows or settings are another study.
            name = f"{entry.name}/{_digest(depends)}/{_digest(entry.search())}"
            first = {key: _value_at(config, key) for key in entry.search()}
            found[entry.name] = search(out / "tuning.log", name, entry.search(), first, plan.trials, trial, tick)
    return found


def search(log: Path, name: str, space: Search, first: Mapping[str, Any], trials: int, trial: Objective, on_progress: Progress) -> Tuned:
    """Search settings with Optuna's TPE sampler (Bergstra et al., 2011) until a number of trials is done.

    Trials that earlier calls or other processes did under this name count. A trial with a run that fails scores 0. The best of the first
    `trials` is taken, so that processes that end at the same time do not give an entry more trials than others get.

    Args:
        log: file with all trials, which processes share.
        name: name of the study in the file.
        space: what to try for each setting, by dotted key.
        first: settings of the first trial, those that the method comes with; the sampler draws any that are outside the search space.
        trials: number of trials.
        trial: runs a trial.
        on_progress: called with (trials done, `trials`).

    Returns:
        The best settings.

    Raises:
        ConfigError: Optuna is not installed.
    """
    optuna = _import_optuna()
    for each in (log, log.with_name(f"{log.name}.lock")):  # Optuna's own lock file is beside it
        note(each)
    log.parent.mkdir(parents=True, exist_ok=True)
    backend = optuna.storages.journal.JournalFileBackend(str(log))
    study = optuna.create_study(storage=optuna.storages.JournalStorage(backend), study_name=name, direction="maximize", load_if_exists=True)
    while (done := len(_complete(optuna, study))) < trials:
        on_progress(done, trials)
        number = len(study.get_trials(deepcopy=False))
        # A seed for each trial's number, so that a search that was stopped and goes on tries the same settings as one that was not.
        study.sampler = optuna.samplers.TPESampler(seed=derive_seed(name, number) % 2**32)
        if number == 0:
            study.enqueue_trial({key: _as_stored(value, space[key]) for key, value in first.items() if _is_inside(value, space[key])})
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


def _import_optuna() -> Any:
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


def _as_stored(value: Any, space: Range | tuple[Any, ...]) -> Any:
    """Return a value as Optuna stores it: a choice as JSON, since Optuna takes no lists."""
    return value if isinstance(space, Range) else json.dumps(value)


def _is_inside(value: Any, space: Range | tuple[Any, ...]) -> bool:
    if isinstance(space, Range):
        return space.low <= float(value) <= space.high
    return json.dumps(value) in [json.dumps(each) for each in space]


def _value_at(config: RunConfig, key: str) -> Any:
    value: Any = config.model_dump(mode="json")
    for part in key.split("."):
        value = value[part]
    return value


def _accuracies(loaded: LoadedModel, rows: TuningRows) -> dict[str, float]:
    return {split: result.accuracy for split, result in evaluate(loaded, rows.splits).items()}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
