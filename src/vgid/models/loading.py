"""Load models from a folder or the hub, after checking that they can be used."""

from __future__ import annotations

import json
import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, GenerationConfig

from vgid import processes
from vgid.data.batching import Encoder
from vgid.data.picture_size import PictureSize
from vgid.errors import ModelError, VgidError, first_line
from vgid.limits import CallError, OverLimitError, limited
from vgid.models.checkpoints import folder_of, tensor_headers, unbuilt_tensors
from vgid.models.file_checks import (
    INDEX,
    PROCESSOR_FILES,
    READABLE_QUANTISATION,
    base_of_adapter,
    check_adapter,
    check_checkpoint,
    check_processor_files,
    is_adapter,
    needs_code,
    quantisation_of,
    quantised,
    read_json,
    shards_without_index,
)
from vgid.models.foreign_adapters import fold_adapter, is_plain, put_adapter
from vgid.models.quantisation import disable_weight_repacking, few_bits, is_quantised
from vgid.models.structure import base_of

TRIALS = ("word " * 200, *(each * 1000 for each in ("a", "1", " ", "!", "é", "aA1 ", "\n")))
"""Texts that a tokenizer must encode before it is used."""
MOST_BUILT = 2.0
"""Parameters of a model, of the numbers in its files, at most: a head that shares its weights may be built twice. Chosen by hand."""
LAYER = re.compile(r"(.+)\.layers\.(\d+)\.")
log = logging.getLogger("vgid")
_trusted = False


def trust_remote_code(trusted: bool = True) -> None:
    """Let code that comes with checkpoints run in this process from now on, as `--trust-remote-code` does; without this it never runs."""
    global _trusted
    _trusted = trusted


@dataclass(frozen=True)
class LoadedModel:
    """A model with its processor.

    Attributes:
        model: the transformers model, with or without PEFT's wrapper.
        processor: its processor.
        path: folder or hub id that both were loaded from.
        asks: encoder of a method that changes questions at inference; None for plain questions.
        unbuilt: names of tensors in the checkpoint that the model class does not build, such as heads for multi-token prediction.
        size: limits of the size at which pictures are shown to the model; None for the processor's own.
        prompt: form of a row in place of the chat template; None for the chat template.
    """

    model: Any
    processor: Any
    path: str
    asks: Encoder | None = None
    unbuilt: tuple[str, ...] = ()
    size: PictureSize | None = None
    prompt: str | None = None

    @cached_property
    def encoder(self) -> Encoder:
        """Encodes examples for this model, and caches their processed pictures."""
        return self.asks or Encoder(self.processor, size=self.size, prompt=self.prompt)


