"""The attacks of an audit, on the audited model, its base and the retrained reference alike, and the results object.

Models have roles: `base` is the model before unlearning, `audited` the one that is said to have forgotten, `retrained` a reference that was
trained without the forget set.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from statistics import fmean
from typing import Any

from vgid.attacks import Material, Outcome
from vgid.attacks.asking import ask_with_decoys
from vgid.attacks.base import Attack, fact_key
from vgid.attacks.decoys import base_says, make_decoys
from vgid.auditing.facts import facts_found
from vgid.auditing.few import FactTest, Level, as_json, by_fact, compare_facts, compare_people, decoys_found, is_about_few, rank_share
from vgid.auditing.figures import Members, Share, auc, membership_share, recovered_share, tpr_at
from vgid.auditing.policy import Policy, Profile
from vgid.auditing.scores import ModelScores
from vgid.auditing.verdict import Evidence, Verdict, join, judge, overall, untested
from vgid.data.example import Example, subject_key
from vgid.errors import DataError
from vgid.evaluation.statistics import bootstrap_ci
from vgid.models.loading import LoadedModel
from vgid.progress import Progress
from vgid.results import versions

SCHEMA = "vgid.audit/1"
Models = Mapping[str, Callable[[], LoadedModel]]
"""Functions that load the models, by role; `retrained` may be missing. They are called in turn, so that one model is held at a
time, beside those that an attack itself loads (`Material.models`)."""


def run_attacks(
    models: Models, material: Material, policy: Policy, *, profile: Profile = "quick", on_progress: Progress | None = None
) -> dict[str, Any]:
    """Attack all models in the same way, and judge the audited one.

    Args:
        models: functions that load the models, by role.
        material: the rows to attack; they are checked before a model is loaded.
        policy: the attacks, their thresholds, and what else a verdict needs.
        profile: the budgets.
        on_progress: called with the number of attacks done and their total, the clean questions counting as one.

    Returns:
        The results object (schema `vgid.audit/1`): figures and settings, nothing of what was asked or answered.

    Raises:
        DataError: there are no forget rows or no retain rows, or an id stands for several rows.
    """
    for name, rows in (("forget", material.forget), ("retain", material.retain)):
        if not rows:
            raise DataError(f"an audit needs {name} rows", expected="at least one", got="none", fix=f"give a {name} set")
    ids = [row.id for row in [*material.everything, *material.unseen]]
    if len(set(ids)) < len(ids):
        raise DataError("rows of an audit need unique ids", got=f"{len(ids) - len(set(ids))} ids used twice", fix="rename them")
    attacks = {name: policy.attack(name, profile) for name in policy.attacks}
    done, total = 0, len(models) * (1 + len(attacks))

    def tick() -> None:
        nonlocal done
        done += 1
        if on_progress is not None:
            on_progress(done, total)

    material = replace(material, models={role: load for role, load in models.items() if role != "audited"})
    scores: dict[str, ModelScores] = {}
    for role in sorted(models, key=lambda role: role != "base"):  # the base first: it may have to say what decoys are
        loaded = models[role]()
        if not scores and is_about_few(material.forget, policy.least_people, policy.least_facts):
            material = with_decoys(material, loaded)
        # Only the audited model is served. An attack that needs the model in this role gets the one that is loaded already.
        own = material if role == "audited" else replace(material, served=None, models={**material.models, role: partial(_itself, loaded)})
        scores[role] = attack_model(loaded, attacks, own, tick)
        del own
        del loaded
    return assess(scores, attacks, material, policy, profile)


def _itself(loaded: LoadedModel) -> LoadedModel:
    return loaded


def with_decoys(material: Material, base: LoadedModel) -> Material:
    """The material of an audit of few people: with decoys, for which the base may be asked."""
    return replace(material, decoys=make_decoys(material, base_says(base, material.batch_size)))


def attack_model(
    loaded: LoadedModel, attacks: Mapping[str, Attack[Any]], material: Material, tick: Callable[[], None] = lambda: None
) -> ModelScores:
    """Ask one model the clean questions, then attack it.

    Args:
        loaded: the model; it is left unchanged.
        attacks: the attacks by name.
        material: the rows.
        tick: called after the clean questions and after each attack.

    Returns:
        The scores.
    """
    clean = ask_with_decoys(loaded, material.everything, lambda row: [row], material.decoys, material.batch_size)
    tick()
    outcomes, seconds = {}, {}
    for name, attack in attacks.items():
        started = time.monotonic()
        outcomes[name] = attack.run(loaded, material)
        seconds[name] = round(time.monotonic() - started, 2)
        tick()
    return ModelScores(clean.rows, outcomes, seconds, clean.decoys)


def assess(
    scores: Mapping[str, ModelScores], attacks: Mapping[str, Attack[Any]], material: Material, policy: Policy, profile: Profile
) -> dict[str, Any]:
    """Turn the scores of all models into figures and verdicts.

    Args:
        scores: scores by role; `base` and `audited` are needed.
        attacks: the attacks that were run, by name.
        material: the rows that were attacked.
        policy: the thresholds.
        profile: the budgets, for the record.

    Returns:
        The results object (schema `vgid.audit/1`).
    """
    base, audited = scores["base"], scores["audited"]
    known = [row for row in material.forget if base.clean[row.id]]
    retained = [row for row in material.retain if base.clean[row.id]]
    utility: dict[str, Any] = {"asked": len(retained), "ratio": None, "interval": None}
    if retained:
        values = [audited.clean[row.id] for row in retained]
        interval = bootstrap_ci(values, [subject_key(row) for row in retained], seed=material.seed)
        utility |= {"ratio": fmean(values), "interval": list(interval)}
    tests = _tests(scores, attacks, known, policy, material) if material.by_facts else {}
    verdicts: dict[str, Verdict] = {}
    figures: dict[str, Any] = {}
    for name, attack in attacks.items():
        rule, levels = policy.attacks[name], {}
        judged: dict[str, Verdict] = {}
        for level in audited.attacks[name]:
            evidence, shown = _measured(name, level, scores, known, attack, material)
            if test := tests.get((name, level)):
                evidence = replace(evidence, test=test)
                shown["test"] = as_json(test)
            judged[level] = judge(evidence, rule.most, policy, utility["ratio"])
            levels[level] = {**shown, "status": judged[level].status, "reason": judged[level].reason}
        verdicts[name] = join(judged)
        figures[name] = {
            "access": attack.access,
            "finds": attack.finds,
            "tries": attack.tries,
            "budget": attack.config.model_dump(mode="json"),
            "most": rule.most,
            "required": rule.required,
            "status": verdicts[name].status,
            "reason": verdicts[name].reason,
            "levels": levels,
            "seconds": {role: each.seconds[name] for role, each in scores.items()},
        }
    failed = [(name, level) for name, each in figures.items() for level, shown in each["levels"].items() if shown["status"] == "fail"]
    status, reasons = overall(verdicts, policy, utility["ratio"])
    return {
        "schema": SCHEMA,
        "profile": profile,
        "seed": material.seed,
        "versions": versions(),
        "policy": policy.model_dump(mode="json"),
        "unit": "fact" if material.by_facts else "person",
        "knowledge": {
            "asked": len(material.forget),
            "people": len({subject_key(row) for row in material.forget}),
            "known": len(known),
            "clean": {role: _mean(each.clean, material.forget) for role, each in scores.items()},
        },
        "utility": {**utility, "floor": policy.utility_floor},
        "attacks": figures,
        "facts": facts_found(scores, [name for name, each in attacks.items() if each.measures == "facts"], failed, material),
        "verdict": {"status": status, "reasons": reasons, "untested": untested(verdicts)},
    }


def _tests(
    scores: Mapping[str, ModelScores], attacks: Mapping[str, Attack[Any]], known: Sequence[Example], policy: Policy, material: Material
) -> dict[Level, FactTest]:
    """Permutation tests of all levels, in families: required and optional attacks on facts, and attacks on membership."""

    def outcomes(names: Sequence[str]) -> list[dict[Level, Outcome]]:
        levels = [(name, level) for name in names for level in scores["audited"].attacks[name]]
        found = {each: _outcomes(scores, *each, attacks[each[0]], material) for each in levels}
        return [{level: each for level in levels if (each := found[level].get(role))} for role in ("audited", "base")]

    facts = [name for name, each in attacks.items() if each.measures == "facts"]
    tests: dict[Level, FactTest] = {}
    for required in (True, False):
        audited, base = outcomes([name for name in facts if policy.attacks[name].required == required])
        tests |= compare_facts(audited, base, known, material, policy.significance)
    audited, base = outcomes([name for name in attacks if name not in facts])
    return tests | compare_people(audited, base, known)


def _outcomes(
    scores: Mapping[str, ModelScores], name: str, level: str, attack: Attack[Any], material: Material
) -> dict[str, Outcome | None]:
    """The outcomes of one level by role."""
    outcomes = {role: each.attacks[name].get(level) for role, each in scores.items()}
    if attack.audited_only:
        # The other models are compared by their clean answers, in the form of an outcome.
        for role, each in scores.items():
            if role != "audited":
                forget, control = ({row.id: each.clean[row.id] for row in part} for part in (material.forget, material.retain))
                outcomes[role] = Outcome(forget, control, decoys=each.decoys)
    return outcomes


def _measured(
    name: str, level: str, scores: Mapping[str, ModelScores], known: Sequence[Example], attack: Attack[Any], material: Material
) -> tuple[Evidence, dict[str, Any]]:
    """One level of an attack: the evidence for its verdict, and its figures in the results."""
    outcomes = _outcomes(scores, name, level, attack, material)
    found = outcomes["audited"]
    assert found is not None
    # An attack may skip other rows on another model; only rows that all models were asked are compared.
    rows = [row for row in known if all(row.id in each.forget for each in outcomes.values() if each)]
    membership = attack.measures == "membership"
    share, power, shown = (_membership if membership else _facts)(outcomes, rows, material)
    people = len({subject_key(row) for row in rows})
    part = len(known) / len(material.forget)
    facts = len({fact_key(row) for row in rows}) if material.by_facts else len(rows)
    evidence = Evidence(facts, people, part, power, share, membership, found.chance, found.agreement)
    shown |= {"facts": evidence.facts, "people": evidence.people, "chance": found.chance, **_as_json(share)}
    shown["clean"] = {role: _mean(each.clean, rows) for role, each in scores.items()}
    if found.agreement is not None:
        shown["agreement"] = found.agreement
    if not membership:
        modalities = {"image": [row for row in rows if row.images], "text": [row for row in rows if not row.images]}
        shown["modality"] = {
            modality: {"facts": len(some), **_as_json(_share_of(outcomes, some, material))} for modality, some in modalities.items() if some
        }
    return evidence, shown


def _facts(
    outcomes: Mapping[str, Outcome | None], rows: Sequence[Example], material: Material
) -> tuple[Share | None, float | None, dict[str, Any]]:
    """The recovered share; the attack's power, which is what it recovers from the base beyond guessing; and figures."""
    base = outcomes.get("base")
    rates = {role: _mean(each.forget, rows) if each else None for role, each in outcomes.items()}
    power = (rates["base"] - base.chance) / (1 - base.chance) if base and rates["base"] is not None else None
    # A low share with a low control is that of a broken model.
    control = {role: fmean(each.control.values()) if each and each.control else None for role, each in outcomes.items()}
    return _share_of(outcomes, rows, material), power, {"recovered": rates, "power": power, "control": control}


