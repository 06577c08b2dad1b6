"""Answers sampled from the teacher or the student, for distillation on what they say themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from vgid.data.batching import Batch
from vgid.data.example import Example
from vgid.processes import is_sharded
from vgid.seeds import derive_seed

MAX_NEW_TOKENS = 48


def sample_answers(model: Any, tokenizer: Any, prompts: Batch, examples: Sequence[Example], seed: int) -> list[str]:
    """Sample one answer for each example at temperature 1; it depends on seed, id and prompt, not on the other rows.

    The model's mode and the global random generator are left as they were. An empty answer has nothing to compare teacher and student on;
    the recorded one takes its place.

    Args:
        model: teacher or student.
        tokenizer: decodes the answers.
        prompts: the examples without answers, left padded.
        examples: the rows, in the order of the prompts.
        seed: random seed.

    Returns:
        One answer for each example, stripped.
    """
    training = model.training
    model.eval()
    device = next(model.parameters()).device
    draw = _Draw([torch.Generator(device).manual_seed(derive_seed(seed, example.id)) for example in examples])
    settings = {"do_sample": False, "logits_processor": [draw], "max_new_tokens": MAX_NEW_TOKENS, "synced_gpus": is_sharded(model)}
    with torch.no_grad():
        out = model.generate(**prompts.model_inputs, **settings)
    model.train(training)
    texts = tokenizer.batch_decode(out[:, prompts.model_inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [text.strip() or example.answer for text, example in zip(texts, examples, strict=True)]


class _Draw(LogitsProcessor):
    """Makes the likeliest token a sampled one: argmax(logits + G), G ~ Gumbel(0, 1), is distributed as softmax(logits).

    Each row has a generator of its own.
    """

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        self.generators = generators

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores `[b, v]` with noise added."""
        uniform = [torch.rand(scores.shape[1], generator=generator, device=scores.device) for generator in self.generators]
        tiny = torch.finfo(torch.float32).tiny
        return scores.float() - torch.stack(uniform).clamp(min=tiny).log().neg().clamp(min=tiny).log()
