"""Adapters that other programs have trained (PEFT, TRL, LLaMA-Factory), put on a model or folded into it."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import set_peft_model_state_dict
from safetensors.torch import load_file
from torch import nn

from vgid.errors import ModelError, first_line
from vgid.limits import CallError, OverLimitError, limited
from vgid.models.checkpoints import tensor_headers
from vgid.models.file_checks import ADAPTER_CONFIG, ADAPTER_WEIGHTS, check_adapter

STARTS = (True, False, "gaussian", "orthogonal", "eva", "olora", "pissa")
"""Ways to initialise an adapter under which its base is the checkpoint, or what PEFT computes from the checkpoint anew (OLoRA, PiSSA)."""


def put_adapter(model: Any, adapter: Path) -> PeftModel:
    """Load a LoRA adapter from a folder onto a model, and check that every tensor is used.

    PEFT alone ignores tensors whose names it does not know, so that the model would stay the base without any message. An adapter that
    was saved under an older name of the model's parts is renamed by PEFT.

    Raises:
        ModelError: the folder holds no adapter, one that is not supported, or one whose tensors do not fit the model's modules.
    """
    config = check_adapter(adapter)
    if config.get("init_lora_weights", True) not in STARTS:
        raise ModelError(
            "the adapter belongs to a base that its training changed",
            where=adapter / ADAPTER_CONFIG,
            expected=f"init_lora_weights of {', '.join(map(str, STARTS))}",
            got=str(config["init_lora_weights"]),
            fix="save it with PEFT's path_initial_model_for_weight_conversion, or merge it into its base with PEFT",
        )
    _check_patterns(model, config, adapter / ADAPTER_CONFIG)
    _resize(model, adapter)
    try:
        settings = LoraConfig.from_pretrained(str(adapter))
        settings.inference_mode = True
        out = PeftModel(model, settings)
        result = set_peft_model_state_dict(out, load_file(adapter / ADAPTER_WEIGHTS))
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # PEFT raises what it comes upon: no module of these names, tensors of other shapes or types
        raise ModelError(
            "the adapter does not fit the model", where=adapter, expected="an adapter of this model", got=first_line(error)
        ) from error
    trained = [name for name, _ in out.named_parameters() if re.search(r"\blora_|\.modules_to_save\.|trainable_tokens_", name)]
    lost = sorted(result.unexpected_keys)
    empty = sorted(name for name in result.missing_keys if name in set(trained))
    if lost or empty:
        raise ModelError(
            "the adapter's tensors do not match the model's modules",
            where=adapter,
            expected=f"{len(trained)} tensors under the names that the model gives them",
            got=f"{len(lost)} that fit nowhere, {len(empty)} that are missing, {(lost or empty)[0]} for example",
            fix="use the model and the release of transformers that the adapter was made with",
        )
    return out.eval()


def _check_patterns(model: nn.Module, config: Mapping[str, Any], place: Path) -> None:
    """Try the adapter's patterns on the names of all modules, as PEFT will, in a worker: some patterns take years.

    Raises:
        ModelError: a pattern is not valid, or does not end.
    """
    whole = [each for key in ("target_modules", "exclude_modules") if isinstance(each := config.get(key), str)]
    ends = [str(key) for name in ("rank_pattern", "alpha_pattern") for key in (config.get(name) or {})]
    inner = config.get("layers_pattern") or []
    inner = [inner] if isinstance(inner, str) else inner
    if not whole and not ends and not inner:
        return
    names = [name for name, _ in model.named_modules()]
    patterns = [*whole, *(rf"(.*\.)?({each})$" for each in ends), *(rf".*\.{each}\.(\d+)\." for each in inner)]

    def tried() -> None:
        for pattern in patterns:
            for name in names:
                re.fullmatch(pattern, name)
                re.match(pattern, name)

    try:
        limited(tried)
    except (OverLimitError, CallError) as error:
        found = str(error) if isinstance(error, OverLimitError) else f"{error.kind}: {error.text}"
        raise ModelError(
            "a pattern of the adapter cannot be used",
            where=place,
            expected="patterns that name the model's modules",
            got=found,
            fix="name the modules in a list",
        ) from None


def _resize(model: Any, adapter: Path) -> None:
    """Give the model the vocabulary of an adapter that holds whole embeddings, as the model had when the adapter was trained."""
    rows, width = model.get_input_embeddings().weight.shape
    sizes = {
        header.shape[0]
        for name, header in tensor_headers(adapter, ADAPTER_WEIGHTS).items()
        if re.search(r"(embed_tokens|lm_head)\.(modules_to_save\.)?(base_layer\.)?weight$", name) and header.shape[1:] == (width,)
    }
    if len(sizes) == 1 and sizes != {rows}:
        model.resize_token_embeddings(sizes.pop(), mean_resizing=False)


@torch.no_grad()
def fold_adapter(model: PeftModel) -> Any:
    """Add an adapter to the weights of its base for good, in place, and return the plain model.

    Each layer is merged by PEFT's own code in float32 and rounded once, so every kind that PEFT can merge is folded right: LoRA, DoRA,
    biases, embeddings, single tokens, modules that were trained whole. Embeddings and head that were tied, and are not equal any more,
    are untied.

    Args:
        model: a model with one adapter.

    Returns:
        The model without PEFT's wrapper.

    Raises:
        ModelError: PEFT cannot merge a layer.
    """
    for name, layer in list(model.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            base = layer.get_base_layer()
            merged = copy.deepcopy(layer).float()
            try:
                merged.merge(safe_merge=False)
            except (ValueError, NotImplementedError, RuntimeError) as error:
                raise ModelError("the adapter cannot be merged", where=name, got=first_line(error)) from error
            for part, value in merged.get_base_layer().named_parameters():
                base.get_parameter(part).data.copy_(value)
    plain = model.unload()
    _untie(plain)
    return plain.requires_grad_(True)


def _untie(model: Any) -> None:
    head = model.get_output_embeddings()
    tied = [each for each in (model.config, model.config.get_text_config()) if getattr(each, "tie_word_embeddings", False)]
    if head is None or not tied or head.weight is model.get_input_embeddings().weight:
        return
    if torch.equal(head.weight, model.get_input_embeddings().weight):
        model.tie_weights()
        return
    for config in tied:
        config.tie_word_embeddings = False
    if hasattr(model, "get_expanded_tied_weights_keys"):
        model.all_tied_weights_keys = model.get_expanded_tied_weights_keys(all_submodels=True)


def is_plain(adapter: Path) -> bool:
    """Return whether an adapter is LoRA on linear layers and nothing else, so that its update is a sum of matrices."""
    names = tensor_headers(adapter, ADAPTER_WEIGHTS)
    return all(name.endswith((".lora_A.weight", ".lora_B.weight")) for name in names)