def load_model(
    path: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
    adapter: str | Path | None = None,
    quantise: Literal["4bit"] | None = None,
    trust_remote_code: bool | None = None,
    shard: bool = False,
) -> LoadedModel:
    """Load an image-text-to-text model.

    Args:
        path: folder, or id on the hub such as `owner/name`; the folder of an adapter stands for its base with the adapter folded in.
        device: device of the weights; None for a GPU if there is one (each process of a run uses its own), else the CPU.
        dtype: precision of the weights; None for the checkpoint's own on a GPU and float32 on a CPU.
        adapter: folder of a LoRA adapter to put on the model; a processor beside it is used in place of the model's. None for none.
        quantise: `4bit` holds the decoder in 4 bits, for training an adapter on it; None for full precision.
        trust_remote_code: whether code that comes with the checkpoint may run; None for what `trust_remote_code` was set to, else no.
        shard: hold the parameters sharded over the processes that a launcher started (FSDP2). Each process reads only its own shards, so
            the model may be larger than a device; all processes must load it, and use it, together.

    Returns:
        The model in evaluation mode, with its processor.

    Raises:
        ModelError: there is no such model or no processor beside it, a file cannot be read, weights are in a pickle format, quantised or
            missing, the model takes no images or needs code of its own, the adapter belongs to another model, or a model in 4 bits, an
            adapter that stands for its base, or one that is not plain LoRA is to be sharded.
    """
    shard = shard and processes.count() > 1
    path, trusted = str(path), _trusted if trust_remote_code is None else trust_remote_code
    check_model_path(path)
    if is_adapter(path) and not (Path(path) / "config.json").is_file():
        if shard:
            raise _not_sharded("an adapter that stands for its base", path)
        return _with_adapter(path, device, dtype, adapter, quantise, trusted)
    unindexed = None
    if Path(path).is_dir():
        check_checkpoint(Path(path), trusted=trusted)
        unindexed = shards_without_index(Path(path))
    device = torch.device(device or processes.default_device())
    dtype = dtype or ("auto" if device.type == "cuda" else torch.float32)
    processor = _processor_beside(adapter, trusted) or load_processor(path, trusted=trusted)
    with _reading(path, "an image-text-to-text checkpoint"):
        config = AutoConfig.from_pretrained(path, trust_remote_code=trusted)
    _check_readable(config, path, quantise)
    if shard and (quantise or quantisation_of(config.to_dict())):
        raise _not_sharded("a model in 4 bits", path)
    if shard and adapter is not None:
        check_adapter(Path(adapter))
        if not is_plain(Path(adapter)):
            raise _not_sharded("an adapter of more than LoRA on linear layers", str(adapter))
    if Path(path).is_dir() and not quantisation_of(config.to_dict()):
        _check_fits(config, Path(path), trusted)
    options: dict[str, Any] = few_bits(path, device, trusted=trusted) if quantise else _over_processes() if shard else {}
    with _reading(path, "an image-text-to-text checkpoint"), _indexed(path, unindexed) as folder:
        model, info = AutoModelForImageTextToText.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, output_loading_info=True, trust_remote_code=trusted, **options
        )
    model.name_or_path = path
    if info["missing_keys"]:
        raise ModelError(
            "the checkpoint lacks weights, which would stay random",
            where=path,
            expected="all weights of the model",
            got=f"none for {len(info['missing_keys'])} of them, {sorted(info['missing_keys'])[0]} for example",
            fix="copy all files of the checkpoint, or report this with the model's name",
        )
    if shard:
        processes.after_loading(model)
    if adapter is not None:
        model = put_adapter(model, Path(adapter))
    complete_processor(processor, base_of(model))
    if not shard:
        model = disable_weight_repacking(model) if is_quantised(base_of(model)) else model.to(device)
    _check_layers(model, path, info["unexpected_keys"])
    unused = _unbuilt(model, path, info["unexpected_keys"])
    return LoadedModel(model.eval(), processor, path, unbuilt=unused)


def _check_fits(config: Any, path: Path, trusted: bool) -> None:
    """Build the model without memory: what its configuration leaves out has defaults, which may be those of a model of billions.

    Raises:
        ModelError: it has far more parameters than the files have numbers.
    """
    with _reading(str(path), "an image-text-to-text checkpoint"), torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config, trust_remote_code=trusted)
    built, stored = sum(each.numel() for each in model.parameters()), sum(prod(each.shape) for each in tensor_headers(path).values())
    if built > MOST_BUILT * stored:
        raise ModelError(
            "the configuration describes a larger model than the weights",
            where=path / "config.json",
            expected=f"about {stored:,} parameters, as in the files",
            got=f"{built:,}",
            fix="copy config.json and the weights from the same checkpoint",
        )


def _check_layers(model: Any, path: str, unexpected: Iterable[str]) -> None:
    """One layer more than are built may be for predicting several tokens; with several, the configuration is that of another model.

    Raises:
        ModelError: the files have several layers that no part of the model has.
    """
    built, lost = {name.rpartition(".")[0] for name in base_of(model).state_dict()}, defaultdict[str, set[int]](set)
    for name in unexpected:
        found = LAYER.match(name)
        if found and any(each.startswith(found[1]) for each in built):
            lost[found[1]].add(int(found[2]))
    for part, layers in lost.items():
        if len(layers) > 1:
            raise ModelError(
                "the configuration names fewer layers than there are in the weights",
                where=path,
                expected=f"{max(layers) + 1} layers of {part}",
                got=str(min(layers)),
                fix="copy config.json and the weights from the same checkpoint",
            )


