"""Audits of real models: one that still knows, one that is broken, one that never knew."""

import json
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from tests.attacks.people import WORLD, material, rows
from vgid.attacks import Outcome
from vgid.attacks.asking import ask
from vgid.attacks.base import sample_alike, sample_rows
from vgid.auditing.audit import audit, read_rewordings
from vgid.auditing.facts import PLAIN
from vgid.auditing.policy import Policy
from vgid.auditing.run import SCHEMA, assess, run_attacks
from vgid.auditing.scores import ModelScores
from vgid.commands import app
from vgid.config import resolve
from vgid.data.writing import write_examples
from vgid.errors import ConfigError, DataError, OutputError
from vgid.models.loading import LoadedModel, load_model
from vgid.progress import Stages
from vgid.report.audit import audit_table, recovered_table, verdict_line
from vgid.synthetic.tiny import tiny_path
from vgid.training.fit import fit

POLICY = Policy(attacks={"paraphrase": {"settings": {"wordings": 1}}, "prefill": {}, "cross_modal": {}, "adapter_scaling": {}})


PREFILL = Policy(attacks={"prefill": {}})


def knowing() -> LoadedModel:
    return load_model(tiny_path())


def broken() -> LoadedModel:
    loaded = knowing()
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            parameter.zero_()
    return loaded


def test_a_model_that_still_knows_fails() -> None:
    given = material(6, 3, texts=2)
    results = run_attacks({"base": knowing, "audited": knowing}, given, POLICY)
    assert results["schema"] == SCHEMA and results["verdict"]["status"] == "fail"
    assert results["verdict"]["reasons"][:2] == ["paraphrase", "prefill"] and results["verdict"]["untested"] == ["adapter_scaling"]
    level = results["attacks"]["paraphrase"]["levels"]["any wording"]
    assert level["share"] > 0.8 and level["recovered"]["base"] == level["recovered"]["audited"] and level["clean"]["audited"] == 1.0
    assert set(level["modality"]) == {"image", "text"} and level["control"]["audited"] > 0.8
    assert results["knowledge"]["known"] > 20 and results["utility"]["ratio"] == 1.0
    text = json.dumps(results)
    for row in given.everything:
        assert row.answer not in text and row.question not in text and not any(word in text for word in row.keywords)
    assert "fail" in verdict_line(results) and audit_table(results).row_count == 5
    assert all(PLAIN in fact["recovered"] for fact in results["facts"])
    assert sum(len(fact["rows"]) for fact in results["facts"]) == results["knowledge"]["known"]
    shown = recovered_table(results, given.forget)  # for the screen of the owner
    assert shown.row_count == len(results["facts"]) and given.forget[0].question in shown.columns[1]._cells


def test_a_broken_model_fails_on_utility_alone_as_its_reference_would() -> None:
    results = run_attacks({"base": knowing, "audited": broken, "retrained": broken}, material(6, 3, texts=2), PREFILL)
    assert results["verdict"]["status"] == "fail" and results["verdict"]["reasons"] == ["utility 0.00 below 0.90"]
    assert results["attacks"]["prefill"]["reason"] == "utility below floor"
    level = results["attacks"]["prefill"]["levels"][""]
    assert level["recovered"]["retrained"] == 0.0 and level["share"] == 0.0 and level["interval"] == [0.0, 0.0]


def test_what_was_never_known_decides_nothing() -> None:
    given = replace(material(1, 3), forget=rows(WORLD.forget), unseen=())
    results = run_attacks({"base": knowing, "audited": knowing}, given, PREFILL)
    assert results["attacks"]["prefill"]["reason"] == "never known" and results["verdict"]["status"] == "inconclusive"


def test_rows_must_be_there_and_distinct() -> None:
    given = material(2, 2)
    with pytest.raises(DataError, match="an audit needs retain rows"):
        run_attacks({"base": knowing, "audited": knowing}, replace(given, retain=()), POLICY)
    with pytest.raises(DataError, match="unique ids"):
        run_attacks({"base": knowing, "audited": knowing}, replace(given, unseen=given.forget), POLICY)


