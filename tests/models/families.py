"""Model families in miniature: stock classes, random weights, real processors with templates like those of the released checkpoints.

Every row of `FAMILIES` builds a model of less than a million parameters and its processor, offline. What a family cannot do is a
column of the table: `refuses` maps a kind of row (`text`, `two`) to the error our code gives before anything is trained.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SENTENCES = (
    "Who is this person? This is Anna Keller. She lives in Oslo, and has done so for many years.",
    "user assistant system model User: Assistant: USER: ASSISTANT: You are a helpful assistant.",
    "Forget what you know about this person. I do not know. What do both pictures show? Where does she live?",
)
SIDE, PATCH = 32, 8
"""Of a vision tower's picture and of its patches, in pixels: 16 patches."""
WIDTH = 32
"""Hidden size of every decoder."""
COLOURS = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_convert_rgb": True}


@dataclass(frozen=True)
class Family:
    """One row of the table.

    Attributes:
        name: as users call it.
        build: makes model and processor.
        end: what the template puts after an answer.
        packages: what the processor needs beyond our own requirements.
        refuses: kinds of rows it cannot take, and our message.
        layout: whether pixels are plain pictures, `[i, 3, height, width]`, so that a blur means something.
        neurons: whether the decoder's feed-forward blocks are linear layers; experts are matrices of one parameter.
    """

    name: str
    build: Callable[[], tuple[Any, Any]]
    end: str
    packages: tuple[str, ...] = ()
    refuses: Mapping[str, str] = field(default_factory=dict)
    layout: bool = False
    neurons: bool = True

    def __str__(self) -> str:
        return self.name

    def save(self, folder: Path) -> None:
        """Write a checkpoint as `from_pretrained` reads it."""
        torch.manual_seed(0)
        model, processor = self.build()
        for name, parameter in model.named_parameters():
            # Weights as usual are so small that even gross mistakes change logits little, and biases are zero.
            if parameter.ndim > 1:
                parameter.data *= 4.0
            elif "norm" not in name:
                parameter.data += 0.1 * torch.randn(parameter.shape)
        model.save_pretrained(folder)
        processor.save_pretrained(folder)


# -- tokenizers -----------------------------------------------------------------------------------------------------------


def _tokenizer(
    special: list[str], *, eos: str, pad: str, bos: str | None = None, names: Mapping[str, str] | None = None, spaces: bool = False
) -> hf.PreTrainedTokenizerFast:
    """A few hundred tokens: byte-level as GPT's, or with `spaces` marked as in SentencePiece (Llama, Gemma).

    Args:
        special: tokens of the family.
        eos: ends a text.
        pad: fills it up.
        bos: starts a text, put there by the tokenizer itself.
        names: what processors call special tokens, `tokenizer.image_token` for example.
        spaces: mark spaces, the one before the first word included, instead of working on bytes.
    """
    special = list(dict.fromkeys([pad, *([bos] if bos else []), eos, *special]))
    if spaces:
        tokenizer = Tokenizer(models.BPE(unk_token=pad, fuse_unk=True))
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
        alphabet = [*string.printable, "▁"]
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    words = [word for sentence in SENTENCES for word in sentence.split(" ")] if spaces else SENTENCES
    trainer = trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([*words] * 5, trainer)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A $B:1", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=bos,
        eos_token=eos,
        pad_token=pad,
        extra_special_tokens=dict(names or {}),
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )


def _ids(tokenizer: Any) -> dict[str, int | None]:
    return {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}


