"""`vgid metrics meta`: which metric of forgetting can be trusted? Faithfulness and robustness of every metric and attack.

After OpenUnlearning (arXiv 2506.12618) and Open-MMUnlearning (2610.10358), with three departures. Faithfulness compares people in models,
not models alone, so that it does not need hundreds of models. A third figure asks whether a metric sees the facts in models that only hide
them. And robustness takes the difference, not the ratio, of what a metric says before and after a change, in units of the distance between
models that know (1) and models that never knew (0): ratios of numbers near zero say nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vgid.artifacts import write_json_atomic, write_text_atomic
from vgid.attacks import ATTACKS
from vgid.attacks.base import Material, sample_alike, sample_rows, split_people
from vgid.attacks.jailbreak import TEMPLATES
from vgid.attacks.quantize import rounded_copy
from vgid.attacks.relearn import RelearnConfig, fine_tuned
from vgid.auditing.figures import auc
from vgid.data.example import Example, altered, subject_key
from vgid.data.sources import check_disjoint, rows_of
from vgid.demo.targets import TARGETS
from vgid.errors import ConfigError, DataError
from vgid.evaluation.sampling import Sampling
from vgid.evaluation.statistics import percentiles
from vgid.evaluation.truth import harmonic_mean
from vgid.experiments.inputs import SeedModels
from vgid.experiments.kept import READINGS, Kept, anything_kept, code_digest, model_digests
from vgid.experiments.pools import PoolModel, Role, shams, variants
from vgid.metrics import METRICS, Reading
from vgid.metrics.base import Reads, above
from vgid.models.loading import LoadedModel, load_model
from vgid.models.quantisation import is_quantised
from vgid.progress import Stages, stages_or_own
from vgid.reading import read_json
from vgid.report.meta import meta_latex, meta_markdown, render_meta
from vgid.results import versions
from vgid.run_folder import check_output, output_folder
from vgid.synthetic.people import Camera, World
from vgid.synthetic.splits import training_rows
from vgid.synthetic.tiny import IMAGE_SIZE
from vgid.training.fingerprint import rows_digest

SCHEMA = "vgid.metrics.meta/1"
DEFAULT_ATTACKS = ("paraphrase", "jailbreak", "prefill", "multiple_choice", "token_rank", "mia")
"""Attacks that are tested unless others are named: those that take seconds on the embedded model."""
CHANGES = ("relearned", "rounded", "prefix", "sampled")
"""What is done to an unlearned model or to how it is asked: trained on rows about half of the forgotten people and asked about the others;
rounded to 4 bits; asked behind a sentence that lifts earlier instructions; answers drawn at temperature 0.8 in place of the likeliest."""
OF_WEIGHTS = ("relearned", "rounded")
"""Changes of the weights, under which attacks are run too; the others change how metrics ask, and attacks ask in their own ways."""
PREFIX = TEMPLATES[3]
CONTROL = 4
"""Forget rows for each retain row that attacks ask as well."""
LEAST_GAP = 0.05
"""Least distance of a metric's means over models that know and that never knew, as a share of its range, for robustness to be given;
chosen by hand."""
READS: tuple[Reads, ...] = ("answers", "probabilities", "weights")
CODE = ("attacks", "evaluation", "metrics", "models", "training", "experiments/meta.py", "experiments/pools.py")
"""Code that decides what is measured."""
DRAWS = 500
"""Bootstrap draws of the intervals over people."""
TRUSTED = 0.9
"""Least faithfulness, sight of shams and robustness of a metric that is called trustworthy; chosen by hand."""
KNOWS: tuple[Role, ...] = ("knows",)
NEVER: tuple[Role, ...] = ("never knew",)
Values = Mapping[str, Sequence[float | None]]
"""By metric, a value for each forget row in their order; None where the metric does not apply to the row."""


@dataclass(frozen=True)
class Pools:
    """The models and rows of one seed, or of one user.

    Attributes:
        knows: models that have learned the forget rows.
        never: models that never saw them.
        forget: file of the forget rows.
        retain: file of the retain rows.
        seed: random seed.
        unlearned: models that were unlearned.
        shams: models that are known to hide the facts.
        unseen: file of rows about people that no model was trained on; None where there is none.
        drawn: whether the people are those of the demo, so that unseen people can be drawn.
        reference: a model that never saw forget and unseen rows and is in no pool, for metrics that compare with one.
    """

    knows: tuple[Path, ...]
    never: tuple[Path, ...]
    forget: Path
    retain: Path
    seed: int
    unlearned: tuple[Path, ...] = ()
    shams: tuple[Path, ...] = ()
    unseen: Path | None = None
    drawn: bool = False
    reference: Path | None = None

    def __post_init__(self) -> None:
        if not self.knows or not self.never:
            raise ConfigError(
                "a test of metrics needs models of both kinds",
                expected="at least one that knows the forget rows and one that never saw them",
                got=f"{len(self.knows)} and {len(self.never)}",
                fix="give --demo, or --knows and --never",
            )

    @property
    def models(self) -> list[Path]:
        """All models that are given."""
        return [*self.knows, *self.never, *self.unlearned, *self.shams, *([self.reference] if self.reference else [])]

    @property
    def paths(self) -> list[Path]:
        """All that is read."""
        return [*self.models, self.forget, self.retain, *([self.unseen] if self.unseen else [])]

    @classmethod
    def of_demo(cls, folder: Path) -> Pools:
        """The models of a demo that was run with `--keep-data`.

        Raises:
            DataError: the folder holds no such demo.
        """
        found = SeedModels.of_demo(folder)
        target = read_json(folder / "results.json").get("model")
        origin = TARGETS.get(target).base() if target == "tiny" else None  # others would have to be made first
        return cls(
            knows=(found.base,),
            never=(found.retrained,),
            forget=found.forget,
            retain=found.retain,
            seed=found.seed,
            unlearned=(found.unlearned,),
            drawn=True,
            reference=origin,
        )


def meta(
    runs: Sequence[Pools],
    *,
    attacks: Sequence[str] = DEFAULT_ATTACKS,
    make: bool = True,
    max_rows: int = 48,
    batch_size: int = 64,
    out: str | Path = "runs/metrics",
    overwrite: bool = False,
    stages: Stages | None = None,
) -> dict[str, Any]:
    """Test metrics and attacks on models of which it is known what they know.

    A run that was stopped goes on: what was measured of a model is kept in `readings`, and used again as long as models, rows, settings
    and code are the same.

    Args:
        runs: models and rows, one entry for each seed.
        attacks: names of the attacks to test beside all metrics.
        make: make further models from the first of each kind: some that know or never knew and answer in other ways, and shams.
        max_rows: largest number of forget rows, and of unseen rows, of each seed.
        batch_size: number of questions that are asked at once.
        out: folder for `metrics.json`, `.html`, `.md` and `.tex`.
        overwrite: replace what an earlier run left in `out`.
        stages: shows and times what is done; None shows progress bars.

    Returns:
        The results object (schema `vgid.metrics.meta/1`): figures and settings, nothing of what was asked or answered.

    Raises:
        ConfigError: an attack does not exist, or there are no models of a kind.
        DataError: rows are bad, or there are none.
        ModelError: a model cannot be loaded.
        OutputError: `out` holds something else, or cannot be written.
    """
    if not runs:
        raise ConfigError(
            "there are no models to test metrics on", expected="at least one demo or pool", fix="give --demo, or --knows and --never"
        )
    tested = {name: ATTACKS.get(name)(ATTACKS.get(name).Config()) for name in attacks}
    folder = Path(out)
    check_output(folder, overwrite, resume=True, inputs=[path for run in runs for path in run.paths])
    materials = [_material(run, max_rows, batch_size) for run in runs]
    settings = {
        "attacks": {name: attack.config.model_dump(mode="json") for name, attack in tested.items()},
        "max_rows": max_rows,
        "relearning": RelearnConfig().model_dump(mode="json"),
        "code": code_digest(*CODE),
        "versions": versions(),
    }
    seeds = []
    with stages_or_own(stages) as shown, output_folder(folder, keep=not overwrite, goes_on=lambda: anything_kept(folder)):
        for number, (run, (rows, all_rows)) in enumerate(zip(runs, materials, strict=True)):
            identity = {**settings, "rows": rows_digest([*rows.forget, *rows.retain, *rows.unseen]), "models": model_digests(run.models)}
            place = folder / READINGS / f"{number}-seed-{run.seed}"
            pool, found = _pool(run, all_rows, make), {}
            reference = Reading(load_model(run.reference), rows) if run.reference else None
            with shown(f"Measuring {len(pool)} models, seed {run.seed}", f"meta-{number}") as tick:
                for done, model in enumerate(pool, 1):
                    kept = Kept(place / f"{model.name.replace(' ', '-').replace(',', '')}.json", identity)
                    changes = CHANGES if model.role in ("unlearned", "sham") or model is _control(pool) else ()
                    _measure(model, changes, rows, reference, tested, kept)
                    found[model.name] = {"role": model.role, "readings": kept.values}
                    tick(done, len(pool))
            scored = {row.id for row in split_people(rows.forget, 0.5, rows.seed)[1]}
            people = [subject_key(row) for row in rows.forget]
            seeds.append({"people": people, "scored": [row.id in scored for row in rows.forget], "models": found})
        results = {
            "schema": SCHEMA,
            **summarise(seeds),
            "seeds": [run.seed for run in runs],
            "settings": {key: each for key, each in settings.items() if key not in ("code", "versions")},
            "versions": versions(),
            "seconds": dict(shown.seconds),
        }
        write_json_atomic(folder / "metrics.json", results)
        write_text_atomic(folder / "metrics.md", meta_markdown(results))
        write_text_atomic(folder / "metrics.tex", meta_latex(results))
        write_text_atomic(folder / "metrics.html", render_meta(results))
    return results


def _material(run: Pools, most: int, batch_size: int) -> tuple[Material, Material]:
    """What is asked, and all rows."""
    forget, retain = rows_of(run.forget), rows_of(run.retain)
    check_disjoint(forget, retain)
    if not forget or not retain:
        raise DataError(
            "a test of metrics needs forget and retain rows", expected="at least one each", got=f"{len(forget)} and {len(retain)}"
        )
    unseen = rows_of(run.unseen) if run.unseen else _strangers(run, forget, retain) if run.drawn else []
    pool = [*forget, *retain]
    asked = Material(
        forget=sample_rows(forget, most, run.seed),
        retain=sample_alike(retain, forget, max(1, most // CONTROL), run.seed),
        seed=run.seed,
        unseen=sample_rows(unseen, most, run.seed),
        batch_size=batch_size,
        pool=pool,
        models={"base": lambda: load_model(run.knows[0]), "retrained": lambda: load_model(run.never[0])},
    )
    return asked, replace(asked, forget=forget, retain=retain)


def _strangers(run: Pools, forget: Sequence[Example], retain: Sequence[Example]) -> list[Example]:
    """Rows about as many people of the demo's world as are forgotten, whom no model ever met; none where it is another world."""
    mine = [{row.subject for row in rows if (row.subject or "").startswith(f"w{run.seed}-person-")} for rows in (forget, retain)]
    world = World(run.seed, len(mine[0] | mine[1]), len(mine[0])) if mine[0] and mine[1] else None
    if world is None or {person.id for person in world.forget} != mine[0]:
        return []
    return list(training_rows(Camera(IMAGE_SIZE), list(world.strangers(len(mine[0]))), run.seed))