def load_encoder(path: str | Path, size: PictureSize | None = None) -> Encoder:
    """Load what encodes rows for a model, completed as with the model, and none of the model's weights.

    Args:
        path: folder, or id on the hub; an adapter that stands for its base is loaded whole.
        size: limits of a picture's size; None for the processor's own.

    Returns:
        The encoder.

    Raises:
        ModelError: as `load_model`.
    """
    path, trusted = str(path), _trusted
    check_model_path(path)
    if is_adapter(path) and not (Path(path) / "config.json").is_file():
        return Encoder(load_model(path).processor, size=size)
    if Path(path).is_dir():
        check_checkpoint(Path(path), trusted=trusted)
    processor = load_processor(path, trusted=trusted)
    with _reading(path, "an image-text-to-text checkpoint"):
        config = AutoConfig.from_pretrained(path, trust_remote_code=trusted)
        with torch.device("meta"):
            model = AutoModelForImageTextToText.from_config(config, trust_remote_code=trusted)
        if (folder := folder_of(path)) and (folder / "generation_config.json").is_file():
            model.generation_config = GenerationConfig.from_pretrained(folder)
    model.name_or_path = path
    complete_processor(processor, model)
    return Encoder(processor, size=size)


def _over_processes() -> dict[str, Any]:
    """Options of `from_pretrained` for shards: transformers builds the model without weights, and each process reads its own."""
    from transformers.distributed import DistributedConfig

    # It warns of rules for parts that a model does not have.
    logging.getLogger("transformers.distributed").setLevel(logging.ERROR)
    return {"distributed_config": DistributedConfig(fsdp_size=processes.count())}


def _not_sharded(what: str, path: str) -> ModelError:
    return ModelError(
        f"{what} cannot be sharded over processes",
        where=path,
        expected="a model in full precision, and plain LoRA if an adapter at all",
        got=f"{processes.count()} processes that are to share it",
        fix="use one process, or adapter.quantise=null; merge an adapter with vgid export --merge, and take the folder that it writes",
    )


def _with_adapter(
    path: str, device: Any, dtype: Any, adapter: str | Path | None, quantise: Literal["4bit"] | None, trusted: bool
) -> LoadedModel:
    """Load an adapter's base, fold the adapter into it, and take the adapter's processor where it has one of its own."""
    base = base_of_adapter(Path(path))
    if quantise:
        raise ModelError(
            "an adapter is not folded into a base in 4 bits",
            where=path,
            expected="a plain checkpoint",
            got="an adapter",
            fix=f"vgid export --merge --model {base} --adapter {path} --out FOLDER, and take FOLDER as the model",
        )
    if is_adapter(base):
        raise ModelError("the adapter belongs to another adapter", where=path, expected="a model", got=base, fix="merge them one by one")
    log.info("%s is an adapter: it is folded into its base, %s", path, base)
    below = load_model(base, device=device, dtype=dtype, trust_remote_code=trusted)
    model = fold_adapter(put_adapter(below.model, Path(path)))
    model.name_or_path = path
    processor = _processor_beside(adapter, trusted) or _processor_beside(path, trusted) or below.processor
    if adapter is not None:
        model = put_adapter(model, Path(adapter))
    complete_processor(processor, base_of(model))
    return LoadedModel(model.eval(), processor, path, unbuilt=below.unbuilt)


def _processor_beside(adapter: str | Path | None, trusted: bool) -> Any:
    """The processor in an adapter's folder, which may have tokens that its base's does not; None where it is not whole or not there."""
    if adapter is None or not (Path(adapter) / "tokenizer_config.json").is_file():
        return None
    if not any((Path(adapter) / name).is_file() for name in PROCESSOR_FILES):
        return None
    check_processor_files(Path(adapter))
    return load_processor(str(adapter), trusted=trusted)


def _unbuilt(model: Any, path: str, unexpected: Iterable[str]) -> tuple[str, ...]:
    folder = folder_of(path)
    return tuple(unbuilt_tensors(base_of(model), tensor_headers(folder), unexpected)) if folder else tuple(sorted(unexpected))


def check_model_path(path: str) -> None:
    """Make sure, without loading anything, that a path may be a model's.

    Raises:
        ModelError: it is neither a folder nor written like an id on the hub.
    """
    if not Path(path).is_dir() and (Path(path).exists() or path.count("/") != 1 or path.startswith((".", "/", "~"))):
        raise ModelError(
            "no such model folder", where=path, expected="a folder, or an id on the hub such as owner/name", fix="check the path"
        )