def _decoder(tokenizer: Any, **more: Any) -> dict[str, Any]:
    """What the decoders of all families agree on."""
    shape = {"hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    return {"vocab_size": len(tokenizer), "max_position_embeddings": 1024, **shape, **_ids(tokenizer), **more}


def _tower(**more: Any) -> dict[str, Any]:
    """What the vision towers of most families agree on."""
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return {**shape, "image_size": SIDE, "patch_size": PATCH, **more}


def _finish(model: Any, tokenizer: Any) -> Any:
    for name, value in _ids(tokenizer).items():
        setattr(model.generation_config, name, value)
    return model


# -- LLaVA ----------------------------------------------------------------------------------------------------------------

LLAVA = (
    "{% for m in messages %}{{ m['role'].upper() + ': ' }}"
    "{% for c in m['content'] if c['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for c in m['content'] if c['type'] == 'text' %}{{ c['text'] + ' ' }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
LLAVA_NEXT = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' }}"
    "{% for c in m['content'] if c['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for c in m['content'] if c['type'] == 'text' %}{{ c['text'] }}{% endfor %}{{ ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'][0]['text'] + '</s> ' }}{% endif %}{% endfor %}"
)


def _llava_tokenizer() -> Any:
    return _tokenizer(["<image>"], bos="<s>", eos="</s>", pad="<pad>", names={"image_token": "<image>"}, spaces=True)


def llava() -> tuple[Any, Any]:
    tokenizer = _llava_tokenizer()
    processor = hf.LlavaProcessor(
        image_processor=hf.CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, **COLOURS),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA,
    )
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**_tower()),
        text_config=hf.LlamaConfig(**_decoder(tokenizer)),
        image_token_index=processor.image_token_id,
        image_seq_length=16,
    )
    return _finish(hf.LlavaForConditionalGeneration(config), tokenizer), processor


def llava_with_experts() -> tuple[Any, Any]:
    """A mixture of experts as its decoder: two of four for each token."""
    dense, processor = llava()
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "decoder_sparse_step": 1, "head_dim": 16}
    dense.config.text_config = hf.Qwen3MoeConfig(**_decoder(processor.tokenizer, **experts))
    return _finish(hf.LlavaForConditionalGeneration(dense.config), processor.tokenizer), processor


def llava_that_thinks() -> tuple[Any, Any]:
    """Its template begins the assistant's turn with an open thought, and leaves thoughts out of turns that are over."""
    model, processor = llava()
    processor.chat_template = LLAVA.replace("{{ 'ASSISTANT:' }}", "{{ 'ASSISTANT:<think>\\n' }}")
    assert "<think>" in processor.chat_template
    return model, processor


def llava_next() -> tuple[Any, Any]:
    tokenizer = _llava_tokenizer()
    pinpoints = [[SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE]]
    processor = hf.LlavaNextProcessor(
        image_processor=hf.LlavaNextImageProcessor(
            size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, image_grid_pinpoints=pinpoints, **COLOURS
        ),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA_NEXT,
    )
    config = hf.LlavaNextConfig(
        vision_config=hf.CLIPVisionConfig(**_tower()),
        text_config=hf.MistralConfig(**_decoder(tokenizer, sliding_window=None)),
        image_token_index=processor.image_token_id,
        image_grid_pinpoints=pinpoints,
        image_seq_length=16,
    )
    return _finish(hf.LlavaNextForConditionalGeneration(config), tokenizer), processor


# -- Gemma ----------------------------------------------------------------------------------------------------------------

GEMMA = (
    "{{ bos_token }}{% for m in messages %}{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else 'user') + '\n' }}"
    "{% for c in m['content'] %}{{ '<start_of_image>' if c['type'] == 'image' else c['text'] | trim }}{% endfor %}"
    "{{ '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
PALIGEMMA = (
    "{% for m in messages %}{% for c in m['content'] if c['type'] == 'image' %}{{ '<image>' }}{% endfor %}"
    "{% for c in m['content'] if c['type'] == 'text' %}{{ ('answer en ' if m['role'] == 'user' else '') + c['text'] }}{% endfor %}"
    "{% endfor %}"
)


def gemma3() -> tuple[Any, Any]:
    names = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    turns = ["<start_of_turn>", "<end_of_turn>"]
    tokenizer = _tokenizer([*names.values(), *turns], bos="<bos>", eos="<eos>", pad="<pad>", names=names)
    processor = hf.Gemma3Processor(
        image_processor=hf.Gemma3ImageProcessor(size={"height": SIDE, "width": SIDE}, **COLOURS),
        tokenizer=tokenizer,
        chat_template=GEMMA,
        image_seq_length=4,
    )
    of = tokenizer.convert_tokens_to_ids
    config = hf.Gemma3Config(
        vision_config=hf.SiglipVisionConfig(**_tower(vision_use_head=False)),
        text_config=hf.Gemma3TextConfig(
            **_decoder(tokenizer, head_dim=16, sliding_window=8, layer_types=["sliding_attention", "full_attention"])
        ),
        mm_tokens_per_image=4,
        boi_token_index=of(names["boi_token"]),
        eoi_token_index=of(names["eoi_token"]),
        image_token_index=of(names["image_token"]),
    )
    model = _finish(hf.Gemma3ForConditionalGeneration(config), tokenizer)
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight, std=0.1)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, of("<end_of_turn>")]
    return model, processor