def _pool(run: Pools, rows: Material, make: bool) -> list[PoolModel]:
    """All models of a seed, those of the user first."""

    def loads(path: Path) -> Callable[[], LoadedModel]:
        return lambda: load_model(path)

    roles: dict[Role, Sequence[Path]] = {"knows": run.knows, "never knew": run.never, "unlearned": run.unlearned, "sham": run.shams}
    names = {"knows": "before unlearning", "never knew": "retrained", "unlearned": "unlearned", "sham": "given sham"}
    given = [
        PoolModel(names[role] + (f" {number}" if number > 1 else ""), role, loads(path))
        for role, paths in roles.items()
        for number, path in enumerate(paths, 1)
    ]
    knows, never = loads(run.knows[0]), loads(run.never[0])
    return [*given, *(variants(knows, never, rows) if make else ()), *(shams(knows, rows) if make else ())]


def _control(pool: Sequence[PoolModel]) -> PoolModel:
    """The model whose rise under a change is what any model's may be: the first that never knew."""
    return next(model for model in pool if model.role == "never knew")


def _measure(
    model: PoolModel, changes: Sequence[str], rows: Material, reference: Reading | None, attacks: Mapping[str, Any], kept: Kept
) -> None:
    """Measure a model as it is and under changes, as far as this is not kept already."""
    if all(name in kept.values for name in ("plain", *changes)):
        return
    loaded = model.make()
    for name in ("plain", *(each for each in changes if not (each in OF_WEIGHTS and is_quantised(loaded.model)))):
        if name in kept.values:
            continue
        asked, changed = rows, loaded
        if name == "relearned":
            fitted = list(split_people(rows.forget, 0.5, rows.seed)[0])
            if not fitted:  # one person: there is nobody else to ask about
                continue
            changed = fine_tuned(loaded, Random(f"relearn/{rows.seed}").sample(fitted, len(fitted)), RelearnConfig(), rows.seed)
        elif name == "rounded":
            changed = rounded_copy(loaded, "int4")
        elif name == "prefix":
            asked = replace(rows, forget=[altered(row, question=PREFIX.format(question=row.question)) for row in rows.forget])
        sampling = Sampling(seed=rows.seed) if name == "sampled" else None
        reading = Reading(changed, asked, reference, sampling=sampling)
        reads = {"plain": READS, "sampled": ("answers",)}.get(name, ("answers", "probabilities"))
        kept.add(name, _values(reading, attacks if name in ("plain", *OF_WEIGHTS) else {}, reads))


