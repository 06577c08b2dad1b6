"""Losses of methods that came after the first ones, row by row against the plain formulas."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.conftest import example
from tests.methods.table import Row, forget_rows, retain_rows
from tests.methods.test_contract import shaken
from vgid.data.example import Example, altered
from vgid.data.packing import Style
from vgid.errors import ConfigError, DataError, RunError
from vgid.instructions import INSTRUCTIONS
from vgid.methods.altpo import others_answers
from vgid.methods.base import Method, StepBatch
from vgid.methods.common.refusals import REFUSALS
from vgid.methods.null_space import free_directions
from vgid.methods.siu import changed
from vgid.methods.slug import pareto_front
from vgid.methods.viker import target_distribution
from vgid.models.adapters import reference
from vgid.models.forward import all_logits
from vgid.models.loading import LoadedModel, load_model
from vgid.models.pictures import embed_pictures
from vgid.training.fit import fit

FORGET, RETAIN = forget_rows(), retain_rows()
STEP = StepBatch(0, tuple(FORGET), tuple(RETAIN))


def said(model: Any, loaded: LoadedModel, row: Example, instruction: str | None = None, answer: str = "") -> tuple[Tensor, Tensor]:
    """Logits and tokens of one row's answer, one row in a pass, the head everywhere."""
    batch = loaded.encoder.batch([row], instruction, [answer])
    with torch.no_grad():
        logits = all_logits(model, batch)[batch.answers.positions]
    return logits, batch.answers.targets


def prepared(loaded: LoadedModel, name: str, *settings: str) -> tuple[Method[Any], Any]:
    """A method with an adapter that is not at its start."""
    method, model = Row(name, settings).prepared(loaded, FORGET, RETAIN)
    return method, shaken(model, 0.05)


def probabilities(model: Any, loaded: LoadedModel, row: Example) -> Tensor:
    """Of a row's answer tokens."""
    logits, targets = said(model, loaded, row)
    return torch.softmax(logits, -1)[torch.arange(len(targets)), targets]


@pytest.mark.parametrize(
    ("name", "settings", "weight"),
    [
        ("wga", ("method.beta=0.5",), lambda p: p**0.5),
        ("satimp", ("method.saturation=2", "method.importance=3"), lambda p: p**2 * (1 - p) ** 3),
    ],
)
def test_weighted_ascent_row_by_row(
    random_model: LoadedModel, name: str, settings: tuple[str, ...], weight: Callable[[Tensor], Tensor]
) -> None:
    method, model = prepared(random_model, name, *settings)
    tokens = [probabilities(model, random_model, row) for row in FORGET]
    expected = sum(float((weight(p) * p.log()).mean()) for p in tokens) / len(FORGET)
    assert method.loss(model, STEP).parts["forget"].item() == pytest.approx(expected, rel=1e-4)


def test_weighted_ascent_without_weights_is_gradient_difference(random_folder: Path) -> None:
    found = []
    for name, settings in (
        ("wga", ("method.beta=0",)),
        ("satimp", ("method.saturation=0", "method.importance=0", "method.retain_weight=1")),
        ("grad_diff", ()),
    ):
        method, model = prepared(load_model(random_folder), name, *settings)
        found.append(method.loss(model, STEP).total.item())
    assert found[0] == pytest.approx(found[2], rel=1e-5) and found[1] == pytest.approx(found[2], rel=1e-5)


def test_duet_row_by_row(random_model: LoadedModel) -> None:
    method, model = prepared(random_model, "duet", "method.top_k=3", "method.retain_weight=2")
    out = method.loss(model, STEP)
    distances: dict[str, list[float]] = {"forget": [], "retain": []}
    for part, rows in (("forget", FORGET), ("retain", RETAIN)):
        for row in rows:
            with reference(model) as base:
                taught, _ = said(base, random_model, row, INSTRUCTIONS["forget"] if part == "forget" else None)
            mine, _ = said(model, random_model, row)
            d = [abs(float(mine[0, v] - taught[0, v])) for v in taught[0].topk(3).indices]
            distances[part].append(sum(x * x / 2 if x <= 1 else x - 0.5 for x in d))
    means = {part: sum(values) / 4 for part, values in distances.items()}
    assert {part: value.item() for part, value in out.parts.items()} == pytest.approx(means, rel=1e-3)
    assert out.total.item() == pytest.approx(means["forget"] + 2 * means["retain"], rel=1e-3)


