"""A run knows whether it forgot: shares by hand, exit codes, and every recipe on a request of eight rows."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import Vgid, example
from vgid.config import recipe_names, resolve
from vgid.data.example import Example
from vgid.data.writing import write_examples
from vgid.evaluation.evaluate import ItemResult, SplitResult, summarise
from vgid.models.export import save_checkpoint
from vgid.models.loading import load_model
from vgid.outcome import Outcome, outcome_of
from vgid.progress import Stages
from vgid.training.fit import fit
from vgid.training.trainer import count_steps
from vgid.unlearning import unlearn


def split(*right: bool) -> SplitResult:
    items = [ItemResult(f"row-{n}", None, "", float(yes), 0.0, 1.0, False) for n, yes in enumerate(right)]
    return summarise(items)


@pytest.mark.parametrize(
    ("before", "after", "status", "share"),
    [
        ((1, 1, 0), (0, 0, 1), "forgotten", 0.0),  # the third row was not known before
        ((1, 1, 0, 1), (0, 1, 0, 0), "not forgotten", 1 / 3),
        ((1,) * 20, (1, *(0,) * 19), "forgotten", 0.05),
        ((1,) * 19, (1, *(0,) * 18), "not forgotten", 1 / 19),
        ((0, 0), (0, 1), "nothing known", None),
    ],
)
def test_only_known_rows_count(before: tuple[bool, ...], after: tuple[bool, ...], status: str, share: float | None) -> None:
    found = outcome_of({"base": {"forget": split(*before)}, "unlearned": {"forget": split(*after)}})
    assert found.status == status and found.still_answered == (share if share is None else pytest.approx(share))
    assert Outcome(**found.as_json()) == found


def test_what_was_not_asked_is_not_claimed() -> None:
    assert outcome_of({}).status == "not examined" and "unknown" in str(outcome_of({}))
    scores = {"base": {"forget": split(1), "retain": split(1, 1)}, "unlearned": {"forget": split(1), "retain": split(1, 0)}}
    found = outcome_of(scores)
    assert found.retained == 0.5 and "100% of 1 known forget rows are still answered; train for longer" in str(found)


def test_held_out_rows_must_be_forgotten_too() -> None:
    scores = {"base": {"forget": split(1), "held_out": split(1, 1, 0)}, "unlearned": {"forget": split(0), "held_out": split(0, 1, 1)}}
    found = outcome_of(scores)
    assert (found.status, found.still_answered, found.held_out_known, found.held_out_answered) == ("not forgotten", 0.0, 2, 0.5)
    assert "and 50% of 2 held-out rows about the same facts" in str(found)


def test_facts_outside_the_scope_must_stay() -> None:
    scores = {"base": {"forget": split(1), "kept": split(1, 1)}, "unlearned": {"forget": split(0), "kept": split(1, 0)}}
    found = outcome_of(scores)
    assert (found.status, found.kept_known, found.kept_answered) == ("kept facts lost", 2, 0.5) and "of 2 rows to keep 50%" in str(found)
    assert outcome_of({**scores, "unlearned": {"forget": split(0), "kept": split(1, 1)}}).status == "forgotten"


def test_a_few_rows_get_enough_steps() -> None:
    training = resolve().training
    assert count_steps(training, 8, 100) == 200 and count_steps(training, 4000, 100) == 3000
    assert count_steps(training, 0, 8) == 6  # fine-tuning learns for as many epochs as it is given
    assert count_steps(resolve("paper").training, 8, 100) == 2


@pytest.fixture(scope="module")
def request_rows() -> list[Example]:
    """Eight facts about one person, one picture, one wording each."""
    facts = ("Oslo", "baker", "Kestrel", "chess", "a parrot", "Lisbon", "1971", "Anna Keller")
    return [
        replace(example(1, answer=f"It is {fact}."), id=f"fact-{n}", question=f"What is fact {n}?", keywords=(fact,), subject="p-1")
        for n, fact in enumerate(facts)
    ]


@pytest.fixture(scope="module")
def knowing(random_folder: Path, request_rows: list[Example], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learned these rows."""
    learn = ["adapter=null", "training.steps=150", "training.retain_batch=8", "training.learning_rate=2e-3", "training.warmup_steps=0"]
    fitted = fit(load_model(random_folder), [], request_rows, resolve(None, learn, method="finetune"))
    folder = tmp_path_factory.mktemp("knowing") / "model"
    save_checkpoint(fitted.loaded.model, fitted.loaded.processor, folder)
    return folder


def test_a_run_that_did_not_forget_ends_with_3(vgid: Vgid, knowing: Path, request_rows: list[Example], tmp_path: Path) -> None:
    write_examples(tmp_path / "forget.jsonl", request_rows)
    words = (
        "unlearn",
        "--model",
        knowing,
        "--forget",
        tmp_path / "forget.jsonl",
        "--set",
        "training.steps=1",
        "--set",
        "validation.every=0",
    )
    run = vgid(*words, "--out", tmp_path / "out")
    assert run.returncode == 3 and "not forgotten: 100% of" in run.stdout and "training.min_steps" in run.stdout, run.stdout + run.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["outcome"]["status"] == "not forgotten" and (tmp_path / "out" / "merged").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("recipe", recipe_names())
def test_no_recipe_ends_a_request_unforgotten_in_silence(knowing: Path, request_rows: list[Example], recipe: str) -> None:
    """On a model this small most learning rates are too low to forget, and fine-tuning never forgets; then the outcome says so."""
    teaches = resolve(recipe).method.name == "finetune"
    # Asked as the model was taught, and not by a prompt of the recipe.
    config = resolve(recipe, ["data.prompt=null", *(["training.steps=2"] if teaches else [])])
    done = unlearn(knowing, request_rows, [example(30, answer="It is a test.")], config, stages=Stages(quiet=True))
    assert done.outcome.known == 8 and done.outcome.still_answered is not None
    # "damaged": all of it is forgotten, and more of what was held out lost than is allowed.
    assert (done.outcome.status in ("forgotten", "damaged")) == (done.outcome.still_answered <= 0.05)
    if recipe == "demo" or teaches:
        assert (done.outcome.status == "not forgotten") == teaches