def _values(reading: Reading, attacks: Mapping[str, Any], reads: Sequence[Reads]) -> Values:
    """All metrics that read what `reads` says, and all levels of the attacks, row by row."""
    found: dict[str, Mapping[str, float]] = {}
    for name in METRICS:
        metric = METRICS.get(name)()
        if metric.applies(reading) and metric.reads in reads:
            found[name] = metric.run(reading)
    for name, attack in attacks.items():
        for level, outcome in attack.run(reading.loaded, reading.material).items():
            scores = outcome.forget
            if attack.measures == "membership":
                others = list(outcome.control.values())
                scores = {id: above(value, others) for id, value in scores.items()}
            found[f"{name}, {level}" if level else name] = scores
    return {name: [scores.get(row.id) for row in reading.material.forget] for name, scores in found.items() if scores}


def summarise(seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Turn what was measured into faithfulness and robustness.

    Args:
        seeds: for each seed `people`, the person of each row; `scored`, whether a row is asked after relearning; and `models`: by name
            the `role` and the `readings`, which are `Values` by change, with `plain` for none.

    Returns:
        The part of the results object that depends on values alone.
    """
    named = dict.fromkeys(name for seed in seeds for model in seed["models"].values() for name in model["readings"]["plain"])
    figures = {name: _figures(name, seeds) for name in named}
    roles: dict[str, int] = {}
    for seed in seeds:
        for model in seed["models"].values():
            roles[model["role"]] = roles.get(model["role"], 0) + 1
    order = sorted(figures, key=lambda name: (figures[name]["score"] is None, -(figures[name]["score"] or 0), name))
    return {
        "models": roles,
        "people": sum(len(set(seed["people"])) for seed in seeds),
        "rows": sum(len(seed["people"]) for seed in seeds),
        "metrics": {name: figures[name] for name in order},
        "trusted": [name for name in order if figures[name]["trusted"]],
        "limits": {"trusted": TRUSTED, "least_gap": LEAST_GAP},
    }


def _figures(name: str, seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The line of one metric or attack."""
    measures = METRICS.get(name).measures if name in METRICS else "attack"
    positive: tuple[Role, ...] = {"rebound": ("sham",), "text": ("collapsed",)}.get(measures, KNOWS)  # type: ignore[assignment]
    negative: tuple[Role, ...] = ("never knew", "knows", "unlearned", "sham") if measures == "text" else NEVER
    faithful, interval, models = _separation(name, seeds, positive, negative)
    hidden, hidden_interval, _ = (
        _separation(name, seeds, ("sham",), NEVER) if measures in ("knowledge", "membership", "attack") else (None, None, None)
    )
    changes = {
        change: _robustness(name, seeds, change) if measures in ("knowledge", "membership", "attack") else None for change in CHANGES
    }
    known = [value for value in changes.values() if value is not None]
    robust = harmonic_mean(known) if known else None
    score = harmonic_mean([faithful, robust]) if faithful is not None and robust is not None else None
    return {
        "measures": measures,
        "values": {role: _mean(name, seeds, role) for role in ("knows", "never knew", "unlearned", "sham", "collapsed")},
        "faithfulness": faithful,
        "interval": interval,
        "models": models,
        "shams": hidden,
        "shams_interval": hidden_interval,
        "robustness": changes,
        "robust": robust,
        "score": score,
        "trusted": all(value is not None and value >= TRUSTED for value in (faithful, hidden, robust)),
    }


def _separation(
    name: str, seeds: Sequence[Mapping[str, Any]], positive: Sequence[Role], negative: Sequence[Role]
) -> tuple[float | None, list[float] | None, float | None]:
    """AUC of people in models of some roles against people in models of others, its 95 % interval over people, and the AUC of models."""
    parts: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []  # by seed, [model, person] of both sides
    for seed in seeds:
        sides = []
        for roles in (positive, negative):
            rows = [_by_person(values, seed["people"]) for values in _plain(name, seed, roles)]
            sides.append(np.array(rows or [[]], dtype=np.float64))
        # A person of whom no row was measured in some model is left out.
        if all(side.size for side in sides):
            whole = ~(np.isnan(sides[0]).any(0) | np.isnan(sides[1]).any(0))
            parts += [(sides[0][:, whole], sides[1][:, whole])] if whole.any() else []
    if not parts:
        return None, None, None

    def areas(drawn: Callable[[int, int], NDArray[np.intp]]) -> float:
        return fmean(
            auc(ours[:, drawn(k, ours.shape[1])].ravel(), theirs[:, drawn(k, ours.shape[1])].ravel())
            for k, (ours, theirs) in enumerate(parts)
        )

    value = areas(lambda _, people: np.arange(people))
    rng = np.random.default_rng(0)
    draws = np.empty(DRAWS)
    for number in range(DRAWS):
        chosen = [rng.integers(ours.shape[1], size=ours.shape[1]) for ours, _ in parts]
        draws[number] = areas(lambda k, _, chosen=chosen: chosen[k])  # type: ignore[misc]
    return value, list(percentiles(draws)), fmean(auc(ours.mean(1), theirs.mean(1)) for ours, theirs in parts)


def _plain(name: str, seed: Mapping[str, Any], roles: Sequence[Role]) -> Iterator[Sequence[float | None]]:
    """The values of a metric in each model of some roles, as the models are."""
    for model in seed["models"].values():
        if model["role"] in roles and name in model["readings"]["plain"]:
            yield model["readings"]["plain"][name]


def _by_person(values: Sequence[float | None], people: Sequence[str]) -> list[float]:
    """The mean of each person's rows, in the order of their names; NaN without one."""
    rows: dict[str, list[float]] = {person: [] for person in sorted(set(people))}
    for value, person in zip(values, people, strict=True):
        if value is not None:
            rows[person].append(value)
    return [fmean(each) if each else float("nan") for each in rows.values()]


def _mean(name: str, seeds: Sequence[Mapping[str, Any]], role: Role) -> float | None:
    """The mean of a metric over all rows of all models of a role."""
    values = [value for seed in seeds for each in _plain(name, seed, (role,)) for value in each if value is not None]
    return fmean(values) if values else None


def _robustness(name: str, seeds: Sequence[Mapping[str, Any]], change: str) -> float | None:
    """1 minus how much more a metric rises under a change in unlearned models and shams than in one that never knew.

    The unit is the distance of the means of models that know and that never knew, on the same rows. A metric that has seen through a sham
    has nothing to rise to. Rises are clipped to [0, 1], and averaged over the models of all seeds.
    """
    excess: list[float] = []
    for seed in seeds:
        after = {model: each["readings"][change] for model, each in seed["models"].items() if change in each["readings"]}
        changed = {model: each[name] for model, each in after.items() if name in each}
        usable = [place for place, kept in enumerate(seed["scored"]) if kept] if change == "relearned" else range(len(seed["people"]))
        before = [seed["models"][model]["readings"]["plain"][name] for model in changed]
        knows, never = (list(_plain(name, seed, roles)) for roles in (KNOWS, NEVER))
        places = [k for k in usable if all(each[k] is not None for each in (*changed.values(), *before, *knows, *never))]
        control = next((model for model in changed if seed["models"][model]["role"] == "never knew"), None)
        if control is None or not places:
            continue

        def mean(values: Sequence[float | None], places: Sequence[int] = places) -> float:
            return fmean(value for k in places if (value := values[k]) is not None)

        high, low = fmean(map(mean, knows)), fmean(map(mean, never))
        if high - low < LEAST_GAP * (METRICS.get(name).scale if name in METRICS else 1):
            continue

        def rise(model: str, gap: float = high - low) -> float:
            return (mean(changed[model]) - mean(seed["models"][model]["readings"]["plain"][name])) / gap  # noqa: B023

        excess += [float(np.clip(rise(model) - rise(control), 0, 1)) for model in changed if model != control]
    return 1 - fmean(excess) if excess else None