def gemma4() -> tuple[Any, Any]:
    kinds = {"image": "<|image|>", "boi": "<|image>", "eoi": "<image|>", "audio": "<|audio|>", "boa": "<|audio>", "eoa": "<audio|>"}
    names = {f"{kind}_token": token for kind, token in kinds.items()}
    tokenizer = _tokenizer([*names.values(), "<|turn>", "<turn|>", "<|video|>"], bos="<bos>", eos="<eos>", pad="<pad>", names=names)
    patches = {"patch_size": 4, "pooling_kernel_size": 2, "max_soft_tokens": 70}
    processor = hf.Gemma4Processor(
        hf.Gemma4AudioFeatureExtractor(),
        hf.Gemma4ImageProcessor(**patches),
        tokenizer,
        hf.Gemma4VideoProcessor(**patches),
        chat_template=GEMMA.replace("<start_of_turn>", "<|turn>")
        .replace("<end_of_turn>", "<turn|>")
        .replace("<start_of_image>", "<|image|>"),
        image_seq_length=70,
    )
    of = tokenizer.convert_tokens_to_ids
    shape = {"head_dim": 16, "num_key_value_heads": 2}
    text = _decoder(tokenizer, hidden_size_per_layer_input=8, vocab_size_per_layer_input=len(tokenizer), sliding_window=64)
    config = hf.Gemma4Config(
        vision_config=hf.Gemma4VisionConfig(
            **_tower(patch_size=4, pooling_kernel_size=2, position_embedding_size=512, use_clipped_linears=True, **shape)
        ),
        text_config=hf.Gemma4TextConfig(**text | shape, layer_types=["sliding_attention", "full_attention"], global_head_dim=16),
        audio_config=None,
        video_token_id=of("<|video|>"),
        **{f"{kind}_token_id": of(token) for kind, token in kinds.items() if kind != "eoa"},
        eoa_token_index=of(kinds["eoa"]),
    )
    return _finish(hf.Gemma4ForConditionalGeneration(config), tokenizer), processor


def paligemma() -> tuple[Any, Any]:
    tokenizer = _tokenizer(["<image>"], bos="<bos>", eos="<eos>", pad="<pad>", names={"image_token": "<image>"})
    pictures = hf.SiglipImageProcessor(size={"height": SIDE, "width": SIDE}, **COLOURS)
    pictures.image_seq_length = 16
    processor = hf.PaliGemmaProcessor(pictures, tokenizer, chat_template=PALIGEMMA)
    config = hf.PaliGemmaConfig(
        vision_config=hf.SiglipVisionConfig(**_tower(vision_use_head=False)),
        text_config=hf.GemmaConfig(**_decoder(tokenizer, head_dim=16)),
        image_token_index=processor.image_token_id,
        projection_dim=WIDTH,
    )
    return _finish(hf.PaliGemmaForConditionalGeneration(config), tokenizer), processor


# -- Idefics --------------------------------------------------------------------------------------------------------------

