"""What servers do with an adapter: which options they need, and which modules they leave out.

vLLM adapts the language model only unless told otherwise (github.com/vllm-project/vllm, pull request 26674); SGLang adapts the
language model only (github.com/sgl-project/sglang, issue 28784). Both change quickly: look at the log of your release.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vgid.models.adapters import adapted_modules
from vgid.models.structure import base_of, inspect_model

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Largest ranks that vLLM can be told."""


@dataclass(frozen=True)
class Serving:
    """Options of servers for one adapter, and what there is to know before it is deployed."""

    vllm: tuple[str, ...]
    sglang: tuple[str, ...]
    warnings: tuple[str, ...]


def serving_of(model: Any, rank: int, folder: str) -> Serving:
    """Look at the modules an adapter sits on."""
    structure = inspect_model(base_of(model))
    names = [name for name in adapted_modules(model) if structure.part_of(name) != "language"]
    most = next((limit for limit in VLLM_RANKS if limit >= rank), rank)
    vllm = ["--enable-lora", f"--max-lora-rank {most}", f"--lora-modules forgotten={folder}"]
    if names:
        vllm.insert(1, "--enable-tower-connector-lora")
    sglang = ["--enable-lora", f"--max-lora-rank {rank}", f"--lora-paths forgotten={folder}"]
    return Serving(tuple(vllm), tuple(sglang), tuple(_warnings(names)))


def _warnings(outside: Sequence[str]) -> list[str]:
    warnings = ["an adapter that can be taken off is not deletion: whoever has the base has what it knew; deploy the merged model"]
    if outside:
        warnings.append(
            f"{len(outside)} adapted modules are outside the language model, {outside[0]} for example: vLLM ignores them without "
            "--enable-tower-connector-lora (and for models that do not support it), SGLang ignores them or fails; what they made the "
            "model forget is back. Deploy the merged model"
        )
    return warnings
