"""Model cards."""

from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from vgid.model_card import CardFigure, add_to_card, carry_card, figures_of, write_card

FIGURES = [CardFigure("forget", "accuracy", {"base": 0.75, "unlearned": 0.125}, 8), CardFigure("retain", "rouge_l", {"base": 1.0})]


def test_a_card_of_a_published_base(tmp_path: Path) -> None:
    write_card(tmp_path, "owner/base", "vgid", FIGURES, rows={"forget": 8, "retain": 20})
    card = ModelCard.load(tmp_path / "README.md")
    assert (card.data.base_model, card.data["base_model_relation"], card.data.license) == ("owner/base", "finetune", None)
    (found,) = card.data.eval_results or []  # what was not measured on the unlearned model is not its result
    assert (found.dataset_name, found.metric_type, found.metric_value) == ("forget", "accuracy", 0.125)
    assert "(vgid, with vgid), with 8 forget rows, 20 retain rows." in card.text and "does not state its licence" in card.text
    assert "| forget | accuracy | 8 | 0.750 | 0.125 |" in card.text and "| retain | rouge_l |  | 1.000 |  |" in card.text


def test_a_card_of_a_base_in_a_folder(tmp_path: Path) -> None:
    """The folder's path is not told; its licence is."""
    base, merged = tmp_path / "anna", tmp_path / "merged"
    base.mkdir()
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Base\n")
    write_card(merged, str(base), "ga", [], rows={"forget": 1})
    card = ModelCard.load(merged / "README.md")
    assert card.data.license == "apache-2.0" and card.data.base_model is None and card.data.eval_results is None
    assert "anna" not in card.content and "not measured" in card.text and "licence" not in card.text
    (base / "README.md").write_text("---\n[\n---\nno metadata")
    write_card(merged, str(base), "ga", [], rows={}, text="# Words of its own\n")
    assert "# Words of its own" in (merged / "README.md").read_text() and "licence" in (merged / "README.md").read_text()


def test_the_licence_of_a_base_in_the_hubs_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `huggingface_hub` lays it out; a licence without a short name has a name and a link."""
    snapshot = tmp_path / "hub" / "models--owner--base" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("a" * 40)
    (snapshot / "config.json").write_text("{}")
    (snapshot / "README.md").write_text("---\nlicense: other\nlicense_name: own\nlicense_link: LICENSE\n---\n# Base\n")
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    write_card(tmp_path / "merged", "owner/base", "vgid", [], rows={})
    data = ModelCard.load(tmp_path / "merged" / "README.md").data
    assert (data.base_model, data.license, data["license_name"], data["license_link"]) == ("owner/base", "other", "own", "LICENSE")


def adapter_with_card(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    write_card(folder, "owner/base", "vgid", FIGURES, rows={"forget": 8}, fine_tuned=True)
    return folder


def test_an_adapters_card_becomes_that_of_the_merged_model(tmp_path: Path) -> None:
    adapter, merged = adapter_with_card(tmp_path / "run" / "adapter"), tmp_path / "merged"
    before = ModelCard.load(adapter / "README.md")
    assert (before.data.library_name, before.data["base_model_relation"]) == ("peft", "adapter")
    assert "deploy the merged model" in before.text and "fine-tuned before" in before.text
    assert carry_card(adapter, merged)
    card = ModelCard.load(merged / "README.md")
    assert (card.data.library_name, card.data["base_model_relation"]) == ("transformers", "finetune")
    (found,) = card.data.eval_results or []
    assert found.metric_value == 0.125 and card.data.base_model == "owner/base"
    assert "the adapter alone" not in card.text and "| forget | accuracy | 8 | 0.750 | 0.125 |" in card.text
    assert carry_card(merged, tmp_path / "again") and (tmp_path / "again" / "README.md").read_text() == card.content
    add_to_card(merged, "Number format: 4bit", "Rounded.")
    assert ModelCard.load(merged / "README.md").content == f"{card.content.rstrip()}\n\n## Number format: 4bit\n\nRounded.\n"


def test_cards_that_are_not_carried(tmp_path: Path) -> None:
    """A card of another maker describes the adapter, not what it is merged into; without a card there is none to add to."""
    adapter = adapter_with_card(tmp_path / "adapter")
    (adapter / "README.md").write_text("---\ntags: [lora]\n---\n# An adapter\n")
    assert not carry_card(adapter, tmp_path / "out") and not (tmp_path / "out").exists()
    (adapter / "README.md").unlink()
    assert not carry_card(adapter, tmp_path / "out")
    add_to_card(tmp_path / "out", "Format", "Rounded.")
    assert not (tmp_path / "out").exists()


def test_an_adapter_without_a_card_has_that_of_the_model_beside_it(tmp_path: Path) -> None:
    """As runs of earlier releases left it."""
    adapter = adapter_with_card(tmp_path / "adapter")
    (adapter / "README.md").unlink()
    write_card(tmp_path / "merged", "owner/base", "ga", FIGURES, rows={"forget": 8})
    assert carry_card(adapter, tmp_path / "out") and "(ga, with vgid)" in (tmp_path / "out" / "README.md").read_text()


def test_a_card_of_a_fine_tuned_model(tmp_path: Path) -> None:
    """It says that the model knows its rows, and its figures are those of the fine-tuned model."""
    adapter, merged = tmp_path / "adapter", tmp_path / "merged"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    figures = [CardFigure("learned", "accuracy", {"base": 0.0, "finetuned": 0.75}, 4)]
    write_card(adapter, "owner/base", "finetune", figures, rows={"learned": 20, "left_out": 4}, after="finetuned")
    card = ModelCard.load(adapter / "README.md")
    (found,) = card.data.eval_results or []
    assert (found.metric_value, card.data.model_name, card.data.tags) == (0.75, "A fine-tuned model", ["vgid", "fine-tuning"])
    assert "on 20 rows, without 4 others of the same data. Nothing was unlearned" in card.text and "needs its base" in card.text
    assert carry_card(adapter, merged) and "needs its base" not in (merged / "README.md").read_text()
    write_card(merged, "owner/base", "finetune", [], rows={"learned": 20, "left_out": 0}, after="finetuned")
    assert "on 20 rows. Nothing was unlearned" in (merged / "README.md").read_text()


def test_each_set_keeps_its_figures(tmp_path: Path) -> None:
    figures = [CardFigure(split, metric, {"unlearned": n / 8}) for n, (split, metric) in enumerate([("a", "x"), ("b", "x"), ("a", "y")])]
    write_card(tmp_path, "owner/base", "vgid", figures, rows={})
    told = {
        (each.dataset_name, each.metric_type, each.metric_value) for each in ModelCard.load(tmp_path / "README.md").data.eval_results or []
    }
    assert told == {("a", "x", 0.0), ("b", "x", 0.125), ("a", "y", 0.25)}


def test_figures_are_those_of_the_results() -> None:
    splits = {"forget": {"base": {"accuracy": 1.0, "n": 4}, "unlearned": {"accuracy": 0.25, "n": 4}}, "kept": {}}
    assert figures_of(splits) == [CardFigure("forget", "accuracy", {"base": 1.0, "unlearned": 0.25}, 4)]