def test_duet_needs_no_answers(random_folder: Path) -> None:
    found = []
    for rows in (FORGET, [replace(row, answer="Bela Novak.") for row in FORGET]):
        method, model = Row("duet").prepared(load_model(random_folder), rows, RETAIN)
        found.append(method.loss(shaken(model), STEP._replace(forget=tuple(rows))).total.item())
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_the_target_is_the_mean_of_distributions() -> None:
    one, two = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.9, 0.1]]).log() + 7.0
    assert target_distribution([one, two]).exp().flatten().tolist() == pytest.approx([0.7, 0.3])


def test_viker_row_by_row(random_model: LoadedModel) -> None:
    """With one irrelevant picture in all: the same for all rows, so that the target can be worked out without the method's draw."""
    picture = example(20)
    method, model = Row("viker", ("method.pictures=2", "method.ascent_weight=0.3", "method.target_weight=0.7")).prepared(
        random_model, FORGET, [picture]
    )
    shaken(model, 0.05)
    values = []
    for row in FORGET:
        mine, targets = said(model, random_model, row)
        log_p = F.log_softmax(mine, -1)
        value = 0.3 * log_p[torch.arange(len(targets)), targets]
        if row.images:
            with reference(model) as base:
                target, _ = said(base, random_model, altered(row, images=picture.images))
            value = value + 0.7 * F.kl_div(log_p, torch.softmax(target, -1), reduction="none").sum(-1)
        values.append(float(value.mean()))
    assert method.loss(model, STEP).parts["forget"].item() == pytest.approx(sum(values) / 4, rel=1e-3)


def test_irrelevant_pictures_show_somebody_else(random_model: LoadedModel) -> None:
    same = [replace(example(0), id="a"), replace(example(1), id="b", subject="s0")]
    method, model = Row("viker").prepared(random_model, same, [])
    assert method.irrelevant(same[0], 0) is None  # type: ignore[attr-defined]
    assert method.loss(model, StepBatch(0, tuple(same), ())).total.isfinite()  # noise then
    for forget, retain, expected in (([*same, example(2)], [], example(2)), ([*same, example(2)], [example(3)], example(3))):
        method.prepare(model, replace(method.context, forget=forget, retain=retain))
        assert method.irrelevant(same[0], 0) == expected.images  # type: ignore[attr-defined]


def test_pdu_row_by_row(random_model: LoadedModel) -> None:
    method, model = prepared(random_model, "pdu", "method.epsilon=2", "method.preference=3", "method.dual_rate=0.5")
    out = method.loss(model, STEP)
    flat = [float(((z.max(-1).values - z.mean(-1)) ** 2).mean()) for z, _ in (said(model, random_model, row) for row in FORGET)]
    kept = [-float(probabilities(model, random_model, row).log().mean()) for row in RETAIN]
    assert out.parts["forget"].item() == pytest.approx(sum(flat) / 4, rel=1e-4)
    assert out.total.item() == pytest.approx(sum(flat) / 4 + 3 * sum(kept) / 4, rel=1e-4)
    for _ in method.passes(model, STEP):
        pass
    rising = 3 + 0.5 * (sum(kept) / 4 - 2)
    assert float(method.dual) == pytest.approx(rising, rel=1e-4)  # type: ignore[attr-defined]
    assert method.loss(model, STEP).total.item() == pytest.approx(sum(flat) / 4 + rising * sum(kept) / 4, rel=1e-4)


def test_the_dual_variable_never_falls_below_zero_and_is_kept(random_model: LoadedModel) -> None:
    method, model = prepared(random_model, "pdu", "method.epsilon=1000", "method.preference=1", "method.dual_warmup=1")
    for step, expected in ((0, 1.0), (1, 0.0)):
        for _ in method.passes(model, STEP._replace(step=step)):
            pass
        assert float(method.dual) == expected  # type: ignore[attr-defined]
    again = Row("pdu").config.build_method()
    again.load_state_dict(method.state_dict())
    assert (float(again.dual), again.bound) == (0.0, 1000.0)  # type: ignore[attr-defined]


