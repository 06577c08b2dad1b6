"""Files of a checkpoint or an adapter, read and checked before any library sees them.

What is refused here would end in a traceback, a hang, or in a model that is not the one on disk.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from peft import LoraConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from vgid.errors import ModelError
from vgid.models.checkpoints import TensorHeader, tensor_headers

MOST_JSON = 256 * 2**20
"""Bytes of a JSON file of a checkpoint, at most; the largest tokenizers take 35 MB."""
LARGEST = 2**31
"""Numbers in a configuration are smaller; the largest that are meant are limits of the context."""
MOST_SIDE = 8192
"""Pixels of a picture's side as a processor makes it, at most; models see some hundreds."""
DEEPEST = 50
"""Levels of a JSON file; configurations have five."""
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
"""File names of weights in pickle formats, which can run code when they are opened."""
INDEX = "model.safetensors.index.json"
WITH_BASE = "give the base as --model, and this folder with --adapter"
FEW_BITS = ("I8", "U8", "F8")
"""How the types of tensors in 8 bits begin, which have a scale of their own."""
SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.safetensors")
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
TEMPLATE = "chat_template.jinja"
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
READABLE_QUANTISATION = ("bitsandbytes",)
"""Methods of quantisation whose checkpoints are loaded, to ask them; the others need kernels that this package does not know."""
LORA_KEYS = {
    *("alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "corda_config", "ensure_weight_tying", "eva_config"),
    *("exclude_modules", "fan_in_fan_out", "inference_mode", "init_lora_weights", "layers_pattern", "layers_to_transform", "loftq_config"),
    *("lora_alpha", "lora_bias", "lora_dropout", "megatron_core", "modules_to_save", "peft_type", "peft_version", "r", "rank_pattern"),
    *("revision", "runtime_config", "target_modules", "task_type", "trainable_token_indices", "use_dora", "use_rslora", "lora_ga_config"),
}
"""Settings of an adapter that loading and merging follow. PEFT has more, which change what the adapter computes; they are refused."""


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a checkpoint's file.

    Raises:
        ModelError: the file is too large, is not UTF-8 or JSON, is nested too deep, or holds no object.
    """
    _check_plain(path)
    try:
        if path.stat().st_size > MOST_JSON:
            raise ModelError("the file is too large", where=path, expected=f"at most {MOST_JSON >> 20} MiB", got="more")
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            "the file cannot be read", where=path, expected="a JSON object", got=type(error).__name__, fix="copy the file anew"
        ) from None
    if not isinstance(content, dict):
        raise ModelError("the file is not a JSON object", where=path, expected="an object", got=type(content).__name__)
    return content


def _check_plain(path: Path) -> None:
    """A library takes a folder, a pipe or a link to nothing for a file that is not there, and goes on with defaults.

    Raises:
        ModelError: the path is one of these.
    """
    if not path.is_file():
        raise ModelError(
            "not a plain file",
            where=path,
            expected="a file",
            got="a folder, a special file, or a link to nothing",
            fix="copy the file anew",
        )


def is_adapter(path: str | Path) -> bool:
    """Return whether a folder holds an adapter."""
    return (Path(path) / ADAPTER_CONFIG).is_file()


def base_of_adapter(path: Path) -> str:
    """Return the folder or hub id of the model that an adapter belongs to.

    Raises:
        ModelError: the adapter's configuration names none, or one that is not there.
    """
    base = check_adapter(path).get("base_model_name_or_path")
    if not base:
        raise ModelError(
            "the adapter does not name its base",
            where=path / ADAPTER_CONFIG,
            expected="base_model_name_or_path",
            got="none",
            fix=WITH_BASE,
        )
    base = str(base)
    if not Path(base).is_dir() and (base.count("/") != 1 or base.startswith((".", "/", "~"))):
        where, expected = path / ADAPTER_CONFIG, "a folder, or an id on the hub"
        raise ModelError("the adapter's base is not there", where=where, expected=expected, got=base, fix=WITH_BASE)
    return base


def check_checkpoint(path: Path, *, trusted: bool) -> None:
    """Check the files of a model's folder.

    Args:
        path: the folder.
        trusted: whether code that comes with the checkpoint may run.

    Raises:
        ModelError: a file is missing, truncated, or not what its name says; weights are in a pickle format or quantised by a method that
            is not supported; or the layout is the one of the original LLaVA code.
    """
    if not (path / "config.json").is_file():
        below = sorted(file.parent.name for name in ("config.json", ADAPTER_CONFIG) for file in path.glob(f"*/{name}"))
        fix = f"give the folder itself: {', '.join(below[:5])}" if below else "give the folder of a checkpoint"
        raise ModelError("the folder holds no model", where=path, expected="config.json", got="none", fix=fix)
    if is_adapter(path):
        raise ModelError(
            "the folder holds a model and an adapter",
            where=path,
            expected="one of the two",
            got=f"config.json and {ADAPTER_CONFIG}",
            fix="move the adapter's files to a folder of their own, and give that with --adapter, or as --model",
        )
    config = read_json(path / "config.json")
    _check_layout(config, path)
    kind = config["model_type"]
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        raise ModelError("the model takes no pictures", where=path, expected="a vision-language model", got=f"a language model, {kind}")
    check_processor_files(path)
    headers = _check_weights(path)
    if quantisation_of(config) is None and any(header.dtype.startswith(FEW_BITS) and len(header.shape) > 1 for header in headers.values()):
        raise quantised("an unknown method, in 8 bits", path)
    _check_numbers(config, path / "config.json", len(headers))
    if not trusted:
        _check_kernels(config, path / "config.json")


def check_processor_files(path: Path) -> None:
    """Check the JSON files of a processor.

    Raises:
        ModelError: there is none, or one cannot be read.
    """
    if not any((path / name).is_file() for name in PROCESSOR_FILES):
        raise ModelError(
            "the model folder has no processor",
            where=path,
            expected="processor_config.json or preprocessor_config.json, and a tokenizer",
            got="none",
            fix="copy the processor files of the original model into the folder",
        )
    names = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.json")
    for name in (*PROCESSOR_FILES, *names, "generation_config.json", "video_preprocessor_config.json"):
        if os.path.lexists(path / name):
            found = read_json(path / name)
            if name in PROCESSOR_FILES:
                _check_picture_size(found, path / name)
    if os.path.lexists(path / TEMPLATE):
        _check_plain(path / TEMPLATE)


def _check_picture_size(config: Mapping[str, Any], place: Path) -> None:
    """Raises:
    ModelError: pictures would be made so large that one of them takes gigabytes.
    """
    for name, value in _values(config, place):
        if name.rpartition(".")[2] in ("height", "width") and isinstance(value, int | float) and value > MOST_SIDE:
            raise ModelError("pictures would be made too large", where=place, expected=f"{name} of at most {MOST_SIDE}", got=str(value))


def _check_layout(config: Mapping[str, Any], path: Path) -> None:
    place = path / "config.json"
    if not isinstance(config.get("model_type"), str):
        found = type(config.get("model_type")).__name__
        raise ModelError("the configuration names no kind of model", where=place, expected="model_type: a text", got=found)
    _check_parts(config, place)
    if "mm_vision_tower" in config or any(str(name).startswith("LlavaLlama") for name in config.get("architectures") or ()):
        raise ModelError(
            "the checkpoint has the layout of the original LLaVA code",
            where=place,
            expected="the layout of transformers",
            got="mm_vision_tower",
            fix="take the converted checkpoint, such as llava-hf/llava-1.5-7b-hf, or convert it with transformers' "
            "convert_llava_weights_to_hf.py",
        )
    method = quantisation_of(config)
    if method is not None and method not in READABLE_QUANTISATION:
        raise quantised(method, place)


def _parts(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The configuration, and all that are nested in it."""
    waiting = [config]
    while waiting:
        part = waiting.pop()
        yield part
        waiting += [value for value in part.values() if isinstance(value, Mapping)]


def _check_parts(config: Mapping[str, Any], place: Path) -> None:
    """Libraries read nested configurations and names of classes without a look at their types.

    Raises:
        ModelError: one has another type.
    """
    for part in _parts(config):
        for key, value in part.items():
            # Some models have one configuration for each layer, in a list.
            nested = value if isinstance(value, list) else [value]
            if key.endswith("_config") and not all(each is None or isinstance(each, Mapping) for each in nested):
                raise ModelError("a nested configuration has another type", where=place, expected=f"{key}: an object", got=_kind(value))
    names = config.get("architectures") or []
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise ModelError("a setting has another type", where=place, expected="architectures: a list of texts", got=_kind(names))


def _kind(value: Any) -> str:
    return "a list of other values" if isinstance(value, list) else type(value).__name__


def quantised(method: str, place: str | Path) -> ModelError:
    """The error about weights that are quantised by a method that is not supported."""
    return ModelError(
        f"the weights are quantised by {method}",
        where=place,
        expected="weights in float32, bfloat16 or float16",
        got=method,
        fix="take the checkpoint that it was made from; adapter.quantise=4bit holds that in 4 bits during training",
    )


def quantisation_of(config: Mapping[str, Any]) -> str | None:
    """Name the method by which a checkpoint's weights are quantised, or return None.

    Args:
        config: content of its `config.json`; parts of it may be quantised alone.
    """
    found = next((part["quantization_config"] for part in _parts(config) if part.get("quantization_config")), None)
    if not found:
        return None
    return str(found.get("quant_method") or "an unknown method") if isinstance(found, Mapping) else "an unknown method"


def _check_numbers(config: Mapping[str, Any], place: Path, tensors: int) -> None:
    """A model is built before its weights are read, so a number that is out of range would take all memory.

    Raises:
        ModelError: there is one, or more layers than the checkpoint has tensors.
    """
    for name, value in _values(config, place):
        key = name.rpartition(".")[2]
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= LARGEST and "token_id" not in key:
            raise ModelError("a number in the configuration is out of range", where=place, expected=f"{name} below 2^31", got="more")
        # `max_window_layers` of Qwen's models says from which layer on windows are used; it may lie beyond the last.
        counts_layers = re.search(r"(^|_)(layers|depth)$", key) and key != "max_window_layers"
        if counts_layers and isinstance(value, int) and value > tensors:
            raise ModelError(
                "the configuration names more layers than there are tensors",
                where=place,
                expected=f"{name} of at most {tensors}",
                got=str(value),
                fix="copy config.json and the weights from the same checkpoint",
            )


def _check_kernels(config: Mapping[str, Any], place: Path) -> None:
    """Raises:
    ModelError: the configuration names code on the hub for attention or experts.
    """
    for name, value in _values(config, place):
        key = name.rpartition(".")[2]
        if isinstance(value, str) and "/" in value and ("implementation" in key or "kernel" in key):
            raise needs_code(place.parent, name)


def needs_code(path: str | Path, found: str) -> ModelError:
    """The error about a checkpoint that needs code of its own."""
    return ModelError(
        "the checkpoint needs code that comes with it, which is not run",
        where=path,
        expected="a model, processor and tokenizer that transformers knows",
        got=found,
        fix="take a checkpoint that is converted to transformers, or read that code and add --trust-remote-code",
    )


def _values(content: Any, place: Path, name: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    if depth > DEEPEST:
        raise ModelError("the file is nested too deep", where=place, expected=f"at most {DEEPEST} levels", got="more")
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from _values(value, place, f"{name}.{key}" if name else str(key), depth + 1)
    elif isinstance(content, Sequence) and not isinstance(content, str):
        for value in content:
            yield from _values(value, place, name, depth + 1)
    else:
        yield name, content


# -- weights --------------------------------------------------------------------------------------------------------------


def _check_weights(path: Path) -> dict[str, TensorHeader]:
    """Check that every file of weights is there and whole, and return the tensors' headers.

    Raises:
        ModelError: one is not.
    """
    found = sorted(file.name for file in path.glob("*.safetensors"))
    if not found:
        pickled = sorted(file.name for pattern in PICKLES for file in path.glob(pattern))
        if pickled:
            raise ModelError(
                "the weights are in a pickle format, which can run code when it is opened",
                where=path,
                expected="*.safetensors",
                got=", ".join(pickled),
                fix="convert them with save_pretrained in a place you trust",
            )
        raise ModelError("the folder holds no weights", where=path, expected="*.safetensors", got="none", fix="copy the weights there")
    missing = sorted(set(_expected_files(path, found)) - set(found))
    if missing:
        raise ModelError(
            "a file of weights is missing",
            where=path,
            expected=", ".join(missing[:5]),
            got=f"{len(found)} of {len(found) + len(missing)} files",
            fix="copy all files of the checkpoint",
        )
    headers = tensor_headers(path)
    if not headers:
        raise ModelError("the files of weights hold no tensors", where=path, expected="the tensors of a model", got="none")
    if (path / INDEX).is_file():
        lost = sorted(set(_weight_map(path)) - set(headers))
        if lost:
            raise ModelError(
                "the index names tensors that no file holds",
                where=path / INDEX,
                expected=f"{lost[0]}, for example",
                got=f"{len(lost)} that are missing",
                fix="copy index and weights from the same checkpoint",
            )
    return headers


def weight_files(path: Path) -> set[str]:
    """Names of the files that a checkpoint's weights are read from, and of their index."""
    if (path / "model.safetensors").is_file():
        return {"model.safetensors"}
    return {*_expected_files(path, sorted(file.name for file in path.glob("*.safetensors"))), INDEX}


def _expected_files(path: Path, found: Sequence[str]) -> list[str]:
    if (path / "model.safetensors").is_file():
        return []
    if (path / INDEX).is_file():
        return sorted(set(_weight_map(path).values()))
    shards = [match for name in found if (match := SHARD.fullmatch(name))]
    if shards:
        return [
            f"{prefix}-{n + 1:05d}-of-{count}.safetensors" for prefix, count in {(m[1], m[3]) for m in shards} for n in range(int(count))
        ]
    return ["model.safetensors"]


def _weight_map(path: Path) -> dict[str, str]:
    names = read_json(path / INDEX).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) and Path(name).name == name for name in names.values()):
        raise ModelError(
            "the index of the weights cannot be used", where=path / INDEX, expected="weight_map: names of tensors to names of files"
        )
    return names


