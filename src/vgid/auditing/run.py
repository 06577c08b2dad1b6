"""One audit: the clean questions and every attack, on the audited model, its base and the retrained reference alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from vgid.attacks import Material, Outcome
from vgid.attacks.asking import ask
from vgid.attacks.base import Attack, Outcomes, person
from vgid.auditing.figures import Members, Share, auc, membership_share, recovered_share, tpr_at
from vgid.auditing.policy import Policy, Profile
from vgid.auditing.verdict import Evidence, Verdict, join, judge, overall, untested
from vgid.data.example import Example
from vgid.errors import DataError
from vgid.evaluation.statistics import bootstrap_ci
from vgid.models.loading import LoadedModel
from vgid.results import versions

SCHEMA = "vgid.audit/1"
Models = Mapping[str, Callable[[], LoadedModel]]
"""How to load `base`, `audited` and, where there is one, `retrained`: one after the other, so that one is held at a time."""
Progress = Callable[[int, int], None]


class Answered:
    """What one model said: clean, and under every attack."""

    def __init__(self, clean: Mapping[str, float], attacks: Mapping[str, Outcomes], seconds: Mapping[str, float]) -> None:
        self.clean, self.attacks, self.seconds = clean, attacks, seconds

    def asked(self, material: Material) -> Outcome:
        """The clean questions as an attack's outcome."""
        forget, control = ({row.id: self.clean[row.id] for row in part} for part in (material.forget, material.retain))
        return Outcome(forget, control)


def run_attacks(
    models: Models, material: Material, policy: Policy, *, profile: Profile = "quick", on_progress: Progress | None = None
) -> dict[str, Any]:
    """Attack and judge. The results hold figures and settings, nothing of what was asked or answered.

    Raises:
        DataError: no forget rows, no retain rows, or ids that stand for several rows.
    """
    _check(material)
    attacks = {name: policy.attack(name, profile) for name in policy.attacks}
    done, total = 0, len(models) * (1 + len(attacks))

    def tick() -> None:
        nonlocal done
        done += 1
        if on_progress is not None:
            on_progress(done, total)

    others = replace(material, served=None)  # what is served is the audited model
    answered = {role: _examine(load(), attacks, material if role == "audited" else others, tick) for role, load in models.items()}
    return _results(answered, attacks, material, policy, profile)


def _check(material: Material) -> None:
    for name, rows in (("forget", material.forget), ("retain", material.retain)):
        if not rows:
            raise DataError(f"an audit needs {name} rows", expected="at least one", got="none", fix=f"give a {name} set")
    ids = [row.id for row in [*material.everything, *material.unseen]]
    if len(set(ids)) < len(ids):
        raise DataError("rows of an audit need ids of their own", got=f"{len(ids) - len(set(ids))} ids given twice", fix="rename them")


def _examine(loaded: LoadedModel, attacks: Mapping[str, Attack[Any]], material: Material, tick: Callable[[], None]) -> Answered:
    clean = ask(loaded, material.everything, lambda row: [row], material.batch_size)
    tick()
    outcomes, seconds = {}, {}
    for name, attack in attacks.items():
        started = time.monotonic()
        outcomes[name] = attack.run(loaded, material)
        seconds[name] = round(time.monotonic() - started, 2)
        tick()
    return Answered(clean, outcomes, seconds)


def _results(
    answered: Mapping[str, Answered], attacks: Mapping[str, Attack[Any]], material: Material, policy: Policy, profile: Profile
) -> dict[str, Any]:
    base, audited = answered["base"], answered["audited"]
    known = [row for row in material.forget if base.clean[row.id]]
    utility = _utility(base, audited, material)
    verdicts: dict[str, Verdict] = {}
    figures: dict[str, Any] = {}
    for name, attack in attacks.items():
        rule, levels = policy.attacks[name], {}
        judged: dict[str, Verdict] = {}
        for level in audited.attacks[name]:
            evidence, shown = _level(name, level, answered, known, attack, material)
            judged[level] = judge(evidence, rule.most, policy, utility["ratio"])
            levels[level] = {**shown, "status": judged[level].status, "reason": judged[level].reason}
        verdicts[name] = join(judged)
        figures[name] = {
            "access": attack.access,
            "finds": attack.finds,
            "budget": attack.config.model_dump(mode="json"),
            "most": rule.most,
            "required": rule.required,
            "status": verdicts[name].status,
            "reason": verdicts[name].reason,
            "levels": levels,
            "seconds": {role: each.seconds[name] for role, each in answered.items()},
        }
    status, reasons = overall(verdicts, policy, utility["ratio"])
    return {
        "schema": SCHEMA,
        "profile": profile,
        "seed": material.seed,
        "versions": versions(),
        "policy": policy.model_dump(mode="json"),
        "knowledge": _knowledge(answered, known, material),
        "utility": {**utility, "floor": policy.utility_floor},
        "attacks": figures,
        "verdict": {"status": status, "reasons": reasons, "untested": untested(verdicts)},
    }


