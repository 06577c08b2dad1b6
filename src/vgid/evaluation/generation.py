"""Greedy answers of a model, in batches."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from transformers import GenerationConfig

from vgid.data.batching import Batch
from vgid.data.example import Example
from vgid.data.packing import Style, groups
from vgid.errors import ConfigError
from vgid.evaluation.decoding import Decoded, decode, shared_heads
from vgid.evaluation.inference import OnBatch, by_length, frozen
from vgid.memory import as_many_as_fit
from vgid.models.loading import LoadedModel
from vgid.models.packing_check import TOLERANCE, find_style
from vgid.models.structure import base_of

log = logging.getLogger("vgid")

OnAnswers = Callable[[Sequence[int], Sequence[str]], None]
"""Given, after every batch, the places of its examples and the answers to them."""
QUESTIONS = 8
"""So many questions about one picture share a row."""


def generate(
    loaded: LoadedModel,
    examples: Sequence[Example],
    *,
    max_new_tokens: int = 48,
    batch_size: int = 64,
    on_batch: OnBatch | None = None,
    on_answers: OnAnswers | None = None,
    encode: Callable[[Sequence[Example]], Batch] | None = None,
) -> list[str]:
    """Answer every example's question greedily, whatever sampling the checkpoint asks for.

    The answers come in the order of the examples and depend neither on that order nor on the batch size (up to
    rounding, where two tokens are equally likely). They hold new tokens only, without special tokens and outer white
    space. The model is left as it was. `on_answers` gets every batch as it is done. `encode` makes the left padded
    prompts; None asks the plain question.

    Raises:
        ConfigError: `max_new_tokens` or `batch_size` is not positive.
    """
    if max_new_tokens < 1:
        raise ConfigError("an answer needs tokens", expected="max_new_tokens of at least 1", got=str(max_new_tokens))
    answers, prompts = [""] * len(examples), encode or loaded.encoder.prompts
    with frozen(loaded.model), greedy(loaded, max_new_tokens) as model, shared_heads(model.device):
        style = decoding_style(loaded, model, examples) if encode is None else None
        for indices in by_length(examples, batch_size, style):
            rows = [examples[i] for i in indices]
            said = as_many_as_fit(partial(_answer, loaded, model, style, prompts), rows)
            for index, answer in zip(indices, said, strict=True):
                answers[index] = answer
            if on_answers is not None:
                on_answers(indices, said)
            if on_batch is not None:
                on_batch(len(indices))
    return answers


def decoding_style(loaded: LoadedModel, model: Any, examples: Sequence[Example]) -> Style | None:
    """How prompts may be packed for decoding; None where that would change answers, or nothing would be shared.

    Found out by decoding a few rows in both ways.
    """
    style = find_style(model, loaded.encoder, examples, QUESTIONS)
    if style is None:
        return None
    few = next(places for places in groups(examples, QUESTIONS) if len(places) > 1)[:2]
    rows = [examples[place] for place in few]
    plain = loaded.encoder.prompts(rows).to(model.device).model_inputs
    slow = model.generate(**plain, max_new_tokens=3, output_logits=True, return_dict_in_generate=True)
    fast = _decode(loaded, model, rows, style, 3, keep_logits=True)
    for step, (got, expected) in enumerate(zip(fast.logits, slow.logits, strict=False)):
        worst = ((got - expected).abs().max() / expected.abs().max()).item()
        if worst > TOLERANCE.get(model.dtype, 1e-4):
            log.warning("answers are generated one row a question, which is slower: packed, logits differ by %.1e of the largest", worst)
            return None
        if not torch.equal(fast.tokens[:, step], slow.sequences[:, plain["input_ids"].shape[1] + step]):
            break  # two tokens as likely as each other: from here on the two texts differ
    return style


def _decode(
    loaded: LoadedModel, model: Any, rows: Sequence[Example], style: Style, max_new_tokens: int, keep_logits: bool = False
) -> Decoded:
    encoder, config = loaded.encoder, model.generation_config
    batch = encoder.pack([encoder.row(row, answer=None) for row in rows], rows, style).to(model.device)
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    return decode(model, batch, max_new_tokens=max_new_tokens, ends=ends, pad=config.pad_token_id, keep_logits=keep_logits)


def _answer(
    loaded: LoadedModel, model: Any, style: Style | None, prompts: Callable[[Sequence[Example]], Batch], rows: Sequence[Example]
) -> list[str]:
    if style is not None:
        return _texts(loaded, _decode(loaded, model, rows, style, model.generation_config.max_new_tokens).tokens)
    inputs = prompts(rows).to(model.device).model_inputs
    tokens = model.generate(**inputs)  # [b, s + new]: left padded prompts, so new tokens start at the same position
    return _texts(loaded, tokens[:, inputs["input_ids"].shape[1] :])


def _texts(loaded: LoadedModel, tokens: Any) -> list[str]:
    return [text.strip() for text in loaded.processor.batch_decode(tokens, skip_special_tokens=True)]


@contextmanager
def greedy(loaded: LoadedModel, max_new_tokens: int) -> Iterator[Any]:
    """The model that generates, with a plain greedy configuration in place of the checkpoint's own.

    Values that `generate` is not given are filled in from the checkpoint (temperature, repetition penalty ...), so the
    checkpoint's configuration has to make way as a whole; only the tokens that start, end and pad a text are kept.
    """
    # PEFT's wrapper would read its own configuration; the layers of the model inside hold the adapter.
    model = base_of(loaded.model)
    own, tokenizer = model.generation_config, loaded.processor.tokenizer
    end = own.eos_token_id if own.eos_token_id is not None else tokenizer.eos_token_id
    pad = next((each for each in (tokenizer.pad_token_id, own.pad_token_id, _first(end)) if each is not None), None)
    model.generation_config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        bos_token_id=own.bos_token_id,
        eos_token_id=end,
        pad_token_id=pad,
    )
    try:
        yield model
    finally:
        model.generation_config = own


def _first(ids: int | list[int] | None) -> int | None:
    return ids[0] if isinstance(ids, list) else ids
