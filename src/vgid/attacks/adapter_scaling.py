"""Scale the adapter or switch it off: a model that forgets only through a removable adapter still holds the facts."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from vgid.attacks.asking import outcome
from vgid.attacks.base import ATTACKS, Attack, Material, Outcomes, Settings
from vgid.attacks.ways import ways
from vgid.models.loading import LoadedModel


class AdapterScalingConfig(Settings):
    """Settings of the attack.

    Attributes:
        factors: factors on the adapter's own scale, one level each; 0 switches the adapter off.
    """

    factors: tuple[float, ...] = (0.0, 0.5, 2.0)


@ATTACKS.register("adapter_scaling")
class AdapterScaling(Attack[AdapterScalingConfig]):
    """Multiply the update of a LoRA adapter by some factors, and ask the clean questions.

    The attack does not apply to a merged checkpoint, in which adapter and weights can no longer be separated.
    """

    Config = AdapterScalingConfig
    access = "weights"
    finds = "adapters that a loader drops or a user takes off"
    tries = "Turning the change that unlearning made down, up, or off"
    most = 0.1
    position = 140

    def run(self, loaded: LoadedModel, material: Material) -> Outcomes:
        """One level for each factor."""
        if not hasattr(loaded.model, "merge_and_unload"):
            return {}
        levels = {}
        for factor in self.config.factors:
            found = outcome(replace(loaded, model=scaled(loaded.model, factor)), material, lambda row: ways(row, material))
            assert found is not None
            levels[f"x {factor:g}"] = found
        return levels


def scaled(model: Any, factor: float) -> Any:
    """Copy a PEFT model with the update of its LoRA adapter multiplied by a factor."""
    copied = copy.deepcopy(model)
    for module in copied.modules():
        if hasattr(module, "lora_A"):
            module.scaling = {name: factor * scale for name, scale in module.scaling.items()}
    return copied.eval()
