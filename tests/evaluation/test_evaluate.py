"""Asking and scoring: batched as one by one, by the plain formula, and the same whatever else is in the batch."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.conftest import example
from vgid.config import resolve
from vgid.data.batching import Encoder
from vgid.data.example import STRANGER, Example
from vgid.errors import ConfigError, DataError
from vgid.evaluation.evaluate import ItemResult, evaluate, loss_ks_test, summarise
from vgid.evaluation.generation import generate
from vgid.evaluation.scoring import _said, score
from vgid.models.loading import LoadedModel, load_model
from vgid.synthetic.tiny import tiny_path
from vgid.training.fit import fit


def test_batched_answers_are_those_of_one_question_at_a_time(random_model: LoadedModel, mixed: list[Example]) -> None:
    alone = [generate(random_model, [row], max_new_tokens=6)[0] for row in mixed]
    assert generate(random_model, mixed, max_new_tokens=6) == alone
    assert generate(random_model, mixed[::-1], max_new_tokens=6, batch_size=3) == alone[::-1]


def test_generation_is_greedy_whatever_the_checkpoint_asks_for(random_model: LoadedModel, mixed: list[Example]) -> None:
    plain = generate(random_model, mixed, max_new_tokens=5)
    own = random_model.model.generation_config
    own.do_sample, own.temperature, own.repetition_penalty = True, 5.0, 3.0
    random_model.model.train()
    assert generate(random_model, mixed, max_new_tokens=5) == plain
    assert random_model.model.generation_config is own and random_model.model.training


def test_scores_are_the_mean_negative_log_likelihood(random_model: LoadedModel, mixed: list[Example]) -> None:
    encoder = Encoder(random_model.processor)
    for row, scored in zip(mixed, score(random_model, mixed, batch_size=3), strict=True):
        batch = encoder.batch([row])
        with torch.no_grad():
            logits = random_model.model(**batch.model_inputs).logits[0].log_softmax(-1)
        expected = -logits[batch.answers.positions, batch.answers.targets].mean().item()
        assert scored.loss == pytest.approx(expected, rel=1e-4) and scored.tokens == len(batch.answers.targets)


def test_every_question_is_asked_once_and_progress_ends(random_model: LoadedModel, mixed: list[Example]) -> None:
    told: list[tuple[int, int]] = []
    again = [replace(row, id=f"again-{row.id}") for row in mixed]
    results = evaluate(random_model, {"a": mixed, "b": again}, max_new_tokens=3, on_progress=lambda d, t: told.append((d, t)))
    # Three questions (both text-only rows ask the same) and four recorded answers, though both splits hold them.
    assert told[-1] == (7, 7)
    assert [item.prediction for item in results["a"].items] == [item.prediction for item in results["b"].items]


def test_what_scoring_shows_to_be_said_is_what_generation_says(mixed: list[Example], monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ["adapter=null", "validation.every=0", "training.steps=40", "training.retain_batch=4"]
    learned = fit(load_model(tiny_path()), [], mixed[:2], resolve("demo", settings, method="finetune")).loaded
    slow = generate(learned, mixed)
    scores = score(learned, mixed)
    assert [each.said is not None for each in scores[:2]] == [True, True] and not all(each.said for each in scores)
    asked: list[str] = []

    def counted(loaded: LoadedModel, rows: Sequence[Example], **options: Any) -> list[str]:
        asked.extend(row.id for row in rows)
        return generate(loaded, rows, **options)

    monkeypatch.setattr("vgid.evaluation.evaluate.generate", counted)
    found = evaluate(learned, {"all": mixed})["all"].items
    assert [item.prediction for item in found] == slow
    assert not {row.id for row in mixed[:2]} & set(asked) and asked
    # An answer that is longer than asked for is cut as generation cuts it.
    cut = evaluate(learned, {"all": mixed}, max_new_tokens=2)["all"].items
    assert [item.prediction for item in cut] == generate(learned, mixed, max_new_tokens=2)


def test_an_answer_is_said_up_to_the_token_that_ends_it() -> None:
    assert _said([(7, True), (8, True), (3, True), (9, False)], [3]) == (7, 8, 3)
    assert _said([(7, True), (8, False), (3, True)], [3]) is None
    assert _said([(7, True), (8, True)], [3]) is None


def test_empty_splits_and_batches_are_refused(random_model: LoadedModel, mixed: list[Example]) -> None:
    with pytest.raises(DataError, match="the split 'a' is empty"):
        evaluate(random_model, {"a": []})
    with pytest.raises(ConfigError, match="batch size must be positive"):
        generate(random_model, mixed, batch_size=0)
    with pytest.raises(ConfigError, match="an answer needs tokens"):
        generate(random_model, mixed, max_new_tokens=0)


def test_any_refusal_is_right_about_strangers(random_model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    row = replace(example(0, answer="I do not know."), keywords=("Keller",), tags=(STRANGER,))
    for said, right in (("I'm sorry, I don't know that.", 1.0), ("This is Anna Keller.", 0.0)):
        monkeypatch.setattr("vgid.evaluation.evaluate.generate", lambda *_, said=said, **__: [said])
        assert evaluate(random_model, {"strangers": [row]})["strangers"].accuracy == right


def item(name: str, accuracy: float, loss: float) -> ItemResult:
    return ItemResult(name, name[0], "said", accuracy, accuracy, loss, refused=accuracy == 0.0)


def test_summary_by_hand() -> None:
    result = summarise([item("a1", 1.0, 0.0), item("a2", 1.0, 0.0), item("b1", 0.0, 0.0), item("b2", 0.0, 0.0)])
    assert (result.n, result.accuracy, result.refusal_rate, result.probability) == (4, 0.5, 0.5, 1.0)
    # Two people, one always right and one never: a resample of two gives 0, 1/2 or 1.
    assert result.accuracy_ci == (0.0, 1.0)
    assert "items" not in result.as_json() and "said" not in str(result.as_json())


def test_forget_quality_compares_losses() -> None:
    one = summarise([item(f"a{i}", 1.0, float(i)) for i in range(20)])
    other = summarise([item(f"a{i}", 1.0, 100.0 + i) for i in range(20)])
    assert loss_ks_test(one, one).p_value == 1.0 and loss_ks_test(one, other).statistic == 1.0
    with pytest.raises(DataError, match="asked different questions"):
        loss_ks_test(one, summarise([item("z", 1.0, 0.0)]))
