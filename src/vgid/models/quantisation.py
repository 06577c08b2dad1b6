"""Models in 4 bits (QLoRA, arXiv 2305.14314) or 8 (LLM.int8, arXiv 2208.07339), with bitsandbytes."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Literal

import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from vgid.errors import ModelError
from vgid.models.structure import inspect_model


def few_bits(path: str, device: torch.device, bits: Literal[4, 8] = 4, *, trusted: bool = False) -> dict[str, Any]:
    """Return options of `from_pretrained` that load the decoder's linear layers in 4 bits (NF4, double quantisation) or 8 (LLM.int8).

    Vision tower, projector and head keep their precision.

    Args:
        path: folder or hub id of the model.
        device: device of the weights.
        bits: 4 or 8.
        trusted: whether code that comes with the checkpoint may run.

    Raises:
        ModelError: bitsandbytes is not installed.
    """
    if find_spec("bitsandbytes") is None:
        raise ModelError(
            "few bits need a package that is not installed",
            where="adapter.quantise",
            expected="bitsandbytes",
            fix='pip install "vgid[quant]"',
        )
    from transformers import BitsAndBytesConfig

    with torch.device("meta"):  # without weights: only the names of the model's parts are needed
        config = AutoConfig.from_pretrained(path, trust_remote_code=trusted)
        parts = inspect_model(AutoModelForImageTextToText.from_config(config, trust_remote_code=trusted))
    quantisation = BitsAndBytesConfig(
        load_in_4bit=bits == 4,
        load_in_8bit=bits == 8,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if device.type == "cuda" else torch.float32,
        llm_int8_skip_modules=[*parts.language[1:], *parts.projector, *parts.vision],
    )
    return {"quantization_config": quantisation, "device_map": {"": device}}


def disable_weight_repacking(model: Any) -> Any:
    """Keep bitsandbytes from repacking 4-bit weights on CPUs with AVX512-BF16, and return the model.

    bitsandbytes 0.50 repacks them at the first pass without gradients. From then on no gradient passes through these layers, and only a
    warning of autograd says so (measured, docs/LOG.md).
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def is_quantised(model: Any) -> bool:
    """Return whether the model's weights are stored in fewer bits than they are computed with."""
    return bool(getattr(model, "is_quantized", False))
