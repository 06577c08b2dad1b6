"""Answers sampled from the teacher or the student, for distillation on what they say themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from vgid.data.batching import Batch
from vgid.data.example import Example

MAX_NEW_TOKENS = 48


def sample_answers(model: Any, tokenizer: Any, prompts: Batch, examples: Sequence[Example], seed: int) -> list[str]:
    """Sample one answer per example at temperature 1; a function of the seed and the prompts.

    The model's mode and the global random generator are left as they were. An empty answer has nothing to compare teacher and student on;
    the recorded one takes its place.
    """
    training = model.training
    model.eval()
    device = next(model.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
        torch.manual_seed(seed)
        out = model.generate(**prompts.model_inputs, do_sample=True, top_k=0, top_p=1.0, max_new_tokens=MAX_NEW_TOKENS)
    model.train(training)
    texts = tokenizer.batch_decode(out[:, prompts.model_inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [text.strip() or example.answer for text, example in zip(texts, examples, strict=True)]
