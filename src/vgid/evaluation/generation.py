"""Greedy answers of a model, in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from transformers import GenerationConfig

from vgid.data.batching import Batch
from vgid.data.example import Example
from vgid.errors import ConfigError
from vgid.evaluation.inference import Done, by_length, frozen
from vgid.models.loading import LoadedModel


def generate(
    loaded: LoadedModel,
    examples: Sequence[Example],
    *,
    max_new_tokens: int = 48,
    batch_size: int = 64,
    on_batch: Done | None = None,
    encode: Callable[[Sequence[Example]], Batch] | None = None,
) -> list[str]:
    """Answer every example's question greedily, whatever sampling the checkpoint asks for.

    The answers come in the order of the examples and depend neither on that order nor on the batch size (up to
    rounding, where two tokens are equally likely). They hold new tokens only, without special tokens and outer white
    space. The model is left as it was. `encode` makes the left padded prompts; None asks the plain question.

    Raises:
        ConfigError: `max_new_tokens` or `batch_size` is not positive.
    """
    if max_new_tokens < 1:
        raise ConfigError("an answer needs tokens", expected="max_new_tokens of at least 1", got=str(max_new_tokens))
    answers, prompts = [""] * len(examples), encode or loaded.encoder.prompts
    with frozen(loaded.model), _greedy(loaded, max_new_tokens) as model:
        for indices in by_length(examples, batch_size):
            for index, answer in zip(indices, _answer(loaded, model, prompts([examples[i] for i in indices])), strict=True):
                answers[index] = answer
            if on_batch is not None:
                on_batch(len(indices))
    return answers


def _answer(loaded: LoadedModel, model: Any, prompts: Batch) -> list[str]:
    inputs = prompts.to(model.device).model_inputs
    tokens = model.generate(**inputs)  # [b, s + new]: left padded prompts, so new tokens start at the same position
    new = tokens[:, inputs["input_ids"].shape[1] :]
    return [text.strip() for text in loaded.processor.batch_decode(new, skip_special_tokens=True)]


@contextmanager
def _greedy(loaded: LoadedModel, max_new_tokens: int) -> Iterator[Any]:
    """The model that generates, with a plain greedy configuration in place of the checkpoint's own.

    Values that `generate` is not given are filled in from the checkpoint (temperature, repetition penalty ...), so the
    checkpoint's configuration has to make way as a whole; only the tokens that start, end and pad a text are kept.
    """
    # A PEFT wrapper generates by the model it wraps, whose layers hold the adapter.
    model: Any = loaded.model.get_base_model() if hasattr(loaded.model, "get_base_model") else loaded.model
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
