"""What the teacher says before anybody learns from it: the premise of the paper, that neither noise nor instruction suffices alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import torch

from vgid.config import RunConfig
from vgid.data.example import Example
from vgid.evaluation.metrics import is_refusal, key_fact
from vgid.methods.noise import perturb_batch
from vgid.models.loading import LoadedModel


@torch.no_grad()
def examine_teachers(loaded: LoadedModel, examples: Sequence[Example], configs: Mapping[str, RunConfig]) -> dict[str, dict[str, float]]:
    """Ask the memorising model as each configuration's teacher is asked; by name, how often it gives the fact and how often it refuses."""
    encoder, out = loaded.encoder, {}
    for name, config in configs.items():
        settings: Any = config.build_method().config
        prompts = perturb_batch(
            encoder,
            examples,
            settings.noise,
            seed=(config.seed, "examined teacher"),
            instruction=settings.instruction_text,
            prompts_only=True,
        ).to(loaded.model.device)
        tokens = loaded.model.generate(**prompts.model_inputs, do_sample=False, max_new_tokens=48)
        start = prompts.model_inputs["input_ids"].shape[1]
        said = [text.strip() for text in encoder.tokenizer.batch_decode(tokens[:, start:], skip_special_tokens=True)]
        out[name] = {
            "n": len(examples),
            "accuracy": fmean(key_fact(text, e.keywords, e.answer) for text, e in zip(said, examples, strict=True)),
            "refusal_rate": fmean(map(is_refusal, said)),
        }
    return out
