"""The test of metrics: figures worked out by hand, what pools are made of, and a whole run on the embedded model."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from tests.attacks.people import material
from tests.conftest import example
from vgid.attacks.quantize import rounded
from vgid.commands import app
from vgid.data.writing import write_examples
from vgid.errors import ConfigError
from vgid.experiments.kept import Kept, anything_kept
from vgid.experiments.meta import Pools, meta
from vgid.experiments.pools import other_words, within_a_step, wrong_values
from vgid.experiments.trust import CHANGES, summarise
from vgid.report.meta import meta_latex, meta_markdown, render_meta, trusted
from vgid.synthetic.tiny import tiny_path

PEOPLE = ["a", "a", "b", "b"]


def model(role: str, plain: list[float | None], **changed: list[float | None]) -> dict:
    return {"role": role, "readings": {name: {"key_fact": values} for name, values in {"plain": plain, **changed}.items()}}


def seed(**models: dict) -> dict:
    return {"people": PEOPLE, "scored": [False, False, True, True], "models": models}


def test_faithfulness_and_robustness_by_hand() -> None:
    """People know 1 and 0.5 in the first model, and 0 and 0.5 in the other: of four pairs three are right and one is level.

    The sham hides all, as the model that never knew does (0 and 0.5): level. After rounding it states 0.75 of the rows where it stated
    0.25, and the model that never knew what it did before: it rises by all of the distance of 0.75 - 0.25 = 0.5 between the two.
    After relearning only b counts, about whom both sides state the same (0.5), so nothing can be said.
    """
    found = summarise(
        [
            seed(
                base=model("knows", [1, 1, 0, 1]),
                never=model("never knew", [0, 0, 0, 1], rounded=[0, 0, 0, 1], relearned=[1, 1, 1, 1]),
                sham=model("sham", [0, 0, 0, 1], rounded=[1, 1, 1, 0], relearned=[1, 1, 1, 1]),
            )
        ]
    )
    line = found["metrics"]["key_fact"]
    assert line["faithfulness"] == 3.5 / 4 and line["models"] == 1 and line["shams"] == 0.5
    assert line["robustness"] == {"relearned": None, "rounded": 0.0, "prefix": None, "sampled": None}
    assert line["score"] == 0 and not line["trusted"] and found["models"] == {"knows": 1, "never knew": 1, "sham": 1}
    assert line["values"]["knows"] == 0.75 and line["values"]["collapsed"] is None


def test_a_rise_that_a_model_that_never_knew_has_too_is_not_held_against_a_metric() -> None:
    """Both rise by a half when they are rounded; the sham was seen through before."""
    runs = [
        seed(
            base=model("knows", [1, 1, 1, 1]),
            never=model("never knew", [0, 0, 0, 0], rounded=[1, 0, 1, 0], prefix=[0, 0, 0, 0]),
            sham=model("sham", [0, 0, 1, 1], rounded=[1, 0, 1, 1], prefix=[1, 1, 1, 1]),
        )
    ]
    line = summarise(runs)["metrics"]["key_fact"]
    assert line["robustness"]["rounded"] == 1 and line["robustness"]["prefix"] == 0.5
    assert line["score"] == pytest.approx(2 * (2 / 3) / (1 + 2 / 3)) and line["faithfulness"] == 1 and line["shams"] == 0.75


def test_a_metric_that_says_nothing_has_no_robustness() -> None:
    """Over all rows both kinds of models have a half; on the rows that are scored after relearning they differ, by chance."""
    runs = [
        seed(
            base=model("knows", [0, 0, 1, 1]),
            never=model("never knew", [1, 1, 0, 0], relearned=[1, 1, 0, 0]),
            sham=model("sham", [0, 0, 0, 0], relearned=[1, 1, 1, 1]),
        )
    ]
    assert summarise(runs)["metrics"]["key_fact"]["robustness"]["relearned"] is None


def test_rows_that_a_metric_leaves_out_are_left_out_for_all_models() -> None:
    found = summarise([seed(base=model("knows", [1, None, None, None]), never=model("never knew", [0, 0, 1, 1]))])
    assert found["metrics"]["key_fact"]["faithfulness"] == 1, "b was not measured in one of the models"


def test_tables_show_every_metric() -> None:
    runs = [seed(base=model("knows", [1, 1, 1, 1]), never=model("never knew", [0, 0, 0, 0]), sham=model("sham", [1, 1, 1, 1]))]
    results = {**summarise(runs), "schema": "vgid.metrics.meta/1", "seeds": [1]}
    row = next(line for line in meta_markdown(results).splitlines() if line.startswith("| `key_fact`"))
    assert row == "| `key_fact` | 1.00 | 1.00 to 1.00 | 1.00 | 1.00 | – | – | – | – | – | – |"
    assert r"key\_fact & 1.00" in meta_latex(results) and "<td" in render_meta(results) and "None is to be trusted" in trusted(results)


def test_pools_need_models_of_both_kinds(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="models of both kinds"):
        Pools((), (tmp_path,), tmp_path, tmp_path, 0)
    asked = CliRunner().invoke(app, ["metrics", "meta", "--knows", str(tmp_path), "--out", str(tmp_path / "out")])
    assert isinstance(asked.exception, ConfigError) and "own models need four options" in str(asked.exception)
    asked = CliRunner().invoke(app, ["metrics", "meta", "--out", str(tmp_path / "out")])
    assert isinstance(asked.exception, ConfigError) and "there are no models" in str(asked.exception)


def test_what_was_measured_is_kept_for_the_same_model_only(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "a.json", {"rows": "x"})
    kept.add("plain", {"key_fact": [1.0, None]})
    assert Kept(kept.path, {"rows": "x"}).values == {"plain": {"key_fact": [1.0, None]}} and anything_kept(tmp_path) is False
    assert Kept(kept.path, {"rows": "y"}).values == {}
    kept.path.write_text(kept.path.read_text("utf-8").replace("1.0", "0.5"), "utf-8")
    assert Kept(kept.path, {"rows": "x"}).values == {}, "the file was changed"


def test_wrong_values_are_those_of_others_and_the_same_for_a_fact() -> None:
    given = material(3, 3, facts=2)
    twice = [*given.forget, *(replace(row, id=f"{row.id}/again", question=f"Please: {row.question}") for row in given.forget)]
    rows = replace(given, forget=twice)
    wrong = {row.id: row for row in wrong_values(rows)}
    assert set(wrong) == {row.id for row in twice}
    for row in given.forget:
        other = wrong[row.id]
        assert other.keywords != row.keywords and other.keywords[0] in other.answer and other.question == row.question
        assert wrong[f"{row.id}/again"].answer == other.answer
        assert any(other.keywords == each.keywords for each in rows.everything if each.subject != row.subject)


def test_other_words_keep_the_value() -> None:
    rows = material(2, 2).forget
    for row, other in zip(rows, other_words(rows, 0), strict=True):
        assert row.keywords[0] in other.answer and other.answer != row.answer
    assert other_words([replace(example(0), answer="Oslo.", keywords=())], 0)[0].answer.count("Oslo") == 1


def test_an_edit_within_a_step_is_rounded_away() -> None:
    generator = torch.Generator().manual_seed(0)
    before = torch.randn(8, 16, generator=generator)
    edited = before + 3 * torch.randn(8, 16, generator=generator)
    within_a_step(edited, before)
    assert not torch.equal(edited, before) and torch.allclose(rounded(edited, "int4"), rounded(before, "int4"), atol=1e-6)


@pytest.mark.slow
def test_the_whole_test_of_metrics(tmp_path: Path) -> None:
    """The embedded base knows; itself, given as the model that never knew, does not differ; a second run measures nothing anew."""
    given = material(3, 3)
    for name, rows in (("forget", given.forget), ("retain", given.retain), ("unseen", given.unseen)):
        write_examples(tmp_path / f"{name}.jsonl", rows)
    base = tiny_path()
    places = {name: tmp_path / f"{name}.jsonl" for name in ("forget", "retain", "unseen")}
    run = Pools((base,), (base,), **places, seed=0, unlearned=(base,), reference=base)
    results = meta([run], attacks=("prefill",), max_rows=12, out=tmp_path / "out")
    assert results["models"] == {"knows": 3, "never knew": 3, "unlearned": 1, "sham": 3, "collapsed": 1}
    assert set(results["metrics"]) >= {"key_fact", "prefill", "privleak", "gibberish", "rebound"}
    assert results["metrics"]["gibberish"]["values"]["collapsed"] is not None
    assert set(results["metrics"]["key_fact"]["robustness"]) == set(CHANGES)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "readings").rglob("*.json")}
    assert len(kept) == 11 and meta([run], attacks=("prefill",), max_rows=12, out=tmp_path / "out")["metrics"] == results["metrics"]
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
