"""Generate a model's answers in batches, greedily or by drawing tokens."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList

from vgid.data.batching import Batch
from vgid.data.example import Example
from vgid.data.packing import Style, groups
from vgid.errors import ConfigError
from vgid.evaluation.decoding import Choose, Decoded, decode, shared_heads
from vgid.evaluation.inference import OnBatch, by_length, end_tokens, frozen
from vgid.evaluation.sampling import DrawnTokens, Sampling
from vgid.memory import as_many_as_fit
from vgid.models.forward import understood
from vgid.models.loading import LoadedModel
from vgid.models.packing_check import TOLERANCE, find_style
from vgid.models.structure import base_of

log = logging.getLogger("vgid")

OnAnswers = Callable[[Sequence[int], Sequence[str]], None]
"""Called after every batch with the indices of its examples and their answers."""
QUESTIONS = 8
"""Largest number of questions about one picture that share a row; chosen by hand."""


def generate(
    loaded: LoadedModel,
    examples: Sequence[Example],
    *,
    max_new_tokens: int = 48,
    batch_size: int = 64,
    on_batch: OnBatch | None = None,
    on_answers: OnAnswers | None = None,
    encode: Callable[[Sequence[Example]], Batch] | None = None,
    sampling: Sampling | None = None,
) -> list[str]:
    """Answer every example's question, greedily unless `sampling` is set, whatever sampling the checkpoint configures.

    Answers depend neither on the order of the examples nor on the batch size, except for rounding where two tokens are equally likely. The
    model is left as it was.

    Args:
        loaded: the model.
        examples: the questions.
        max_new_tokens: largest number of tokens in an answer.
        batch_size: number of examples in a batch; batches that do not fit into memory are halved.
        on_batch: called after every batch with the number of its examples.
        on_answers: called after every batch with its answers.
        encode: makes prompts, padded on the left, from examples; None for plain questions.
        sampling: how tokens are drawn; what is drawn depends on its seed and on the example's id. None takes the likeliest token.

    Returns:
        The answers in the order of the examples: new tokens only, without special tokens and without white space at the ends.

    Raises:
        ConfigError: `max_new_tokens` or `batch_size` is not positive.
        ModelError: the model fails on a question.
    """
    if max_new_tokens < 1:
        raise ConfigError("an answer needs tokens", expected="max_new_tokens of at least 1", got=str(max_new_tokens))
    answers, prompts = [""] * len(examples), encode or loaded.encoder.prompts
    with understood(loaded.path), frozen(loaded.model), greedy(loaded, max_new_tokens) as model, shared_heads(model.device):
        style = decoding_style(loaded, model, examples) if encode is None else None
        for indices in by_length(examples, batch_size, style):
            rows = [examples[i] for i in indices]
            said = as_many_as_fit(partial(_answer, loaded, model, style, prompts, sampling), rows)
            for index, answer in zip(indices, said, strict=True):
                answers[index] = answer
            if on_answers is not None:
                on_answers(indices, said)
            if on_batch is not None:
                on_batch(len(indices))
    return answers


def decoding_style(loaded: LoadedModel, model: Any, examples: Sequence[Example]) -> Style | None:
    """Find out how prompts can be packed for decoding, by decoding two rows packed and plain.

    Args:
        loaded: the model, with its encoder.
        model: the same model without PEFT's wrapper, configured as by `greedy`.
        examples: the questions to be packed.

    Returns:
        The style; None where packing would change answers, or there is nothing to share.
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
            break  # two tokens are equally likely; from here on the two texts differ
    return style


def _decode(
    loaded: LoadedModel,
    model: Any,
    rows: Sequence[Example],
    style: Style,
    max_new_tokens: int,
    keep_logits: bool = False,
    sampling: Sampling | None = None,
) -> Decoded:
    encoder, config = loaded.encoder, model.generation_config
    batch = encoder.pack([encoder.row(row, answer=None) for row in rows], rows, style).to(model.device)
    ends = config.eos_token_id or []
    choose: Choose | None = None
    if sampling is not None:
        numbers = sampling.numbers([row.id for row in rows], max_new_tokens)
        choose = lambda step, scores: sampling.draw(scores, numbers[:, step])  # noqa: E731
    return decode(model, batch, max_new_tokens=max_new_tokens, ends=ends, pad=config.pad_token_id, keep_logits=keep_logits, choose=choose)


def _answer(
    loaded: LoadedModel,
    model: Any,
    style: Style | None,
    prompts: Callable[[Sequence[Example]], Batch],
    sampling: Sampling | None,
    rows: Sequence[Example],
) -> list[str]:
    most = model.generation_config.max_new_tokens
    if style is not None:
        return texts_of(loaded, _decode(loaded, model, rows, style, most, sampling=sampling).tokens)
    inputs = prompts(rows).to(model.device).model_inputs
    width = inputs["input_ids"].shape[1]
    options = {}
    if sampling is not None:
        options["logits_processor"] = LogitsProcessorList([DrawnTokens(sampling, sampling.numbers([row.id for row in rows], most), width)])
    tokens = model.generate(**inputs, **options)  # [b, s + new]: left padded prompts, so new tokens start at the same position
    return texts_of(loaded, tokens[:, width:])


def texts_of(loaded: LoadedModel, tokens: Any) -> list[str]:
    """Return the texts of answers from their tokens: without special tokens and without white space at the ends."""
    return [text.strip() for text in loaded.processor.batch_decode(tokens, skip_special_tokens=True)] if len(tokens) else []


@contextmanager
def greedy(loaded: LoadedModel, max_new_tokens: int) -> Iterator[Any]:
    """Within the `with` statement, give the model a plain greedy configuration instead of the checkpoint's.

    transformers fills in what a call of `generate` leaves open from the checkpoint's configuration (temperature, repetition penalty ...),
    so all of it is replaced; only the tokens that start, end and pad a text are kept.

    Yields:
        The model without PEFT's wrapper.
    """
    # PEFT's wrapper would read its own configuration; the layers of the model inside hold the adapter.
    model = base_of(loaded.model)
    own, ends = model.generation_config, end_tokens(loaded)
    pad = next((each for each in (loaded.processor.tokenizer.pad_token_id, own.pad_token_id, *ends) if each is not None), None)
    model.generation_config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        bos_token_id=own.bos_token_id,
        eos_token_id=ends or None,
        pad_token_id=pad,
    )
    try:
        yield model
    finally:
        model.generation_config = own