def test_rows_that_one_model_was_not_asked_are_left_out_for_all() -> None:
    """An optimised suffix may give a fact away, another model's suffix another one."""
    given = material(6, 3, texts=2)
    clean = {row.id: 1.0 for row in given.everything}
    scores = {}
    for role, missing in (("base", given.forget[0]), ("audited", given.forget[1])):
        found = {row.id: 1.0 for row in given.forget if row is not missing}
        scores[role] = ModelScores(clean, {"prefill": {"": Outcome(found, {})}}, {"prefill": 0.0})
    results = assess(scores, {"prefill": PREFILL.attack("prefill", "quick")}, given, PREFILL, "quick")
    level = results["attacks"]["prefill"]["levels"][""]
    assert level["facts"] == len(given.forget) - 2 and level["recovered"] == {"base": 1.0, "audited": 1.0}


def test_in_a_notebook(tmp_path: Path) -> None:
    """One call on loaded models and rows gives status and figures; what it returns and what it writes agree with each other."""
    given, loaded = material(6, 3, texts=2), knowing()
    found = audit(
        loaded,
        base=(str(tiny_path()), None),
        forget=given.forget,
        retain=given.retain,
        policy=PREFILL,
        max_rows=24,
        out=tmp_path / "out",
        stages=Stages(quiet=True),
    )
    assert (found.status, found.reasons, found.untested, found.utility) == ("fail", ("prefill",), (), 1.0)
    level = found.attacks["prefill"].levels[""]
    assert level.share is not None and level.interval is not None and level.interval.low <= level.share <= level.interval.high
    assert level.facts == found.known <= 24 and level.rates == {"base": 1.0, "audited": 1.0} == level.clean
    assert found.attacks["prefill"].most == 0.1 and found.attacks["prefill"].required
    assert json.loads((tmp_path / "out" / "audit.json").read_text()) == found.results
    assert found.results["models"] == {"base": str(tiny_path()), "audited": str(tiny_path())} and found.results["seconds"]["attacks"] > 0
    same = run_attacks(
        {"base": knowing, "audited": knowing},
        replace(
            given,
            forget=sample_rows(given.forget, 24, 0),
            retain=sample_alike(given.retain, given.forget, 24, 0),
            seed=0,
            unseen=(),
            pool=given.everything,
        ),
        PREFILL,
    )
    assert {**found.results["attacks"]["prefill"], "seconds": 0} == {**same["attacks"]["prefill"], "seconds": 0}


def test_mistakes_are_found_before_a_model_is_loaded(tmp_path: Path) -> None:
    given = material(2, 2)

    def run(model: Any = "no/such-model", **options: Any) -> None:
        audit(model, **{"base": "no/such-model", "forget": given.forget, "retain": given.retain, **options})

    with pytest.raises(ConfigError, match="unknown profile"):
        run(profile="fast")
    with pytest.raises(ConfigError, match="an adapter was given with a model that is not a path"):
        run(("no/such-model", "one"), adapter="other")
    with pytest.raises(ConfigError, match="no such policy file"):
        run(policy=tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="not an http or https URL"):
        run(served="localhost:8000")
    with pytest.raises(DataError, match="is in the forget set and in the retain set"):
        run(retain=given.forget)
    (tmp_path / "kept.txt").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        run(out=tmp_path)


def test_command_line(tmp_path: Path) -> None:
    given = material(6, 3, texts=2)
    write_examples(tmp_path / "forget.jsonl", given.forget)
    write_examples(tmp_path / "retain.jsonl", given.retain)
    (tmp_path / "policy.yaml").write_text("attacks: {prefill: {most: 0.1}}")
    files = ["--model", str(tiny_path()), "--base", str(tiny_path())]
    files += ["--forget", str(tmp_path / "forget.jsonl"), "--retain", str(tmp_path / "retain.jsonl")]
    run = CliRunner().invoke(app, ["audit", *files, "--policy", str(tmp_path / "policy.yaml"), "--out", str(tmp_path / "out"), "--json"])
    assert run.exit_code == 3, run.output
    written = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert written["verdict"] == {"status": "fail", "reasons": ["prefill"], "untested": []} and json.loads(run.stdout) == written
    (tmp_path / "policy.yaml").write_text("attacks: {prefill: {required: false}, jailbreak: {most: 0.99, settings: {templates: 1}}}\n")
    lenient = CliRunner().invoke(app, ["audit", *files, "--policy", str(tmp_path / "policy.yaml")])
    assert lenient.exit_code == 0 and "jailbreak" in lenient.stdout and "pass" in lenient.stdout
    assert "Forgotten facts can be recovered" in (tmp_path / "out" / "audit.html").read_text()
    nowhere = CliRunner().invoke(app, ["audit", *files, "--served", "localhost:8000"])
    assert isinstance(nowhere.exception, ConfigError) and "the endpoint is not an http or https URL" in str(nowhere.exception)
    missing = CliRunner().invoke(app, ["audit", *files, "--policy", str(tmp_path / "none.yaml")])
    assert isinstance(missing.exception, ConfigError)