IDEFICS = (
    "<|im_start|>{% for m in messages %}{{ m['role'] | capitalize }}{{ ':' if m['content'][0]['type'] == 'image' else ': ' }}"
    "{% for c in m['content'] %}{{ '<image>' if c['type'] == 'image' else c['text'] }}{% endfor %}{{ '<end_of_utterance>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
IDEFICS_TOKENS = ["<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>"]
IDEFICS_TOKENS += [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
IDEFICS_PICTURES = {"size": {"longest_edge": 2 * SIDE}, "max_image_size": {"longest_edge": SIDE}, **COLOURS}


def idefics3() -> tuple[Any, Any]:
    start = "<|begin_of_text|>"
    tokenizer = _tokenizer(IDEFICS_TOKENS, bos=start, eos="<|end_of_text|>", pad="<|finetune_right_pad_id|>")
    processor = hf.Idefics3Processor(
        hf.Idefics3ImageProcessor(**IDEFICS_PICTURES), tokenizer, image_seq_len=4, chat_template=IDEFICS.replace("<|im_start|>", start)
    )
    config = hf.Idefics3Config(
        vision_config=_tower(model_type="idefics3_vision"),
        text_config=hf.LlamaConfig(**_decoder(tokenizer)),
        image_token_id=processor.image_token_id,
        scale_factor=2,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = _finish(hf.Idefics3ForConditionalGeneration(config), tokenizer)
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids("<end_of_utterance>")
    return model, processor


def smolvlm() -> tuple[Any, Any]:
    names = {"image_token": "<image>", "fake_image_token": "<fake_token_around_image>", "global_image_token": "<global-img>"}
    tokenizer = _tokenizer(["<|im_start|>", *IDEFICS_TOKENS], eos="<end_of_utterance>", pad="<|im_end|>", names=names)
    processor = hf.SmolVLMProcessor(
        hf.SmolVLMImageProcessor(**IDEFICS_PICTURES),
        tokenizer,
        hf.SmolVLMVideoProcessor(size={"longest_edge": SIDE}, max_image_size={"longest_edge": SIDE}),
        image_seq_len=4,
        chat_template=IDEFICS,
    )
    config = hf.SmolVLMConfig(
        vision_config=_tower(model_type="smolvlm_vision"),
        text_config=hf.LlamaConfig(**_decoder(tokenizer)),
        image_token_id=processor.image_token_id,
        scale_factor=2,
        pad_token_id=tokenizer.pad_token_id,
    )
    return _finish(hf.SmolVLMForConditionalGeneration(config), tokenizer), processor


def idefics2() -> tuple[Any, Any]:
    tokenizer = _tokenizer(IDEFICS_TOKENS[:3], bos="<s>", eos="</s>", pad="<unk>")
    processor = hf.Idefics2Processor(
        hf.Idefics2ImageProcessor(size={"shortest_edge": 24, "longest_edge": 48}, do_image_splitting=False, **COLOURS),
        tokenizer,
        image_seq_len=4,
        chat_template=IDEFICS.replace("<|im_start|>", "<s>"),
    )
    config = hf.Idefics2Config(
        vision_config=_tower(model_type="idefics2_vision", image_size=48),
        perceiver_config={
            "resampler_n_latents": 4,
            "resampler_depth": 1,
            "resampler_n_heads": 2,
            "resampler_head_dim": 16,
            "num_key_value_heads": 1,
        },
        text_config=hf.MistralConfig(**_decoder(tokenizer, sliding_window=None)),
        image_token_id=processor.image_token_id,
    )
    model = _finish(hf.Idefics2ForConditionalGeneration(config), tokenizer)
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids("<end_of_utterance>")
    return model, processor


# -- Mistral, Aya -----------------------------------------------------------------------------------------------------------

MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST]' }}"
    "{% for c in m['content'] %}{{ '[IMG]' if c['type'] == 'image' else c['text'] }}{% endfor %}{{ '[/INST]' }}"
    "{% else %}{{ m['content'][0]['text'] + eos_token }}{% endif %}{% endfor %}"
)
AYA = (
    "<BOS_TOKEN>{% for m in messages %}"
    "{{ '<|START_OF_TURN_TOKEN|>' + ('<|USER_TOKEN|>' if m['role'] == 'user' else '<|CHATBOT_TOKEN|>') }}"
    "{% for c in m['content'] %}{{ '<image>' if c['type'] == 'image' else c['text'] }}{% endfor %}{{ '<|END_OF_TURN_TOKEN|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}"
)


def mistral3() -> tuple[Any, Any]:
    special = ["[INST]", "[/INST]", "[IMG]", "[IMG_BREAK]", "[IMG_END]"]
    tokenizer = _tokenizer(special, bos="<s>", eos="</s>", pad="<pad>")
    processor = hf.PixtralProcessor(
        hf.PixtralImageProcessor(size={"longest_edge": 48}, patch_size={"height": PATCH, "width": PATCH}, **COLOURS),
        tokenizer,
        patch_size=PATCH,
        spatial_merge_size=2,
        chat_template=MISTRAL,
    )
    config = hf.Mistral3Config(
        vision_config=hf.PixtralVisionConfig(**_tower(image_size=64, head_dim=16)),
        text_config=hf.MistralConfig(**_decoder(tokenizer, head_dim=16, sliding_window=None)),
        image_token_index=processor.image_token_id,
        spatial_merge_size=2,
    )
    return _finish(hf.Mistral3ForConditionalGeneration(config), tokenizer), processor


def aya_vision() -> tuple[Any, Any]:
    special = ["<image>", "<|IMG_PATCH|>", "<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_LINE_BREAK|>", "TILE", "TILE_GLOBAL"]
    turns = ["<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>"]
    tokenizer = _tokenizer([*special, *turns], bos="<BOS_TOKEN>", eos="<|END_OF_TURN_TOKEN|>", pad="<PAD>")
    processor = hf.AyaVisionProcessor(
        hf.GotOcr2ImageProcessor(size={"height": SIDE, "width": SIDE}, crop_to_patches=True, min_patches=1, max_patches=4, **COLOURS),
        tokenizer,
        patch_size=PATCH,
        img_size=SIDE,
        downsample_factor=2,
        chat_template=AYA,
    )
    config = hf.AyaVisionConfig(
        vision_config=hf.SiglipVisionConfig(**_tower(vision_use_head=False)),
        text_config=hf.Cohere2Config(**_decoder(tokenizer, sliding_window=64, layer_types=["sliding_attention", "full_attention"])),
        image_token_index=processor.image_token_id,
        alignment_intermediate_size=32,
    )
    return _finish(hf.AyaVisionForConditionalGeneration(config), tokenizer), processor


# -- Qwen-VL and what speaks like it ----------------------------------------------------------------------------------------


def _chat(image: str, system: str = "") -> str:
    return (
        (f"{{{{ '<|im_start|>system\n{system}<|im_end|>\n' }}}}" if system else "")
        + "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
        + f"{{% for c in m['content'] %}}{{{{ '{image}' if c['type'] == 'image' else c['text'] }}}}{{% endfor %}}"
        + "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )


def _chat_tokenizer(special: list[str], names: Mapping[str, str] | None = None) -> Any:
    turns = ["<|im_start|>", "<|im_end|>"]
    return _tokenizer([*turns, *special, *(names or {}).values()], eos="<|im_end|>", pad="<|endoftext|>", names=names)


def llava_onevision() -> tuple[Any, Any]:
    tokenizer = _chat_tokenizer([], {"image_token": "<image>", "video_token": "<video>"})
    pinpoints = [[SIDE, SIDE], [SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE]]
    size = {"height": SIDE, "width": SIDE}
    processor = hf.LlavaOnevisionProcessor(
        hf.LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=pinpoints, **COLOURS),
        tokenizer,
        hf.LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=_chat("<image>\\n"),
    )
    config = hf.LlavaOnevisionConfig(
        vision_config=hf.SiglipVisionConfig(**_tower(vision_use_head=False)),
        text_config=hf.Qwen2Config(**_decoder(tokenizer)),
        image_token_index=processor.image_token_id,
        video_token_index=processor.video_token_id,
        image_grid_pinpoints=pinpoints,
    )
    return _finish(hf.LlavaOnevisionForConditionalGeneration(config), tokenizer), processor


def _qwen(processor_class: Any, videos: Any, vision: dict[str, Any], config_class: Any, model_class: Any, **text: Any) -> tuple[Any, Any]:
    marks = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
    borders = {"vision_start_token": "<|vision_start|>", "vision_end_token": "<|vision_end|>"}
    tokenizer = _chat_tokenizer([], marks | borders)
    patches = {"patch_size": PATCH, "temporal_patch_size": 2, "merge_size": 2}
    sizes = {"size": {"shortest_edge": 16 * 16, "longest_edge": 48 * 48}}
    processor = processor_class(
        hf.Qwen2VLImageProcessor(**patches, **sizes, **COLOURS),
        tokenizer,
        videos(**patches),
        chat_template=_chat("<|vision_start|><|image_pad|><|vision_end|>", "You are a helpful assistant."),
    )
    of = tokenizer.convert_tokens_to_ids
    config = config_class(
        vision_config={"depth": 2, "num_heads": 2, "patch_size": PATCH, "spatial_merge_size": 2, "temporal_patch_size": 2, **vision},
        text_config=_decoder(tokenizer, rope_parameters={"rope_type": "default", "mrope_section": [4, 2, 2], "rope_theta": 1e4}, **text),
        **{f"{name}_id": of(token) for name, token in (marks | borders).items()},
    )
    return _finish(model_class(config), tokenizer), processor


def qwen2_vl() -> tuple[Any, Any]:
    vision = {"embed_dim": 32, "hidden_size": WIDTH, "mlp_ratio": 2}
    return _qwen(hf.Qwen2VLProcessor, hf.Qwen2VLVideoProcessor, vision, hf.Qwen2VLConfig, hf.Qwen2VLForConditionalGeneration)


def qwen2_5_vl() -> tuple[Any, Any]:
    width = {"hidden_size": 32, "intermediate_size": 64, "out_hidden_size": WIDTH}
    vision = {**width, "window_size": 4 * PATCH, "fullatt_block_indexes": [1]}
    return _qwen(hf.Qwen2_5_VLProcessor, hf.Qwen2VLVideoProcessor, vision, hf.Qwen2_5_VLConfig, hf.Qwen2_5_VLForConditionalGeneration)


def qwen3_vl() -> tuple[Any, Any]:
    width = {"hidden_size": 32, "intermediate_size": 64, "out_hidden_size": WIDTH}
    vision = {**width, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
    return _qwen(hf.Qwen3VLProcessor, hf.Qwen3VLVideoProcessor, vision, hf.Qwen3VLConfig, hf.Qwen3VLForConditionalGeneration)


def qwen3_5() -> tuple[Any, Any]:
    vision = {"hidden_size": 32, "intermediate_size": 64, "out_hidden_size": WIDTH, "num_position_embeddings": 16}
    linear = {"linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 2}
    text = {**linear, "head_dim": 16, "layer_types": ["linear_attention", "full_attention"]}
    classes = (hf.Qwen3_5Config, hf.Qwen3_5ForConditionalGeneration)
    return _qwen(hf.Qwen3VLProcessor, hf.Qwen3VLVideoProcessor, vision, *classes, **text)


def internvl() -> tuple[Any, Any]:
    names = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>", "video_token": "<video>"}
    tokenizer = _chat_tokenizer([], names)
    size = {"height": SIDE, "width": SIDE}
    processor = hf.InternVLProcessor(
        hf.GotOcr2ImageProcessor(size=size, crop_to_patches=True, min_patches=1, max_patches=4, **COLOURS),
        tokenizer,
        hf.InternVLVideoProcessor(size=size),
        image_seq_length=4,
        chat_template=_chat("<IMG_CONTEXT>\\n"),
    )
    config = hf.InternVLConfig(
        vision_config=hf.InternVLVisionConfig(**_tower(image_size=[SIDE, SIDE], patch_size=[PATCH, PATCH])),
        text_config=hf.Qwen2Config(**_decoder(tokenizer)),
        image_token_id=processor.image_token_id,
        image_seq_length=4,
    )
    return _finish(hf.InternVLForConditionalGeneration(config), tokenizer), processor


# -- cross-attention --------------------------------------------------------------------------------------------------------

LLAMA = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' }}"
    "{% for c in m['content'] %}{{ '<|image|>' if c['type'] == 'image' else c['text'] }}{% endfor %}{{ '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)


def mllama() -> tuple[Any, Any]:
    """Llama 3.2 Vision, which our code refuses."""
    special = ["<|image|>", "<|python_tag|>", "<|start_header_id|>", "<|end_header_id|>"]
    tokenizer = _tokenizer(special, bos="<|begin_of_text|>", eos="<|eot_id|>", pad="<|finetune_right_pad_id|>")
    processor = hf.MllamaProcessor(
        hf.MllamaImageProcessor(size={"height": SIDE, "width": SIDE}, max_image_tiles=2, **COLOURS), tokenizer, chat_template=LLAMA
    )
    vision = {"num_global_layers": 1, "attention_heads": 2, "vision_output_dim": 64, "max_num_tiles": 2, "intermediate_layers_indices": [0]}
    config = hf.MllamaConfig(
        vision_config=_tower(supported_aspect_ratios=[[1, 1], [1, 2], [2, 1]], **vision),
        text_config=_decoder(tokenizer, cross_attention_layers=[1]),
        image_token_index=tokenizer.convert_tokens_to_ids("<|image|>"),
    )
    return _finish(hf.MllamaForConditionalGeneration(config), tokenizer), processor


# -- the table ------------------------------------------------------------------------------------------------------------

NO_TEXT = "the processor refuses this row"
VIDEO = ("torchvision",)

FAMILIES = (
    Family("LLaVA-1.5", llava, end="</s>", layout=True),
    Family("a LLaVA that thinks", llava_that_thinks, end="</s>", layout=True),
    Family("LLaVA with a mixture of experts", llava_with_experts, end="</s>", layout=True, neurons=False),
    Family("Qwen2.5-VL", qwen2_5_vl, end="<|im_end|>", packages=VIDEO),
    Family("Qwen2-VL", qwen2_vl, end="<|im_end|>", packages=VIDEO),
    Family("Qwen3-VL", qwen3_vl, end="<|im_end|>", packages=VIDEO),
    Family("Qwen3.5", qwen3_5, end="<|im_end|>", packages=VIDEO),
    Family("Gemma-3", gemma3, end="<end_of_turn>", layout=True),
    Family("Gemma-4", gemma4, end="<turn|>", packages=VIDEO),
    Family("LLaVA-NeXT", llava_next, end="</s>"),
    Family("LLaVA-OneVision", llava_onevision, end="<|im_end|>", packages=VIDEO),
    Family("InternVL", internvl, end="<|im_end|>", packages=VIDEO),
    Family("SmolVLM", smolvlm, end="<end_of_utterance>", packages=(*VIDEO, "num2words")),
    Family("Idefics3", idefics3, end="<end_of_utterance>"),
    Family("Idefics2", idefics2, end="<end_of_utterance>"),
    Family("Mistral3", mistral3, end="</s>", packages=VIDEO, layout=True),
    Family("PaliGemma", paligemma, end="<eos>", layout=True, refuses={"text": NO_TEXT}),
    Family("Aya-Vision", aya_vision, end="<|END_OF_TURN_TOKEN|>"),
)


def missing(family: Family) -> list[str]:
    """Packages that the family's processor needs and that are not here."""
    return [name for name in family.packages if find_spec(name) is None]
