"""Optimizers: AdamW, or Muon for matrices with AdamW for the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import AdamW, Muon, Optimizer

from vgid.settings import TrainingConfig


def build_optimizer(model: Any, config: TrainingConfig) -> Optimizer:
    """Make the optimizer for the parameters that require gradients."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if config.optimizer == "adamw":
        fused = all(p.is_cuda for _, p in named)  # one kernel for all parameters
        return AdamW([p for _, p in named], lr=float(config.learning_rate), weight_decay=config.weight_decay, fused=fused)
    # Embeddings are tables, not maps: Muon's orthogonal updates are meant for hidden matrices only.
    tables = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
    matrices = [p for _, p in named if p.ndim == 2 and id(p) not in tables]
    others = [p for _, p in named if p.ndim != 2 or id(p) in tables]
    return MuonWithAdamW(matrices, others, lr=float(config.learning_rate), weight_decay=config.weight_decay)


class MuonWithAdamW(Optimizer):
    """Muon (Jordan et al., 2024) on matrices and AdamW on everything else, as one optimizer; one learning rate fits both."""

    def __init__(self, matrices: list[torch.nn.Parameter], others: list[torch.nn.Parameter], *, lr: float, weight_decay: float) -> None:
        self.parts: list[Optimizer] = []
        if matrices:
            self.parts.append(Muon(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"))
        if others:
            self.parts.append(AdamW(others, lr=lr, weight_decay=weight_decay))
        super().__init__([{"params": [*matrices, *others]}], {"lr": lr})
        # Schedulers write to these very groups, so the parts see every change of the learning rate.
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step of both."""
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """States of both."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load states of both."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]
