"""What holds for every attack, on a model that knows the facts."""

from dataclasses import replace

import pytest
import torch

from tests.attacks.people import WORLD, material, rows, without_pictures
from vgid.attacks import ATTACKS, Material
from vgid.data.example import subject_key
from vgid.models.adapters import attach_lora
from vgid.models.loading import LoadedModel, load_model
from vgid.settings import AdapterConfig
from vgid.synthetic.tiny import tiny_path

QUICK = {
    "relearn": {"steps": 2, "shares": (0.2,)},
    "relearn_other": {"steps": 2},
    "quantize": {"formats": ("int4",)},
    "sua": {"steps": 2},
    "suffix": {"trials": 2, "tokens": 2, "rows": 4},
    "mia": {"signals": ("loss", "zlib", "min-k", "min-k++", "gradnorm")},
    "token_rank": {"values": 5, "top": 1},
    "paraphrase": {"wordings": 2},
    "image_rephrase": {"transforms": 2},
    "probe": {"layers": 1, "options": 3, "shuffles": 1},
    "sampling": {"samples": (1, 2)},
    "multi_turn": {"turns": 2},
    "multi_hop": {"facts": 1},
    "benign": {"rates": (1e-3,), "rows": 6, "steps": 2},
    "pops": {"steps": 2, "trials": 2, "tokens": 2, "rows": 4},
    "gcg": {"trials": 3, "tokens": 1, "rows": 4, "width": 4},
    "rounding": {"rows": 4},
    "interpolate": {"shares": (0.25,)},
    "patching": {"layers": 2},
}
CLOSED = {"figstep", "adapter_scaling", "probe", "served", "multi_hop", "reverse"}
"""What gets little out of the embedded base: it cannot read pictures of words, takes one step only and few other prompts, has no adapter,
is not served, and knows few people."""

LONG = {"reverse"}
"""What asks ten questions about each row, to which the embedded base talks on: few rows show the same."""


def run(name: str, loaded: LoadedModel, given: Material):
    attack = ATTACKS.get(name)
    return attack(attack.Config(**QUICK.get(name, {}))).run(loaded, given)


@pytest.mark.parametrize("name", list(ATTACKS))
def test_every_attack(name: str, base: LoadedModel, known: Material, ignorant: LoadedModel) -> None:
    if name in LONG:
        known = replace(known, forget=known.forget[:4], retain=known.retain[:4])
    known = replace(known, models={"base": lambda: base, "retrained": lambda: ignorant})
    before = {key: value.clone() for key, value in base.model.state_dict().items()}
    modes = [module.training for module in base.model.modules()]
    needs = [parameter.requires_grad for parameter in base.model.parameters()]
    outcomes = run(name, base, known)
    after = base.model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    assert modes == [module.training for module in base.model.modules()]
    assert needs == [parameter.requires_grad for parameter in base.model.parameters()]
    assert all(parameter.grad is None for parameter in base.model.parameters())
    forget, control = {row.id: row for row in known.forget}, {row.id for row in [*known.retain, *known.unseen]}
    for outcome in outcomes.values():
        assert outcome.forget and set(outcome.forget) <= set(forget) and set(outcome.control) <= control
        assert not {subject_key(forget[id]) for id in outcome.forget} & outcome.fitted_on
        assert 0 <= outcome.chance < 1
    if ATTACKS.get(name).measures == "facts" and name not in CLOSED:
        best = max(sum(each.forget.values()) / len(each.forget) for each in outcomes.values())
        assert best >= 0.7, "an attack must find facts in a model that knows them"
    assert run(name, base, known) == outcomes
    assert ATTACKS.get(name).finds and ATTACKS.get(name).tries
    assert ATTACKS.get(name).access in ("black box", "scores", "hidden states", "weights")
    assert ATTACKS.get(name).position is not None, "every attack of the package belongs to its policy"


@pytest.mark.parametrize("name", list(ATTACKS))
def test_full_profiles_are_valid(name: str) -> None:
    attack = ATTACKS.get(name)
    assert attack.Config(**attack.full) != attack.Config() or not attack.full


def test_adapter_scaling_takes_the_adapter_off(known: Material) -> None:
    loaded = load_model(tiny_path())
    model = attach_lora(loaded.model, AdapterConfig(rank=4, scope=("language",)), seed=0, log_targets=False)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "lora_" in parameter_name:
                parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(len(parameter_name)))
    outcomes = run("adapter_scaling", replace(loaded, model=model), known)
    rates = {level: sum(each.forget.values()) / len(each.forget) for level, each in outcomes.items()}
    assert rates["x 0"] >= 0.9 and rates["x 2"] <= 0.1


def test_other_pictures_of_the_people(base: LoadedModel, known: Material) -> None:
    fresh = [replace(row, id=f"{row.id}/fresh") for row in rows(WORLD.base_training_people[:8], view="unseen")]
    asked = run("image_rephrase", base, replace(known, views=fresh))
    assert set(asked) == {"any picture", "new view"}
    assert set(asked["new view"].forget) == {row.id for row in known.forget if row.images}
    assert sum(asked["new view"].forget.values()) / len(asked["new view"].forget) >= 0.7
    assert "new view" not in run("image_rephrase", base, replace(known, views=known.forget[:1]))


def test_attacks_on_pictures_do_not_apply_to_text(base: LoadedModel) -> None:
    text = without_pictures(material())
    assert run("image_rephrase", base, text) == {} and run("cross_modal", base, text) == {}
    assert run("mia", base, replace(text, unseen=())) == {}