def test_the_bound_is_measured_on_the_base(random_model: LoadedModel) -> None:
    method, model = Row("pdu", ("method.tolerance=0.5", "method.slack=0.1")).prepared(random_model, FORGET, RETAIN)
    kept = [-float(probabilities(model, random_model, row).log().mean()) for row in RETAIN]
    assert method.bound == pytest.approx(1.5 * sum(kept) / 4 + 0.1, rel=1e-4)  # type: ignore[attr-defined]


def test_altpo_of_the_base_itself(random_folder: Path) -> None:
    """p = p0: 2/beta ln 2, whatever the alternatives are; a run that goes on makes up the same ones."""
    row, found = Row("altpo", ("method.alternatives=1", "method.beta=0.5")), []
    for _ in range(2):
        method, model = row.prepared(load_model(random_folder), FORGET, RETAIN)
        assert method.loss(model, STEP).parts["forget"].item() == pytest.approx(4 * math.log(2), rel=1e-5)
        found.append(method.alternatives)  # type: ignore[attr-defined]
    assert found[0] == found[1] and all(found[0].values())


def test_saying_nothing_is_no_alternative(random_model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vgid.methods.altpo.sample_answers", lambda *given: [" "] * len(given[3]))
    method: Any
    method, _ = Row("altpo", ("method.alternatives=1",)).prepared(random_model, FORGET[:1], RETAIN)
    ((said,),) = method.alternatives.values()
    assert said in {row.answer for row in RETAIN}


def test_alternatives_are_of_the_same_kind_where_there_are_some() -> None:
    row = replace(FORGET[3], keywords=("Oslo",))
    asked = replace(row, id="x", answer="In Bergen.", subject="x")
    assert others_answers(row, [asked, *RETAIN, replace(row, id="y", answer="Near Oslo.")], 5, 0) == ["In Bergen."]
    assert set(others_answers(row, RETAIN, 9, 0)) == {other.answer for other in RETAIN}
    assert set(others_answers(row, [row], 99, 0)) == set(REFUSALS)


@pytest.mark.parametrize("name", ["duet", "viker", "wga", "altpo"])
def test_packed_rows_give_the_same_loss(random_model: LoadedModel, name: str) -> None:
    rows = (FORGET[0], replace(FORGET[0], id="second", question="Where is this?", answer="She lives in Oslo."))
    method, model = Row(name, ("method.alternatives=1",) if name == "altpo" else ()).prepared(random_model, rows, RETAIN)
    shaken(model, 0.02)
    alone = method.loss(model, StepBatch(0, rows, ())).total.item()
    method.prepare(model, replace(method.context, packing=Style(4, look_ahead=False)))
    assert method.loss(model, StepBatch(0, rows, ())).total.item() == pytest.approx(alone, rel=1e-3)


@pytest.mark.slow
def test_a_run_of_pdu_that_goes_on_is_the_same(random_folder: Path, tmp_path: Path) -> None:
    class StopHereError(Exception):
        pass

    def stop(done: int, _: int) -> None:
        if done == 3:
            raise StopHereError

    config = Row("pdu", ("training.steps=4", "training.checkpoint_every=2")).config
    whole = fit(load_model(random_folder), FORGET, RETAIN, config).loaded.model
    with pytest.raises(StopHereError):
        fit(load_model(random_folder), FORGET, RETAIN, config, checkpoint=tmp_path, progress=stop)
    again = fit(load_model(random_folder), FORGET, RETAIN, config, checkpoint=tmp_path, resume=True).loaded.model
    for (name, one), (_, two) in zip(whole.state_dict().items(), again.state_dict().items(), strict=True):
        assert torch.equal(one, two), name


# -- methods of the visual part -------------------------------------------------------------------------------------------


def seen(model: Any, loaded: LoadedModel, row: Example) -> Tensor:
    """What the decoder sees of a row's picture, `[k, h]`."""
    with torch.no_grad():
        return embed_pictures(model, loaded.encoder.row(row).images)


def moved(model: Any, loaded: LoadedModel, row: Example) -> float:
    """Mean over tokens of the squared distance from the base, in units of its length."""
    with reference(model) as base:
        before = seen(base, loaded, row)
    return float(((seen(model, loaded, row) - before).norm(dim=-1) / before.norm(dim=-1)).square().mean())


def test_vkd_row_by_row(random_model: LoadedModel) -> None:
    method, model = prepared(random_model, "vkd", "method.distil_weight=3", "method.retain_weight=2")
    out = method.loss(model, STEP)
    log_p = {row.id: float(probabilities(model, random_model, row).log().mean()) for row in (*FORGET, *RETAIN) if row.images}
    expected = {
        "forget": sum(log_p[row.id] for row in FORGET if row.images) / 4,
        "retain": -sum(log_p[row.id] for row in RETAIN if row.images) / 4,
        "distance": sum(moved(model, random_model, row) for row in RETAIN if row.images) / 4,
    }
    assert {name: part.item() for name, part in out.parts.items()} == pytest.approx(expected, rel=1e-3)
    assert out.total.item() == pytest.approx(expected["forget"] + 3 * expected["distance"] + 2 * expected["retain"], rel=1e-3)


def test_null_space_row_by_row(random_model: LoadedModel) -> None:
    method, model = prepared(random_model, "null_space", "method.temperature=0.5", "method.energy=0.5", "adapter.rank=4")
    pictures = {row.id: seen(model, random_model, row).mean(0) for row in FORGET if row.images}
    with reference(model) as base:
        before = {row.id: seen(base, random_model, row).mean(0) for row in (*FORGET, *RETAIN) if row.images}
    somebody = torch.stack([before[row.id] for row in RETAIN if row.images]).mean(0)
    values = []
    for row, f in pictures.items():
        to, away = (math.exp(float(torch.cosine_similarity(f, other, dim=0)) / 0.5) for other in (somebody, before[row]))
        values.append(-math.log(to / (to + away)))
    out = method.loss(model, STEP)
    assert out.parts["forget"].item() == pytest.approx(sum(values) / 4, rel=1e-3)
    assert out.parts["retain"].item() == pytest.approx(sum(moved(model, random_model, row) for row in RETAIN if row.images) / 4, rel=1e-3)


def test_free_directions_by_hand() -> None:
    # Retain inputs hold 90, 9 and 1 % of their squares along the axes 0, 1 and 2, and nothing along 3.
    retain, forget = torch.diag(torch.tensor([90.0, 9.0, 1.0, 0.0])), torch.diag(torch.tensor([100.0, 100.0, 1.0, 5.0]))
    assert free_directions(retain, forget, 2, 0.9899).abs().tolist() == [[0, 0, 0, 1], [0, 0, 1, 0]]
    assert free_directions(retain, forget, 2, 0.995).abs().tolist() == [[0, 0, 0, 1], [0, 0, 0, 0]]
    assert not free_directions(torch.eye(4), forget, 2, 0.9).any()


def test_updates_are_not_felt_by_retain_pictures(random_model: LoadedModel) -> None:
    """However large they are: retain embeddings move by what the rest of the energy allows, forget embeddings by much more."""
    method, model = Row("null_space", ("adapter.rank=8", "method.energy=0.999999")).prepared(random_model, FORGET[:1], RETAIN[:1])
    fixed = {name: p.clone() for name, p in model.named_parameters() if "lora_A" in name}
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 0.01)
    for _ in range(5):
        optimizer.zero_grad()
        method.loss(model, StepBatch(0, (FORGET[0],), ())).total.backward()
        optimizer.step()
    assert all(torch.equal(p, fixed[name]) for name, p in model.named_parameters() if name in fixed)
    forget, retain = (moved(model, random_model, row) for row in (FORGET[0], RETAIN[0]))
    assert forget > 1e-3 and retain < 0.02 * forget