def _knowledge(answered: Mapping[str, Answered], known: Sequence[Example], material: Material) -> dict[str, Any]:
    """Of the forget set, by clean questions: what was known before, and what each model still says."""
    return {
        "asked": len(material.forget),
        "people": len({person(row) for row in material.forget}),
        "known": len(known),
        "clean": {role: _mean(each.clean, material.forget) for role, each in answered.items()},
    }


def _utility(base: Answered, audited: Answered, material: Material) -> dict[str, Any]:
    """What the audited model answers of the retain rows that the base answers."""
    rows = [row for row in material.retain if base.clean[row.id]]
    out: dict[str, Any] = {"asked": len(rows), "ratio": None, "interval": None}
    if rows:
        values = [audited.clean[row.id] for row in rows]
        out |= {"ratio": fmean(values), "interval": list(bootstrap_ci(values, [person(row) for row in rows], seed=material.seed))}
    return out


def _level(
    name: str, level: str, answered: Mapping[str, Answered], known: Sequence[Example], attack: Attack[Any], material: Material
) -> tuple[Evidence, dict[str, Any]]:
    outcome = {role: each.attacks[name].get(level) for role, each in answered.items()}
    if attack.audited_only:
        outcome |= {role: each.asked(material) for role, each in answered.items() if role != "audited"}
    found = outcome["audited"]
    assert found is not None
    rows = [row for row in known if all(row.id in each.forget for each in outcome.values() if each)]  # those that all were asked
    measure = _membership if attack.measures == "membership" else _facts
    share, power, shown = measure(outcome, rows, material)
    part = len(known) / len(material.forget)
    evidence = Evidence(
        len(rows), len({person(row) for row in rows}), part, power, share, attack.measures == "membership", found.chance, found.agreement
    )
    shown |= {"facts": evidence.facts, "people": evidence.people, "chance": found.chance, **_shown(share)}
    shown["clean"] = {role: _mean(each.clean, rows) for role, each in answered.items()}
    if found.agreement is not None:
        shown["agreement"] = found.agreement
    if attack.measures == "facts":
        shown["modality"] = _by_modality(outcome, rows, material)
    return evidence, shown


def _facts(
    outcome: Mapping[str, Outcome | None], rows: Sequence[Example], material: Material
) -> tuple[Share | None, float | None, dict[str, Any]]:
    """Share of facts that came back; the attack's power is what it gets out of the base beyond what guessing gets."""
    base = outcome.get("base")
    rates = {role: _mean(each.forget, rows) if each else None for role, each in outcome.items()}
    power = (rates["base"] - base.chance) / (1 - base.chance) if base and rates["base"] is not None else None
    return _share_of(outcome, rows, material), power, {"recovered": rates, "power": power, "control": _control(outcome)}


def _share_of(outcome: Mapping[str, Outcome | None], rows: Sequence[Example], material: Material) -> Share | None:
    found, reference = outcome["audited"], outcome.get("retrained")
    if found is None or not rows:
        return None
    theirs = [reference.forget[row.id] for row in rows] if reference else None
    people = [person(row) for row in rows]
    return recovered_share([found.forget[row.id] for row in rows], theirs, found.chance, people, seed=material.seed)


def _by_modality(outcome: Mapping[str, Outcome | None], rows: Sequence[Example], material: Material) -> dict[str, Any]:
    """The same share for questions with a picture and those without, as they stand in the forget set."""
    parts = {"image": [row for row in rows if row.images], "text": [row for row in rows if not row.images]}
    return {name: {"facts": len(part), **_shown(_share_of(outcome, part, material))} for name, part in parts.items() if part}


def _membership(
    outcome: Mapping[str, Outcome | None], rows: Sequence[Example], material: Material
) -> tuple[Share | None, float | None, dict[str, Any]]:
    """Share of the base's AUC over the reference's that is left."""
    unseen = [row for row in material.unseen if all(row.id in each.control for each in outcome.values() if each)]
    scores = {
        role: Members([each.forget[row.id] for row in rows], [each.control[row.id] for row in unseen]) if each else None
        for role, each in outcome.items()
    }
    audited, base = scores["audited"], scores["base"]
    if not rows or not unseen or audited is None or base is None:
        return None, None, {"auc": {}, "tpr": {}}
    people = [person(row) for row in rows], [person(row) for row in unseen]
    share = membership_share(audited, base, scores.get("retrained"), people, seed=material.seed)
    areas = {role: auc(*each) for role, each in scores.items() if each}
    return share, None, {"auc": areas, "tpr": {role: tpr_at(*each) for role, each in scores.items() if each}}


def _control(outcome: Mapping[str, Outcome | None]) -> dict[str, float | None]:
    """What comes of retained people under the attack: a control that a low share is no broken model's."""
    return {role: fmean(each.control.values()) if each and each.control else None for role, each in outcome.items()}


def _mean(values: Mapping[str, float], rows: Sequence[Example]) -> float | None:
    return fmean(values[row.id] for row in rows) if rows else None


def _shown(share: Share | None) -> dict[str, Any]:
    return {"share": share.value if share else None, "interval": list(share.interval) if share else None}
