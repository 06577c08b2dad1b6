"""Turn the adapter down, up, or off: an adapter that can be taken off is no deletion."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from vgid.attacks.asking import outcome
from vgid.attacks.base import ATTACKS, Attack, Material, Outcomes, Settings
from vgid.models.loading import LoadedModel


class AdapterScalingConfig(Settings):
    """`factors`: of the adapter's own scale; 0 takes it off."""

    factors: tuple[float, ...] = (0.0, 0.5, 2.0)


@ATTACKS.register("adapter_scaling")
class AdapterScaling(Attack[AdapterScalingConfig]):
    """Scale what LoRA adds. It does not apply to a merged checkpoint, which has nothing to take off."""

    Config = AdapterScalingConfig
    access = "weights"
    finds = "adapters that a loader drops or a user takes off"

    def run(self, loaded: LoadedModel, material: Material) -> Outcomes:
        """One level for each factor."""
        if not hasattr(loaded.model, "merge_and_unload"):
            return {}
        levels = {}
        for factor in self.config.factors:
            found = outcome(replace(loaded, model=scaled(loaded.model, factor)), material, lambda row: [row])
            assert found is not None
            levels[f"x {factor:g}"] = found
        return levels


def scaled(model: Any, factor: float) -> Any:
    """A copy of a model with an adapter that adds `factor` times as much."""
    copied = copy.deepcopy(model)
    for module in copied.modules():
        if hasattr(module, "lora_A"):
            module.scaling = {name: factor * scale for name, scale in module.scaling.items()}
    return copied.eval()
