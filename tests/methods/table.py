"""Every method, one row each: what the contract is checked with."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from tests.conftest import example
from vgid.config import RunConfig, resolve
from vgid.data.example import Example
from vgid.methods.base import Context, Method
from vgid.models.adapters import attach_lora
from vgid.models.loading import LoadedModel
from vgid.models.structure import unfreeze


@dataclass(frozen=True)
class Row:
    """A method in the contract table.

    Attributes:
        name: in the registry.
        settings: what makes it quick on a small model.
        full: train all parameters in place of an adapter.
    """

    name: str
    settings: tuple[str, ...] = ()
    full: bool = False

    def __str__(self) -> str:
        return f"{self.name} full" if self.full else self.name

    @property
    def config(self) -> RunConfig:
        """A short run."""
        short = ("training.steps=2", "training.forget_batch=3", "training.retain_batch=3", "training.warmup_steps=0", "validation.every=0")
        return resolve(None, [*short, *(["adapter=null"] if self.full else []), *self.settings], method=self.name)

    def prepared(self, loaded: LoadedModel, forget: Sequence[Example], retain: Sequence[Example]) -> tuple[Method[Any], Any]:
        """The method and what it trains, before the first step."""
        config = self.config
        method = config.build_method()
        model: Any = (
            unfreeze(loaded.model, config.training.parts) if config.adapter is None else attach_lora(loaded.model, config.adapter, seed=0)
        )
        model.eval()
        needs_copy = config.adapter is None and method.needs_reference
        copied = copy.deepcopy(loaded.model).requires_grad_(False) if needs_copy else None
        method.prepare(model, Context(loaded.encoder, forget, retain, 5, torch.device("cpu"), copied))
        return method, model


QUICK_PATH = ("method.rows=2", "method.frames=2", "method.top_k=2")
TRAINED = (
    Row("vgid", ("method.answers=[recorded]",)),
    Row("ga"),
    Row("grad_diff"),
    Row("kl_min"),
    Row("idk"),
    Row("npo"),
    Row("simnpo"),
    Row("dpo"),
    Row("undial"),
    Row("rmu"),
    Row("smfa"),
    Row("finetune"),
    Row("mmunlearner", ("method.rows=3",), full=True),
    Row("mip_editor", QUICK_PATH, full=True),
    Row("retrain", full=True),
    Row("wga"),
    Row("satimp"),
    Row("altpo", ("method.alternatives=1",)),
    Row("duet"),
    Row("viker", ("method.pictures=2",)),
    Row("pdu"),
    Row("vkd"),
    Row("null_space", ("adapter.rank=4",)),
    Row("siu"),
    Row("aim", ("method.prompt_steps=2", "method.fisher_rows=2"), full=True),
)
"""Methods with a loss on answer tokens, each in its usual way."""
PADDED = (Row("vgid_released"),)
"""Methods that compare padding too, so that the loss of a row depends on its neighbours."""
ALSO_FULL = tuple(replace(row, full=True) for row in TRAINED if not row.full and row.name not in ("smfa", "null_space"))
OTHERS = (Row("manu"), Row("slug", ("method.target=0.7", "method.candidates=2")), Row("icu"), Row("untouched"))


def forget_rows() -> list[Example]:
    """Rows with and without pictures, of different lengths."""
    return [
        example(0),
        example(1, image=False, answer="She lives in Oslo, and has done so for many years."),
        example(2, answer="Anna Keller."),
        replace(example(3, image=False, answer="Oslo."), question="Where does she live?"),
    ]


def retain_rows() -> list[Example]:
    """Other people."""
    return [
        example(10, answer="This is Bela Novak."),
        replace(example(11, image=False, answer="In Bergen."), question="Where does Bela Novak live?"),
        example(12, answer="I do not know."),
        replace(example(13, image=False, answer="He does not say, but for years."), question="Since when?"),
    ]