def shards_without_index(path: Path) -> dict[str, str] | None:
    """Return the name of the file of each tensor, for shards that have no index, so that transformers would not find them; else None."""
    if (path / "model.safetensors").is_file() or (path / INDEX).is_file():
        return None
    return {name: file.name for file in sorted(path.glob("*.safetensors")) for name in tensor_headers(path, file.name)}


# -- adapters -------------------------------------------------------------------------------------------------------------


def check_adapter(path: Path) -> dict[str, Any]:
    """Check the files of an adapter.

    Args:
        path: the adapter's folder.

    Returns:
        Its configuration.

    Raises:
        ModelError: a file is missing or truncated; it is not a LoRA adapter, or has settings that are not supported; a value has another
            type; or the rank is not that of its tensors.
    """
    if not is_adapter(path):
        raise ModelError("the folder holds no adapter", where=path, expected=ADAPTER_CONFIG, fix="check the path")
    place = path / ADAPTER_CONFIG
    config = read_json(place)
    kind = config.get("peft_type")
    if kind != "LORA":
        got = kind if isinstance(kind, str) else type(kind).__name__
        raise ModelError(
            "this kind of adapter is not supported",
            where=place,
            expected="peft_type: LORA (with DoRA, rsLoRA, modules_to_save, rank patterns, biases or embeddings)",
            got=got,
            fix="merge it into its base with PEFT, and give the merged model",
        )
    usual = LoraConfig().to_dict()
    other = sorted(key for key, value in config.items() if value and key not in LORA_KEYS and value != usual.get(key))
    if other:
        raise ModelError(
            "the adapter has settings that are not supported",
            where=place,
            expected="a LoRA adapter whose update does not depend on the input",
            got=", ".join(other),
            fix="merge it into its base with PEFT, and give the merged model",
        )
    _check_types(config, place)
    if not (path / ADAPTER_WEIGHTS).is_file():
        pickled = sorted(file.name for pattern in PICKLES for file in path.glob(f"adapter_{pattern}"))
        raise ModelError(
            "the adapter has no weights",
            where=path,
            expected=ADAPTER_WEIGHTS,
            got=", ".join(pickled) or "none",
            fix="save it as safetensors",
        )
    _check_rank(config, tensor_headers(path, ADAPTER_WEIGHTS), place)
    return config