def test_the_visual_part_needs_pictures_and_adapters_on_it(random_model: LoadedModel) -> None:
    text = [row for row in FORGET if not row.images]
    for name, full in (("vkd", False), ("null_space", False), ("slug", False), ("aim", True)):
        with pytest.raises(DataError, match=r"(?s)changes what is seen on pictures.*no forget row has one"):
            fit(load_model(random_model.path), text, RETAIN, Row(name, full=full).config)
    with pytest.raises(DataError, match="no retain row has one"):
        fit(load_model(random_model.path), FORGET, text, Row("null_space").config)
    with pytest.raises(ConfigError, match=r"(?s)adapters on the language model.*set adapter.scope="):
        fit(random_model, FORGET, RETAIN, Row("null_space", ("adapter.scope=[language]",)).config)


def test_activations_that_are_no_numbers_end_the_search(random_model: LoadedModel) -> None:
    with torch.no_grad():
        random_model.model.model.multi_modal_projector.linear_1.weight[0, 0] = float("nan")
    with pytest.raises(RunError, match="what a layer is given is not finite"):
        fit(random_model, FORGET, RETAIN, Row("null_space").config)


def test_the_pareto_front_by_hand() -> None:
    # 1 is the most important; 0 is less so and more aligned, so 1 beats it; 2 and 3 are less aligned each.
    assert pareto_front([3.0, 4.0, 2.0, 1.0, 0.5], [0.9, 0.5, 0.1, 0.0, 0.2]) == [1, 2, 3]