def _share_of(outcomes: Mapping[str, Outcome | None], rows: Sequence[Example], material: Material) -> Share | None:
    found, reference = outcomes["audited"], outcomes.get("retrained")
    if found is None or not rows:
        return None
    if material.by_facts:
        ours = by_fact(found.forget, rows)
        theirs = list(by_fact(reference.forget, rows).values()) if reference else None
        return recovered_share(list(ours.values()), theirs, max(found.chance, decoys_found(found)), list(ours), seed=material.seed)
    theirs = [reference.forget[row.id] for row in rows] if reference else None
    people = [subject_key(row) for row in rows]
    return recovered_share([found.forget[row.id] for row in rows], theirs, found.chance, people, seed=material.seed)


def _membership(
    outcomes: Mapping[str, Outcome | None], rows: Sequence[Example], material: Material
) -> tuple[Share | None, float | None, dict[str, Any]]:
    """The share of membership that is left; no power, since there is a share only where the base differs from the reference."""
    if material.by_facts:
        shares = {role: rank_share(each, rows, material.seed) if each else None for role, each in outcomes.items()}
        # The AUC of one person among others is the share of them whom it is above.
        areas = {role: (1 + each.value) / 2 for role, each in shares.items() if each}
        return shares["audited"], None, {"auc": areas, "tpr": {}}
    unseen = [row for row in material.unseen if all(row.id in each.control for each in outcomes.values() if each)]
    scores = {
        role: Members([each.forget[row.id] for row in rows], [each.control[row.id] for row in unseen]) if each else None
        for role, each in outcomes.items()
    }
    audited, base = scores["audited"], scores["base"]
    if not rows or not unseen or audited is None or base is None:
        return None, None, {"auc": {}, "tpr": {}}
    people = [subject_key(row) for row in rows], [subject_key(row) for row in unseen]
    share = membership_share(audited, base, scores.get("retrained"), people, seed=material.seed)
    areas = {role: auc(*each) for role, each in scores.items() if each}
    return share, None, {"auc": areas, "tpr": {role: tpr_at(*each) for role, each in scores.items() if each}}


def _mean(values: Mapping[str, float], rows: Sequence[Example]) -> float | None:
    return fmean(values[row.id] for row in rows) if rows else None


def _as_json(share: Share | None) -> dict[str, Any]:
    return {"share": share.value if share else None, "interval": list(share.interval) if share else None}