def _check_readable(config: Any, path: str, quantise: str | None) -> None:
    """Check the quantisation that the configuration names, as the library has read it, so that models from the hub are checked too.

    Raises:
        ModelError: the weights are quantised in a way that is not supported or not installed, or are to be quantised once more.
    """
    method = quantisation_of(config.to_dict())
    if method is not None and method not in READABLE_QUANTISATION:
        raise quantised(method, path)
    if method is not None and quantise:
        raise ModelError(
            "the weights are quantised already",
            where=path,
            expected="weights in full precision",
            got=method,
            fix="leave adapter.quantise out to ask this model; train on the checkpoint that it was made from",
        )
    if method is not None and find_spec("bitsandbytes") is None:
        raise ModelError(
            "the weights are quantised by a package that is not installed",
            where=path,
            expected="bitsandbytes",
            fix='pip install "vgid[quant]"',
        )


@contextmanager
def _reading(path: str, expected: str) -> Iterator[None]:
    """Within the `with` statement, turn whatever a library raises on the files of a checkpoint into one clear error.

    Raises:
        ModelError: something was raised, except a lack of memory and errors of ours.
    """
    try:
        yield
    except (VgidError, MemoryError, torch.OutOfMemoryError):
        raise
    except ImportError as error:
        package = _missing_package(error)
        raise ModelError(
            "the model needs a package that is not installed",
            where=path,
            expected=package,
            got=first_line(error),
            fix=f"pip install {package}" if package else "install it",
        ) from error
    except Exception as error:
        raise _explained(error, path, expected) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of a library in Rust, such as tokenizers
            raise
        raise ModelError("a file of the model cannot be read", where=path, expected=expected, got="an error inside tokenizers") from None


def _explained(error: Exception, path: str, expected: str) -> ModelError:
    text = str(error)
    if "trust_remote_code" in text or "custom code" in text:
        return needs_code(path, "code in the checkpoint (auto_map)")
    return ModelError("the model cannot be loaded", where=path, expected=expected, got=first_line(error))


@contextmanager
def _indexed(path: str, files: Mapping[str, str] | None) -> Iterator[str]:
    """Give the folder, or for shards without an index a temporary one with an index and links to the files."""
    if files is None:
        yield path
        return
    log.warning("%s has several files of weights and no index; all of them are read", path)
    with TemporaryDirectory(prefix="vgid-index-") as folder:
        for file in Path(path).iterdir():
            (Path(folder) / file.name).symlink_to(file.resolve())
        index = {"metadata": {}, "weight_map": dict(files)}
        (Path(folder) / INDEX).write_text(json.dumps(index), "utf-8")
        yield folder


def load_processor(path: str, *, trusted: bool = False) -> Any:
    """Load a model's processor.

    Args:
        path: folder or hub id of the model.
        trusted: whether code that comes with it may run.

    Returns:
        The processor, with tokenizer and image processor.

    Raises:
        ModelError: it cannot be loaded, takes no images, or its tokenizer does not end on some texts.
    """
    with _reading(path, "processor and tokenizer files"):
        processor = AutoProcessor.from_pretrained(path, trust_remote_code=trusted)
    if not hasattr(processor, "tokenizer") or not hasattr(processor, "image_processor"):
        if _names_code(path):
            raise needs_code(path, f"{type(processor).__name__} alone, and code for the processor (auto_map)")
        raise ModelError(
            "the model takes no images and text",
            where=path,
            expected="a processor with tokenizer and image processor",
            got=type(processor).__name__,
        )
    _check_tokenizer(processor.tokenizer, path)
    return processor


def refuse_code(path: str) -> None:
    """Refuse a checkpoint that names code of its own, for libraries that would run it unasked.

    Raises:
        ModelError: it names code, and `trust_remote_code` was not called.
    """
    if not _trusted and _names_code(path):
        raise needs_code(path, "code for the model or its processor (auto_map)")


def _names_code(path: str) -> bool:
    folder = folder_of(path)
    names = (*PROCESSOR_FILES, "tokenizer_config.json", "config.json")
    return folder is not None and any("auto_map" in read_json(folder / name) for name in names if (folder / name).is_file())


_tried = {""}
"""Patterns of tokenizers that were tried in this process."""


