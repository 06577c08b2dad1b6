"""Options that servers need for an adapter, and modules that they ignore.

By default vLLM applies an adapter to the language model only; an option adds vision tower and projector (github.com/vllm-project/vllm,
pull request 26674). SGLang supports the language model only (github.com/sgl-project/sglang, issue 28784). Both change quickly: read the
log of your release.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vgid.models.adapters import adapted_modules
from vgid.models.structure import base_of, inspect_model

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM accepts for `--max-lora-rank`."""


@dataclass(frozen=True)
class Serving:
    """How to serve one adapter.

    Attributes:
        vllm: options of `vllm serve`.
        sglang: options of `sglang.launch_server`.
        warnings: what to know before the adapter is deployed.
    """

    vllm: tuple[str, ...]
    sglang: tuple[str, ...]
    warnings: tuple[str, ...]


def serving_of(model: Any, rank: int, folder: str) -> Serving:
    """Find the options for an adapter, from the modules it belongs to.

    Args:
        model: the model with the adapter on it.
        rank: the adapter's rank.
        folder: path of the adapter, as the server gets it.

    Returns:
        Options for vLLM and SGLang, and warnings.
    """
    structure = inspect_model(base_of(model))
    names = [name for name in adapted_modules(model) if structure.part_of(name) != "language"]
    most = next((limit for limit in VLLM_RANKS if limit >= rank), rank)
    vllm = ["--enable-lora", f"--max-lora-rank {most}", f"--lora-modules forgotten={folder}"]
    if names:
        vllm.insert(1, "--enable-tower-connector-lora")
    sglang = ["--enable-lora", f"--max-lora-rank {rank}", f"--lora-paths forgotten={folder}"]
    return Serving(tuple(vllm), tuple(sglang), tuple(_warnings(names)))


def _warnings(outside: Sequence[str]) -> list[str]:
    warnings = ["an adapter that can be removed is not deletion: the base still knows everything; deploy the merged model"]
    if outside:
        warnings.append(
            f"{len(outside)} adapted modules are outside the language model, {outside[0]} for example: vLLM ignores them without "
            "--enable-tower-connector-lora (and for models that do not support it), SGLang ignores them or fails; the model then knows "
            "again what they made it forget. Deploy the merged model"
        )
    return warnings