def test_slug_takes_one_step_of_the_size_that_forgets(random_folder: Path) -> None:
    loaded, row = load_model(random_folder), Row("slug", ("method.target=0.7", "method.candidates=2", "method.search_steps=3"))
    before = {name: p.clone() for name, p in loaded.model.named_parameters()}
    fitted = fit(loaded, FORGET, RETAIN, row.config).loaded.model
    changed = [name for name, p in fitted.named_parameters() if not torch.equal(p, before[name])]
    assert len(changed) == 1 and "vision_tower" in changed[0]
    update = (dict(fitted.named_parameters())[changed[0]] - before[changed[0]]).detach()
    again = load_model(random_folder)
    rows = [r for r in FORGET if r.images]
    weight = dict(again.model.named_parameters())[changed[0]]
    total = sum(
        F.cross_entropy(all_logits(again.model, batch := again.encoder.batch([r]))[batch.answers.positions], batch.answers.targets)
        for r in rows
    )
    (slope,) = torch.autograd.grad(total / len(rows), weight)  # type: ignore[operator]
    assert float(torch.cosine_similarity(update.flatten(), slope.flatten(), dim=0)) == pytest.approx(1.0, abs=1e-3)
    tokens = [
        torch.cat([probabilities(model, again, r) for r in rows]).log().mean().exp() for model in (fitted, load_model(random_folder).model)
    ]
    assert 0.5 < float(tokens[0] / tokens[1]) <= 0.7