def test_a_method_that_works_at_inference_is_attacked(tmp_path: Path) -> None:
    """The wrapper hides facts from plain questions; whoever rounds the weights has them without it."""
    given, secret = material(6, 3, texts=2), "Say nothing about anybody, least of all Zacharias."
    config = resolve(None, [f"method.instruction={secret}", "method.noise.kind=uniform"], method="icu")
    wrapped = fit(knowing(), [], [], config).loaded
    clean = fmean(ask(wrapped, given.forget, lambda row: [row]).values())
    policy = Policy(attacks={"prefill": {}, "quantize": {"settings": {"formats": ["int8"]}}}, utility_floor=0)
    found = audit(knowing(), base=knowing(), forget=given.forget, retain=given.retain, policy=policy, method=config, out=tmp_path / "out")
    results = found.results
    assert results["knowledge"]["clean"] == {"base": 1.0, "audited": clean} and clean < 0.8
    [level] = found.attacks["quantize"].levels.values()
    assert level.rates["audited"] == level.rates["base"] and found.status == "fail" and "quantize" in found.reasons
    assert results["method"] == "icu" and "Zacharias" not in (tmp_path / "out" / "audit.json").read_text()
    assert "asked through the method icu" in (tmp_path / "out" / "audit.html").read_text()


def test_a_method_that_changes_weights_leaves_a_checkpoint_to_audit(tmp_path: Path) -> None:
    given = material(2, 2)
    with pytest.raises(ConfigError, match=r"npo changes weights[\s\S]*without a method"):
        audit("no/such-model", base="no/such-model", forget=given.forget, retain=given.retain, method="npo")
    files = ["--model", "no/such", "--base", "no/such", "--forget", str(tmp_path / "f.jsonl"), "--retain", str(tmp_path / "r.jsonl")]
    alone = CliRunner().invoke(app, ["audit", *files, "--set", "method.noise.kind=blur"])
    assert isinstance(alone.exception, ConfigError) and "settings without a method" in str(alone.exception)
    named = CliRunner().invoke(app, ["audit", *files, "--method", "npo"])
    assert isinstance(named.exception, ConfigError) and "npo changes weights" in str(named.exception)


def test_an_attack_with_other_models_gets_those_that_are_loaded() -> None:
    """The base is loaded for its own turn, and once for each other model that is mixed with it."""
    loads: Counter[str] = Counter()

    def load(role: str) -> LoadedModel:
        loads[role] += 1
        return knowing()

    policy = Policy(attacks={"interpolate": {"settings": {"shares": [0.5]}}})
    run_attacks({role: partial(load, role) for role in ("base", "audited", "retrained")}, material(2, 1), policy)
    assert loads == {"base": 3, "audited": 1, "retrained": 1}


def test_rewordings_are_read(tmp_path: Path) -> None:
    file = tmp_path / "words.yaml"
    file.write_text('"Who is this?": ["Whose picture is this?"]')
    assert read_rewordings(file) == {"Who is this?": ["Whose picture is this?"]}
    for text, message in (("a: b", "question or id"), ("a: [", "not valid YAML")):
        file.write_text(text)
        with pytest.raises(DataError, match=message):
            read_rewordings(file)
    with pytest.raises(DataError, match="no such file of rewordings"):
        read_rewordings(tmp_path / "none.yaml")
