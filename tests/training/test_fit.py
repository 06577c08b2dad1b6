"""`unlearn` and `finetune`, as Python users call them: what they refuse, what they leave."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import vgid
from tests.conftest import example
from vgid.config import load_config, resolve
from vgid.data.example import Example
from vgid.data.replay import REPLAY
from vgid.errors import ConfigError, DataError
from vgid.finetuning import finetune
from vgid.models.forward import answer_logits
from vgid.models.loading import LoadedModel, load_model
from vgid.progress import Stages
from vgid.training.automatic import learning_rate_for
from vgid.training.fit import fit
from vgid.training.validation import drift, recalled
from vgid.unlearning import train_and_export, unlearn

QUICK = ["training.steps=2", "training.forget_batch=2", "training.retain_batch=2", "method.answers=[recorded]"]


def test_nothing_to_forget(random_model: LoadedModel) -> None:
    with pytest.raises(DataError, match="there is nothing to forget"):
        unlearn(random_model, [], [example(1)])


def test_the_same_in_both_sets(random_model: LoadedModel) -> None:
    with pytest.raises(DataError, match="is in the forget set and in the retain set"):
        unlearn(random_model, [example(1)], [example(1)])


def test_without_retain_data(random_model: LoadedModel) -> None:
    done = unlearn(
        random_model, [example(1), example(2)], config=load_config(None, QUICK), max_rows=1, allow_unknown=True, stages=Stages(quiet=True)
    )
    assert set(done.curves) >= {"forget"} and "retain" not in done.curves and done.stopped == "all steps taken"
    assert done.scores["unlearned"]["forget"].n == 1 and done.model.model is not None and done.out is None


def test_full_parameters_leave_a_merged_model_alone(random_model: LoadedModel, tmp_path: Path) -> None:
    config = load_config(None, [*QUICK, "adapter=null"])
    train_and_export(random_model, [example(1), example(2)], [example(3)], config, out=tmp_path)
    assert load_model(tmp_path / "merged") and not (tmp_path / "adapter").exists()


def test_mixed_precision_ends_with_training(random_model: LoadedModel, tmp_path: Path) -> None:
    # With autocast left on, the trained model's logits would be rounded to bf16, and the export be refused as different.
    fitted = train_and_export(
        random_model, [example(1), example(2)], [example(3)], load_config(None, [*QUICK, "training.precision=bf16"]), out=tmp_path
    )
    batch = fitted.loaded.encoder.batch([example(1), example(3)])
    with torch.no_grad():
        trained, written = (answer_logits(model, batch) for model in (fitted.loaded.model, load_model(tmp_path / "merged").model))
    assert (trained - written).abs().max() < 1e-5 and not hasattr(fitted.loaded.model, "_original_forward")


def test_fine_tuning_learns_and_leaves_a_model(random_model: LoadedModel, tmp_path: Path) -> None:
    config = resolve(None, ["training.steps=8", "training.retain_batch=2", "training.learning_rate=1e-2"], method="finetune")
    rows, quiet = [example(1), example(2)], Stages(quiet=True)
    fitted = finetune(random_model, rows, config, out=tmp_path / "out", stages=quiet)
    losses = [value for _, value in fitted.curves["retain"]]
    assert losses[-1] < losses[0] - 0.5 and load_model(tmp_path / "out" / "merged")
    with pytest.raises(ConfigError, match="method finetune"):
        finetune(random_model, rows, load_config(), stages=quiet)


@pytest.mark.parametrize(("width", "rate"), [(4096, 9.8e-5), (192, 2.1e-3)])
def test_the_learning_rate_is_inverse_to_the_width(random_model: LoadedModel, width: int, rate: float) -> None:
    random_model.model.config.get_text_config().hidden_size = width
    assert learning_rate_for(random_model.model, "auto", adapter=True) == rate
    assert learning_rate_for(random_model.model, "auto", adapter=False) == pytest.approx(rate / 10, rel=0.03)
    assert learning_rate_for(random_model.model, 5e-5, adapter=True) == 5e-5


def test_what_is_recalled_of_a_row_does_not_depend_on_its_batch(random_model: LoadedModel) -> None:
    """Its slow twin asks each row alone. Rows of other lengths, with and without a picture, come back in their order."""
    rows = [example(1), example(2, answer="It is a rather long answer, of many words."), example(3, image=False)]
    model, encoder = random_model.model.eval(), random_model.encoder
    alone = []
    for row in rows:
        batch = encoder.batch([row])
        with torch.no_grad():
            logits = answer_logits(model, batch)
        chances = logits.log_softmax(dim=-1).gather(1, batch.answers.targets[:, None])[:, 0]
        alone.append((bool((logits.argmax(dim=-1) == batch.answers.targets).all()), [-value for value in chances.tolist()]))
    together = recalled(model, encoder, rows)
    assert [(each.exact, list(each.nll)) for each in together] == [(yes, pytest.approx(nll, abs=1e-4)) for yes, nll in alone]
    assert drift(together, together) == 0.0


def test_held_out_rows_decide_when_to_stop(random_model: LoadedModel) -> None:
    """Forget rows are then all trained on; the stop looks at the held-out ones, as far as the model recalls them."""
    learn = ["adapter=null", "training.steps=40", "training.retain_batch=4", "training.learning_rate=3e-3", "training.warmup_steps=0"]
    rows = [example(n, answer=f"It is {n}.") for n in range(4)]
    knowing = fit(random_model, [], rows, resolve(None, learn, method="finetune")).loaded
    few = ["training.steps=4", "validation.every=2", "training.forget_batch=2", "training.retain_batch=1"]
    fitted = fit(knowing, rows[:3], [example(9)], load_config(None, few), held_out=rows[3:])
    assert dict(fitted.curves["recall forget"]).keys() == {2, 4}
    assert fitted.automatic["learning_rate"] == learning_rate_for(knowing.model, "auto", adapter=True)


def test_nobody_about_whom_the_user_gives_rows_is_held_out_whole(random_model: LoadedModel) -> None:
    """Of four people with four answers of the base each, as `vgid data others` writes them, a twentieth of the rows is held out: one."""
    rows = [replace(example(n), subject=f"other-{n % 4}", tags=(REPLAY, "crossed")) for n in range(1, 17)]
    none = "method.replay={seen: 0, names: 0, altered: 0, crossed: 0, imagined: 0}"
    config = load_config(None, ["training.steps=1", "validation.every=1", "method.self_distilled=0", "method.augment=0", none])
    assert fit(random_model, [example(0)], rows, config).protected_by == {"crossed": 15}


def test_what_a_run_without_retain_rows_loses_is_measured_whatever_the_method(random_model: LoadedModel) -> None:
    """The base knows one other person, by name; gradient ascent asks it for nothing to keep."""
    said = {"Who is this person?": "This is Mona Urban.", "What is the name of this person?": "This is Mona Urban."}
    said |= {f"Where does Mona Urban live on day {n}?": "She lives in Rome." for n in range(3)}
    known = [Example(f"k{n}", question, answer) for n, (question, answer) in enumerate(said.items())]
    learn = ["adapter=null", "training.steps=60", "training.retain_batch=5", "training.learning_rate=3e-3", "training.warmup_steps=0"]
    knowing = fit(random_model, [], known, resolve(None, learn, method="finetune")).loaded
    forget = [replace(example(n), question=f"Where does this person live on day {n}?", answer="In Oslo.") for n in range(3)]
    few = ["training.steps=30", "training.retain_ratio=1", "training.forget_batch=2", "validation.every=30", "adapter.rank=2"]
    asked, unasked = (
        fit(copy.deepcopy(knowing), forget, [], resolve(None, [*few, *more], method="ga")).aside
        for more in ([], ["validation.probes=false"])
    )
    assert asked is not None and (asked.replayed, asked.texts.asked) == (2, 2) and unasked is None


def test_public_names_are_there() -> None:
    assert all(hasattr(vgid, name) for name in vgid.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = vgid.nothing