def _check_types(config: Mapping[str, Any], place: Path) -> None:
    number, texts, text = (int, float), list, str
    kinds: dict[str, tuple[type, ...]] = {
        "r": (int,),
        "lora_alpha": number,
        "lora_dropout": number,
        "target_modules": (texts, text, type(None)),
        "exclude_modules": (texts, text, type(None)),
        "modules_to_save": (texts, type(None)),
        "rank_pattern": (dict, type(None)),
        "alpha_pattern": (dict, type(None)),
        "base_model_name_or_path": (text, type(None)),
        "bias": (text,),
        "layers_to_transform": (texts, int, type(None)),
        "layers_pattern": (texts, text, type(None)),
        "trainable_token_indices": (texts, dict, type(None)),
        "init_lora_weights": (text, bool),
    }
    for key, kind in kinds.items():
        value = config.get(key)
        wrong = key in config and (not isinstance(value, kind) or (isinstance(value, bool) and bool not in kind))
        if isinstance(value, list) and key != "layers_to_transform" and key != "trainable_token_indices":
            wrong = wrong or not all(isinstance(each, str) for each in value)
        if isinstance(value, dict) and key.endswith("_pattern"):
            wrong = wrong or not all(isinstance(each, number) and not isinstance(each, bool) for each in value.values())
        if wrong:
            raise ModelError(
                "a setting of the adapter has another type",
                where=place,
                expected=f"{key}: {' or '.join('null' if each is type(None) else each.__name__ for each in kind)}",
                got=type(value).__name__,
            )


def _check_rank(config: Mapping[str, Any], headers: Mapping[str, TensorHeader], place: Path) -> None:
    """Modules are built by the rank of the configuration, so one that the tensors do not have would only take memory.

    Raises:
        ModelError: no tensor has a rank that the configuration names.
    """
    found = {header.shape[0] for name, header in headers.items() if "lora_A" in name and header.shape}
    found |= {header.shape[0] for name, header in headers.items() if "lora_embedding_A" in name and header.shape}
    named = {int(config.get("r", 8)), *(int(rank) for rank in (config.get("rank_pattern") or {}).values())}
    if found and not (max(named) <= max(found) and min(named) > 0):
        raise ModelError(
            "the adapter's rank is not that of its tensors",
            where=place,
            expected=f"ranks of {', '.join(map(str, sorted(found)))}",
            got=", ".join(map(str, sorted(named))),
            fix="copy configuration and weights from the same adapter",
        )
