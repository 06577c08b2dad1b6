"""Estimates of memory for large models, from their shapes on the meta device, by the functions that the preflight uses."""

from functools import cache
from typing import Any, NamedTuple

import torch
import transformers as hf

from vgid.models.adapters import attach_lora
from vgid.models.structure import base_of, decoder_layers, unfreeze
from vgid.settings import AdapterConfig
from vgid.training.memory_estimate import (
    Memory,
    cache_bytes,
    checkpointed_row,
    decoder_shape,
    ending_bytes,
    kept_by_decoder,
    logit_bytes,
    training_bytes,
    weight_bytes,
)

TOKENS, ANSWER, ROWS, ANSWERED = 1024, 32, 4, 16
"""Tokens of a row, its answer's among them; rows at once in a pass and in answering."""
PROCESSES = (1, 8, 64)


class Shape(NamedTuple):
    """A model by its published sizes; `layers` etc. are the decoder's."""

    name: str
    kind: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int


SHAPES = (
    Shape("LLaVA-1.5 7B", "llava", 4096, 11008, 32, 32, 32, 32064),
    Shape("Qwen2.5-VL 32B", "qwen", 5120, 27648, 64, 40, 8, 152064),
    Shape("Qwen2.5-VL 72B", "qwen", 8192, 29568, 80, 64, 8, 152064),
)


def build(shape: Shape) -> Any:
    """The model in bf16 on the meta device."""
    text = {
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "vocab_size": shape.vocabulary,
    }
    with torch.device("meta"):
        if shape.kind == "llava":
            tower = hf.CLIPVisionConfig(
                hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=336, patch_size=14
            )
            model: Any = hf.LlavaForConditionalGeneration(hf.LlavaConfig(vision_config=tower, text_config=hf.LlamaConfig(**text)))
        else:
            vision = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3456, "num_heads": 16, "out_hidden_size": shape.hidden}
            rope = {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6}
            config = hf.Qwen2_5_VLConfig(vision_config=vision, text_config=text | {"rope_parameters": rope})
            model = hf.Qwen2_5_VLForConditionalGeneration(config)
    return model.to(torch.bfloat16)


@cache
def measured(shape: Shape, full: bool) -> tuple[Any, int, int]:
    """The base with an adapter or unfrozen, bytes of what is trained, and bytes that a row keeps with gradient checkpointing."""
    model = unfreeze(build(shape), ("language",)) if full else attach_lora(build(shape), AdapterConfig(), seed=0, log_targets=False)
    base = base_of(model)
    layers = len(decoder_layers(base))
    row = checkpointed_row(kept_by_decoder(base, TOKENS), layers, TOKENS, shape.hidden, 2)
    return base, sum(p.nbytes for p in model.parameters() if p.requires_grad), row


def estimate(shape: Shape, processes: int, *, full: bool) -> Memory:
    """What one process takes."""
    base, trained, row = measured(shape, full)
    sizes, decoder = weight_bytes(base, processes), decoder_shape(base.config.get_text_config())
    share = -(-trained // processes) if full else trained
    cache = cache_bytes(ANSWERED, TOKENS + 48, decoder["layers"], decoder["kv_heads"], decoder["head"], 2)
    return Memory(
        weights=sizes.held * (2 if full else 1),
        training=training_bytes(share, 0 if full else trained, "adamw", keeps_best=True),
        once=0,
        row=row,
        logits=logit_bytes(ANSWER, decoder["vocabulary"]),
        rows=ROWS,
        answering=cache,
        gathered=sizes.gathered,
        ending=ending_bytes(sizes, 0 if full else trained),
    )


def table() -> str:
    """GB in each process; the end of the run in brackets."""
    head = "".join(f" {count} GPU{'s' if count > 1 else ''} |" for count in PROCESSES)
    lines = [f"| model | trained |{head}", "|---|---|---|---|---|"]
    for shape in SHAPES:
        for full, name in ((False, "LoRA, rank 16"), (True, "all of the decoder")):
            found = [estimate(shape, count, full=full) for count in PROCESSES]
            cells = [f"{each.total / 1e9:.0f} ({each.ending / 1e9:.0f})" for each in found]
            lines.append(f"| {shape.name} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