def _patterns(tokenizer: Any) -> str:
    """What in a tokenizer can take long: the regular expressions in front of its vocabulary, as JSON; "" where there are none."""
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is None:
        return type(tokenizer).__name__
    parts = [each.__getstate__() for each in (fast.normalizer, fast.pre_tokenizer, fast.decoder) if each is not None]
    return "".join(part.decode() for part in parts if b"Regex" in part)


def _check_tokenizer(tokenizer: Any, path: str) -> None:
    """Encode trial texts in a worker: a tokenizer's file holds patterns, and some do not end.

    Raises:
        ModelError: it does not end, or fails.
    """
    patterns = _patterns(tokenizer)
    if patterns in _tried:
        return

    def tried() -> None:
        for text in TRIALS:
            tokenizer.decode(tokenizer(text, verbose=False)["input_ids"])

    try:
        limited(tried)
        _tried.add(patterns)
    except (OverLimitError, CallError) as error:
        raise ModelError(
            "the tokenizer cannot encode a text",
            where=path,
            expected="a tokenizer that encodes any text",
            got=str(error),
            fix="copy the tokenizer's files anew from the model's publisher",
        ) from None


def complete_processor(processor: Any, model: Any) -> None:
    """Fill in what older checkpoints leave to the model's configuration, and say so: patch size, end of sequence, padding.

    Args:
        processor: the processor, changed in place.
        model: the model, whose configuration is read.

    Raises:
        ModelError: nothing says where a text ends, the tokenizer has more tokens than the model, or another token stands for a picture.
    """
    config, tokenizer, filled = model.config, processor.tokenizer, []
    vision = getattr(config, "vision_config", None)
    patch = getattr(vision, "patch_size", None)
    if hasattr(processor, "patch_size") and processor.patch_size is None and patch:
        processor.patch_size = patch
        filled.append("patch_size")
    if hasattr(processor, "vision_feature_select_strategy") and processor.vision_feature_select_strategy is None:
        processor.vision_feature_select_strategy = getattr(config, "vision_feature_select_strategy", None)
        if hasattr(processor, "num_additional_image_tokens"):  # the class token of CLIP, which old processors did not count
            processor.num_additional_image_tokens = int("clip" in str(getattr(vision, "model_type", "")) or 0)
        filled.append("vision_feature_select_strategy")
    if tokenizer.eos_token is None:
        named = [model.generation_config.eos_token_id, config.get_text_config().eos_token_id]
        ends = [each[0] if isinstance(each, list) and each else each for each in named]
        end = next((each for each in ends if isinstance(each, int)), None)
        if end is None:
            raise ModelError(
                "nothing says with which token a text ends",
                where=model.name_or_path,
                expected="eos_token in tokenizer_config.json, or eos_token_id in generation_config.json",
                got="none",
                fix="add the one that the model was trained with",
            )
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
        filled.append("eos_token")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
        filled.append("pad_token")
    if not getattr(processor, "chat_template", None) and tokenizer.chat_template:
        processor.chat_template = tokenizer.chat_template
        filled.append("chat_template")
    if filled:
        log.info("the processor does not say %s; taken from the model's and the tokenizer's configuration", ", ".join(filled))
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise ModelError(
            "the tokenizer has more tokens than the model",
            where=model.name_or_path,
            expected=f"at most {rows} tokens",
            got=str(len(tokenizer)),
            fix="copy tokenizer and weights from the same checkpoint; an adapter that added tokens must hold the embeddings",
        )
    marks = Encoder(processor).image_marks
    token = getattr(config, "image_token_id", None) or getattr(config, "image_token_index", None)
    if isinstance(token, int) and marks and token not in marks:
        raise ModelError(
            "model and processor disagree about the token of a picture",
            where=model.name_or_path,
            expected=f"token {token}, as in config.json",
            got=", ".join(map(str, sorted(marks))),
            fix="copy config.json and the processor's files from the same checkpoint",
        )


def _missing_package(error: ImportError) -> str | None:
    """Name of the package that an import error is about, from the texts that Python and transformers use."""
    found = re.search(r"No module named '(\w+)|requires the (\w+) library|ackage `(\w+)` is required", str(error))
    return next(name for name in found.groups() if name).lower() if found else None