def test_slug_says_when_no_layer_forgets(random_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vgid.methods.slug.DOUBLINGS", 1)
    with pytest.raises(RunError, match="no single layer forgets"):
        fit(load_model(random_folder), FORGET, RETAIN, Row("slug", ("method.target=1e-9",)).config)


def test_what_was_changed_by_hand() -> None:
    assert changed([1, 2, 9, 8, 5], [1, 2, 3, 5]) == [False, False, True, True, False]
    assert changed([7, 7, 7], [7, 7]) == [False, False, True] and changed([1, 2], [1, 2]) == [False, False]
    assert changed([4], [1, 2]) == [True] and changed([], [1]) == []


def named_rows() -> list[Example]:
    """Two rows about Anna Keller, whose name is in a question without a picture, and one about nobody by name."""
    asked = replace(example(0, image=False), id="by name", subject="a", answer="She lives in Oslo.")
    return [replace(example(0), subject="a"), asked, replace(example(2), subject="b", answer="I do not know.")]


def test_siu_rewrites_names_and_refuses_the_rest(random_model: LoadedModel) -> None:
    rows = named_rows()
    method, _ = Row("siu", ('method.refusals=["Oslo."]',)).prepared(random_model, rows, RETAIN)
    invented = method.answers["row-0"].removeprefix("This is ").removesuffix(".").split()  # type: ignore[attr-defined]
    assert len(invented) == 2 and not {"Anna", "Keller"} & set(invented)
    assert method.answers["by name"] == method.answers["row-2"] == "Oslo."  # type: ignore[attr-defined]
    tokenizer = random_model.processor.tokenizer
    words = {token for word in ("Anna", " Anna", "Keller", " Keller") for token in tokenizer(word, add_special_tokens=False)["input_ids"]}
    assert set(method._left_out.nonzero().flatten().tolist()) == words  # type: ignore[attr-defined]


def test_siu_row_by_row(random_model: LoadedModel) -> None:
    rows = named_rows()
    method, model = Row("siu", ("method.retain_weight=2",)).prepared(random_model, rows, RETAIN)
    shaken(model, 0.05)
    out = method.loss(model, StepBatch(0, tuple(rows), tuple(RETAIN)))
    free = method._left_out  # type: ignore[attr-defined]
    for part, given in (("forget", rows), ("retain", RETAIN)):
        values = []
        for row in given:
            answer = method.answers[row.id] if part == "forget" else row.answer  # type: ignore[attr-defined]
            mine, targets = said(model, random_model, row, answer=answer)
            with reference(model) as base:
                before, _ = said(base, random_model, row, answer=answer)
            _, recorded = said(model, random_model, row)
            p, log_p, log_q = torch.softmax(before, -1), F.log_softmax(before, -1), F.log_softmax(mine, -1)
            masked = changed(targets.tolist(), recorded.tolist())
            tokens = []
            for t, target in enumerate(targets):
                apart = 0.0 if masked[t] else float((p[t] * (log_p[t] - log_q[t]))[~free].sum())
                tokens.append(0.9 * -float(log_q[t, target]) + 0.75 * apart)
            values.append(sum(tokens) / len(tokens))
        assert out.parts[part].item() == pytest.approx(sum(values) / len(values), rel=1e-3), part
    assert out.total.item() == pytest.approx(out.parts["forget"].item() + 2 * out.parts["retain"].item(), rel=1e-4)


def test_aim_row_by_row(random_folder: Path) -> None:
    loaded = load_model(random_folder)
    settings = ("method.prompt_steps=3", "method.prompt_size=0.1", "method.fisher_rows=2", "method.fisher_weight=5")
    method: Any
    method, model = Row("aim", settings, full=True).prepared(loaded, FORGET, [])
    assert method.prompt.shape == (3, 96, 96) and 0 < method.prompt.abs().max() <= 0.1
    rows = [row for row in FORGET if row.images]
    nothing = method.refusing(model, rows, ["Oslo."] * 2, torch.zeros(3, 96, 96)).item()
    plain = [said(model, loaded, row, answer="Oslo.") for row in rows]
    assert nothing == pytest.approx(sum(float(F.cross_entropy(*each)) for each in plain) / 2, rel=1e-4)
    at_start = method.loss(model, StepBatch(0, tuple(FORGET), ()))
    assert at_start.parts["fisher"] == 0.0
    expected = []
    for row in rows:
        pixels = loaded.encoder.row(row).images["pixel_values"]
        with torch.no_grad():
            target = embed_pictures(model, {"pixel_values": pixels + method.prompt})
        expected.append(float(((seen(model, loaded, row) - target).norm(dim=-1) / target.norm(dim=-1)).square().mean()))
    assert at_start.parts["match"].item() == pytest.approx(sum(expected) / 4, rel=1e-3)
    # Twice every weight: the change is as large as the weights themselves.
    with torch.no_grad():
        for parameter in method.trained:
            parameter *= 2
    doubled = method.loss(model, StepBatch(0, tuple(FORGET), ()))
    assert doubled.parts["fisher"].item() == pytest.approx(1.0, rel=1e-4)
    assert doubled.total.item() == pytest.approx(doubled.parts["match"].item() + 5, rel=1e-4)


def test_a_visual_prompt_makes_refusals_likelier(random_model: LoadedModel) -> None:
    settings = ("method.prompt_steps=15", "method.prompt_size=3", "method.fisher_rows=1", 'method.refusals=["Oslo."]')
    method: Any
    method, model = Row("aim", settings, full=True).prepared(random_model, FORGET[:1], [])
    before, after = (method.refusing(model, FORGET[:1], ["Oslo."], prompt).item() for prompt in (0 * method.prompt, method.prompt))
    assert after < before - 1e-3
