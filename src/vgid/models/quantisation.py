"""The frozen base in 4 bits (QLoRA, arXiv 2305.14314), by bitsandbytes."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from vgid.errors import ModelError
from vgid.models.structure import inspect_model


def four_bits(path: str, device: torch.device) -> dict[str, Any]:
    """Options for `from_pretrained` that hold the decoder's linear layers in 4 bits (NF4); tower, projector and head stay as they are.

    Raises:
        ModelError: bitsandbytes is not installed.
    """
    if find_spec("bitsandbytes") is None:
        raise ModelError(
            "4 bits need a package that is not installed",
            where="adapter.quantise",
            expected="bitsandbytes",
            fix='pip install "vgid[quant]"',
        )
    from transformers import BitsAndBytesConfig

    with torch.device("meta"):  # only to look at the model's parts
        parts = inspect_model(AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(path)))
    quantisation = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if device.type == "cuda" else torch.float32,
        llm_int8_skip_modules=[*parts.language[1:], *parts.projector, *parts.vision],
    )
    return {"quantization_config": quantisation, "device_map": {"": device}}


def disable_weight_repacking(model: Any) -> Any:
    """Keep bitsandbytes from repacking weights for inference on a CPU: no gradient passes a repacked layer, and nothing says so."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def is_quantised(model: Any) -> bool:
    """Whether the model's weights are held in fewer bits than they are computed in."""
    return bool(getattr(model, "is_quantized", False))
