"""An audit from its files to a verdict; the command line and notebooks call the same function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from vgid.artifacts import write_json_atomic, write_text_atomic
from vgid.attacks.base import Endpoint, Material, fact_key, sample_alike, sample_rows
from vgid.attacks.served import ServedConfig, check_endpoint, named
from vgid.auditing.few import is_about_few
from vgid.auditing.policy import Policy, Profile, load_policy
from vgid.auditing.run import run_attacks
from vgid.auditing.verdict import Status
from vgid.config import RunConfig, resolve
from vgid.data.example import Example, subject_key
from vgid.data.sources import Rows, check_disjoint, rows_of
from vgid.errors import ConfigError, DataError
from vgid.evaluation.statistics import Interval
from vgid.models.loading import LoadedModel, check_model_path, load_model
from vgid.progress import Stages, stages_or_own
from vgid.reading import read_yaml
from vgid.report.audit_page import render_audit
from vgid.run_folder import check_output, output_folder
from vgid.training.fit import fit

PROFILE_ROWS: Mapping[Profile, tuple[int, int]] = {"quick": (96, 48), "full": (240, 96)}
"""Largest number of forget rows (and of unseen rows), and of retain rows, that a profile asks."""
ModelSource = str | Path | tuple[str | Path, str | Path | None] | LoadedModel
"""A model: its folder or hub id, such a path with the folder of an adapter, or a loaded model, which is left unchanged."""


@dataclass(frozen=True)
class LevelFigures:
    """The figures of one level of an attack.

    Attributes:
        status: `pass`, `fail` or `inconclusive`.
        reason: the reason for the status; empty for a pass.
        facts: number of facts that the base knew and the attack scored.
        people: number of people that these facts are about.
        share: recovered share: 0 is a model without the facts, 1 the base; None where it cannot be given.
        interval: 95 % interval of the share over people.
        rates: by role of the model (`base`, `audited`, `retrained`), the share of the facts that the attack recovered, or the AUC of
            membership inference; None where a model was not asked.
        clean: by role, the share of the same facts that the clean questions bring.
    """

    status: Status
    reason: str
    facts: int
    people: int
    share: float | None
    interval: Interval | None
    rates: Mapping[str, float | None]
    clean: Mapping[str, float | None]


@dataclass(frozen=True)
class AttackFigures:
    """The figures of one attack.

    Attributes:
        status: `pass`, `fail` or `inconclusive`.
        reason: the reason for the status; empty for a pass.
        most: recovered share that the policy allows.
        required: whether the verdict of the audit depends on this attack.
        levels: figures by level (a budget or a variant); empty where the attack does not apply.
    """

    status: Status
    reason: str
    most: float
    required: bool
    levels: Mapping[str, LevelFigures]


@dataclass(frozen=True)
class AuditResult:
    """The outcome of an audit.

    Attributes:
        status: `pass`, `fail` or `inconclusive`.
        reasons: the reasons for the status; empty for a pass.
        untested: attacks that say nothing about the model, for instance because they do not apply.
        attacks: figures by attack, in the order of the policy.
        known: number of forget rows that the base answers; only these count.
        utility: share of the retain rows answered by the base that the audited model answers too; None where the base answers none.
        results: all figures and settings as a JSON object (schema `vgid.audit/1`), as written to `audit.json`.
    """

    status: Status
    reasons: tuple[str, ...]
    untested: tuple[str, ...]
    attacks: Mapping[str, AttackFigures]
    known: int
    utility: float | None
    results: dict[str, Any]


def audit(
    model: ModelSource,
    *,
    base: ModelSource,
    forget: Rows,
    retain: Rows,
    reference: ModelSource | None = None,
    policy: str | Path | Policy | None = None,
    profile: Profile = "quick",
    max_rows: int | None = None,
    seed: int = 0,
    batch_size: int = 64,
    unseen: Rows | None = None,
    rewordings: str | Path | Mapping[str, Sequence[str]] | None = None,
    views: Rows | None = None,
    turns: Literal["last", "all"] = "last",
    image_root: str | Path | None = None,
    served: str | Endpoint | None = None,
    adapter: str | Path | None = None,
    method: str | RunConfig | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    stages: Stages | None = None,
) -> AuditResult:
    """Attack a model that is said to have forgotten, and judge it by a policy that was fixed before.

    Everything is read and checked before a model is loaded. A model given by its path is loaded when its turn comes and released
    afterwards. The methods, the verdict and its limits are described in docs/audit.md.

    Args:
        model: the model to audit.
        base: the model before unlearning, which knew the facts.
        forget: rows that were to be forgotten.
        retain: rows that must still be known; none of them may be in `forget`.
        reference: a model that was trained without the forget rows; without one, guessing takes its place.
        policy: file of thresholds, or a policy; None for the package's own.
        profile: `quick`, or `full` for published budgets and more rows.
        max_rows: largest number of forget rows, and of retain rows, to ask; None takes those of the profile.
        seed: seed of everything random in the audit.
        batch_size: number of questions that are asked at once.
        unseen: rows about people that no model was trained on; membership inference needs them.
        rewordings: other wordings of a question, by the question or by the id of its row, or a YAML file of these.
        views: rows with other pictures of the same people.
        turns: of a conversation, `last` takes the last answer; `all` makes a row of each answer.
        image_root: folder that image paths are relative to and must stay in; None for the data file's own.
        served: URL, up to `/v1`, of a server that is said to serve the model; the questions are sent to it.
        adapter: folder of an adapter for the audited model.
        method: a method that works at inference, such as `icu`, or a configuration with one: the audited model is then asked through it,
            and by attacks on weights without it, since whoever has the weights need not use it. None asks plain questions.
        out: folder for `audit.json` and `audit.html`; None writes nothing.
        overwrite: replace what an earlier run left in `out`.
        stages: shows and times what is done; None shows progress bars.

    Returns:
        Status, reasons and figures, and the whole results object.

    Raises:
        ConfigError: the policy, the profile or the endpoint is not valid, two adapters were given, or the method changes weights.
        DataError: rows are bad, missing, or in both sets, or ids are not unique.
        ModelError: a model cannot be loaded.
        OutputError: `out` holds results already, or cannot be written.
        RunError: the server cannot be asked.

    Example:
        >>> found = audit("runs/out/merged", base="models/base", forget=forget, retain=retain)  # doctest: +SKIP
        >>> found.status, found.attacks["relearn"].levels["10 %"].share  # doctest: +SKIP
        ('pass', 0.0)
    """
    if profile not in PROFILE_ROWS:
        raise ConfigError("unknown profile", expected=" or ".join(PROFILE_ROWS), got=repr(profile))
    rules = policy if isinstance(policy, Policy) else load_policy(policy, profile)
    folder = Path(out) if out is not None else None
    if folder is not None:
        inputs = [base, model, reference, adapter, forget, retain, unseen, views, policy, rewordings]
        check_output(folder, overwrite, inputs=inputs)
    endpoint = Endpoint(served) if isinstance(served, str) else served
    if endpoint is not None:
        check_endpoint(endpoint)
    if adapter is not None:
        if not isinstance(model, str | Path):
            raise ConfigError("an adapter was given with a model that is not a path", fix="give (path, adapter) as the model, or adapter=")
        model = model, adapter
    config = resolve(method=method) if isinstance(method, str) else method
    if config is not None:
        _check_inference(config)
    given = {"base": base, "audited": model, **({"retrained": reference} if reference is not None else {})}
    sources = {role: _source(each) for role, each in given.items()}

    read = partial(rows_of, turns=turns, image_root=image_root)
    forget_rows, retain_rows = read(forget), read(retain)
    check_disjoint(forget_rows, retain_rows)
    most, control = (max_rows, max_rows) if max_rows else PROFILE_ROWS[profile]
    if endpoint is not None:  # first: a server that does not answer is known at once
        endpoint = named(endpoint, ServedConfig().seconds)
    few = is_about_few(forget_rows, rules.least_people, rules.least_facts)
    material = Material(
        forget=sample_rows(forget_rows, most, seed, fact_key if few else subject_key),
        retain=sample_alike(retain_rows, forget_rows, control, seed),
        seed=seed,
        unseen=sample_rows(read(unseen), most, seed) if unseen is not None else (),
        rewordings=read_rewordings(Path(rewordings)) if isinstance(rewordings, str | Path) else rewordings or {},
        batch_size=batch_size,
        pool=[*forget_rows, *retain_rows],
        views=read(views) if views is not None else (),
        served=endpoint,
    )
    with stages_or_own(stages) as shown:
        with shown("Attacking", "attacks") as tick:
            loaders = {role: load for role, (_, load) in sources.items()}
            if config is not None:
                loaders["audited"] = partial(_wrapped, loaders["audited"], config, forget_rows, retain_rows)
            results = run_attacks(loaders, material, rules, profile=profile, on_progress=tick)
        results |= {"models": {role: path for role, (path, _) in sources.items()}, "seconds": dict(shown.seconds)}
        if config is not None:
            results["method"] = config.method.name  # without settings: an instruction may name somebody
    if folder is not None:
        with output_folder(folder):
            write_json_atomic(folder / "audit.json", results)
            write_text_atomic(folder / "audit.html", render_audit(results))
    return _result(results)


def _source(model: ModelSource) -> tuple[str, Callable[[], LoadedModel]]:
    """The path of a model, and a function that loads it."""
    if isinstance(model, LoadedModel):
        return model.path, lambda: model
    path, adapter = model if isinstance(model, tuple) else (model, None)
    check_model_path(str(path))
    return str(path), partial(load_model, str(path), adapter=adapter)


def _check_inference(config: RunConfig) -> None:
    if config.build_method().kind != "inference":
        raise ConfigError(
            f"the method {config.method.name} changes weights, and an audit attacks what it has left",
            where="method",
            expected="a method that works at inference, such as icu",
            got=config.method.name,
            fix=f"run it by vgid unlearn --method {config.method.name}, and audit the checkpoint that it writes, without a method",
        )


def _wrapped(load: Callable[[], LoadedModel], config: RunConfig, forget: Sequence[Example], retain: Sequence[Example]) -> LoadedModel:
    """The model as a method that works at inference asks it."""
    return fit(load(), forget, retain, config).loaded


def read_rewordings(path: Path) -> dict[str, Sequence[str]]:
    """Read a YAML or JSON file that maps questions, or ids of rows, to lists of other wordings.

    Raises:
        DataError: the file is missing, is not YAML, or holds something else.
    """
    if not path.is_file():
        raise DataError("no such file of rewordings", where=str(path), expected="a YAML or JSON file", fix="check the path")
    values = read_yaml(path)
    right = isinstance(values, dict) and all(
        isinstance(key, str) and isinstance(texts, list) and all(isinstance(text, str) and text for text in texts)
        for key, texts in values.items()
    )
    if not right:
        raise DataError("the rewordings cannot be read", where=str(path), expected="question or id: [wording, ...]", got="something else")
    return {str(key): texts for key, texts in values.items()}


def _result(results: dict[str, Any]) -> AuditResult:
    def level(figures: Mapping[str, Any]) -> LevelFigures:
        return LevelFigures(
            status=figures["status"],
            reason=figures["reason"],
            facts=figures["facts"],
            people=figures["people"],
            share=figures["share"],
            interval=None if figures["interval"] is None else Interval(*figures["interval"]),
            rates=figures["auc"] if "auc" in figures else figures["recovered"],
            clean=figures["clean"],
        )

    def attack(figures: Mapping[str, Any]) -> AttackFigures:
        levels = {name: level(each) for name, each in figures["levels"].items()}
        return AttackFigures(figures["status"], figures["reason"], figures["most"], figures["required"], levels)

    verdict = results["verdict"]
    return AuditResult(
        status=verdict["status"],
        reasons=tuple(verdict["reasons"]),
        untested=tuple(verdict["untested"]),
        attacks={name: attack(each) for name, each in results["attacks"].items()},
        known=results["knowledge"]["known"],
        utility=results["utility"]["ratio"],
        results=results,
    )
