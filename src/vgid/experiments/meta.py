"""`vgid metrics meta`: which metric of forgetting can be trusted? Faithfulness and robustness of every metric and attack.

After OpenUnlearning (arXiv 2506.12618) and Open-MMUnlearning (2610.10358), with three departures. Faithfulness compares people in models,
not models alone, so that it does not need hundreds of models. A third figure asks whether a metric sees the facts in models that only hide
them. And robustness takes the difference, not the ratio, of what a metric says before and after a change, in units of the distance between
models that know (1) and models that never knew (0): ratios of numbers near zero say nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from vgid.artifacts import write_json_atomic, write_text_atomic
from vgid.attacks import ATTACKS
from vgid.attacks.base import Material, sample_alike, sample_rows, split_people
from vgid.attacks.jailbreak import TEMPLATES
from vgid.attacks.quantize import rounded_copy
from vgid.attacks.relearn import RelearnConfig, fine_tuned
from vgid.data.example import Example, altered, subject_key
from vgid.data.sources import check_disjoint, rows_of
from vgid.demo.targets import TARGETS
from vgid.errors import ConfigError, DataError
from vgid.evaluation.sampling import Sampling
from vgid.experiments.inputs import SeedModels
from vgid.experiments.kept import READINGS, Kept, anything_kept, code_digest, model_digests
from vgid.experiments.pools import PoolModel, Role, shams, variants
from vgid.experiments.trust import CHANGES, Values, summarise
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
OF_WEIGHTS = ("relearned", "rounded")
"""Changes of the weights, under which attacks are run too; the others change how metrics ask, and attacks ask in their own ways."""
PREFIX = TEMPLATES[3]
CONTROL = 4
"""Forget rows for each retain row that attacks ask as well."""
READS: tuple[Reads, ...] = ("answers", "probabilities", "weights")
CODE = ("attacks", "evaluation", "metrics", "models", "training", "experiments/meta.py", "experiments/pools.py")
"""Code that decides what is measured."""


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
