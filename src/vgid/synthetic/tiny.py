"""The embedded model: a small, stock LLaVA, which is part of the package.

`tiny` has a CLIP vision tower and a Llama decoder with 4 M parameters together. `vgid.synthetic.base_training` trained it on fictional
people: it answers questions about pictures, says that it does not know strangers, follows unlearning instructions unless it recognises a
person, and knows nobody of the demo.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import as_file, files
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

IMAGE_SIZE = 96
"""Side of a picture in pixels; at 64, too little of a mouth can be seen (docs/LOG.md)."""
PATCH_SIZE = 24
"""Side of a patch in pixels, so that a picture has 16 tokens."""
VOCABULARY = 2048
"""Number of tokens of the vocabulary."""
CONTEXT = 256
"""Largest number of tokens of a text."""
PAD, USER, ASSISTANT, END, IMAGE = SPECIAL = ("<pad>", "<|user|>", "<|assistant|>", "<|end|>", "<image>")

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|' + message['role'] + '|>' -}}
{%- if message['content'] is string -%}{{- message['content'] -}}{%- else -%}
{%- for part in message['content'] if part['type'] == 'image' -%}{{- '<image>' -}}{%- endfor -%}
{%- for part in message['content'] if part['type'] == 'text' -%}{{- part['text'] -}}{%- endfor -%}
{%- endif -%}
{%- if message['role'] == 'assistant' -%}{{- '<|end|>' -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}
"""


def build_tokenizer(corpus: Iterable[str]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer; digits stay in groups, so that a phone number has few tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT],
        extra_special_tokens={"image_token": IMAGE},
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def build_processor(tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    """Build a stock LLaVA processor around a tokenizer."""
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    return LlavaProcessor(
        image_processor=CLIPImageProcessor(size=size, do_center_crop=False, image_mean=[0.5] * 3, image_std=[0.5] * 3, do_convert_rgb=True),
        tokenizer=tokenizer,
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def build_model(tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> LlavaForConditionalGeneration:
    """Build the model with random weights, drawn by `seed`."""
    torch.manual_seed(seed)
    special = {"pad_token_id": tokenizer.convert_tokens_to_ids(PAD), "eos_token_id": tokenizer.convert_tokens_to_ids(END)}
    text = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=192,
        intermediate_size=640,
        num_hidden_layers=5,
        num_attention_heads=6,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        **special,
    )
    vision = CLIPVisionConfig(
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=(IMAGE_SIZE // PATCH_SIZE) ** 2,
        vision_feature_layer=-1,
        tie_word_embeddings=True,
        **special,
    )
    model = LlavaForConditionalGeneration(config)
    model.generation_config.pad_token_id = special["pad_token_id"]
    model.generation_config.eos_token_id = special["eos_token_id"]
    return model


def tiny_path() -> Path:
    """Return the folder of the trained base in the installed package."""
    with as_file(files("vgid.synthetic") / "assets" / "tiny") as path:
        return path
