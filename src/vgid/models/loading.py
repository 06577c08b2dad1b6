"""Load models from a folder or the hub, after checking that they can be used."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel
from peft.utils import get_peft_model_state_dict
from safetensors import safe_open
from transformers import AutoModelForImageTextToText, AutoProcessor

from vgid.data.batching import Encoder
from vgid.data.picture_size import PictureSize
from vgid.errors import ModelError
from vgid.models.checkpoints import folder_of, tensor_headers, unbuilt_tensors
from vgid.models.quantisation import disable_weight_repacking, four_bits
from vgid.models.structure import base_of
from vgid.processes import default_device

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
"""File names of weights in pickle formats, which can run code when they are opened."""


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
    """

    model: Any
    processor: Any
    path: str
    asks: Encoder | None = None
    unbuilt: tuple[str, ...] = ()
    size: PictureSize | None = None

    @cached_property
    def encoder(self) -> Encoder:
        """Encodes examples for this model, and caches their processed pictures."""
        return self.asks or Encoder(self.processor, size=self.size)


def load_model(
    path: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
    adapter: str | Path | None = None,
    quantise: Literal["4bit"] | None = None,
) -> LoadedModel:
    """Load an image-text-to-text model.

    Args:
        path: folder, or id on the hub such as `owner/name`.
        device: device of the weights; None for a GPU if there is one (each process of a run uses its own), else the CPU.
        dtype: precision of the weights; None for the checkpoint's own on a GPU and float32 on a CPU.
        adapter: folder of a LoRA adapter to put on the model; None for none.
        quantise: `4bit` holds the decoder in 4 bits, for training an adapter on it; None for full precision.

    Returns:
        The model in evaluation mode, with its processor.

    Raises:
        ModelError: there is no such model or no processor beside it, weights are in a pickle format or missing, the model takes no
            images, or the adapter belongs to another model.
    """
    path = str(path)
    if Path(path).is_dir():
        _check_folder(Path(path))
    elif Path(path).exists() or path.count("/") != 1 or path.startswith((".", "/", "~")):
        raise ModelError(
            "no such model folder", where=path, expected="a folder, or an id on the hub such as owner/name", fix="check the path"
        )
    device = torch.device(device or default_device())
    dtype = dtype or ("auto" if device.type == "cuda" else torch.float32)
    processor = _load_processor(path)
    options = four_bits(path, device) if quantise else {}
    try:
        model, info = AutoModelForImageTextToText.from_pretrained(
            path, dtype=dtype, use_safetensors=True, output_loading_info=True, **options
        )
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            "the model cannot be loaded", where=path, expected="an image-text-to-text checkpoint", got=_first_line(error)
        ) from error
    if info["missing_keys"]:
        raise ModelError(
            "the checkpoint lacks weights, which would stay random",
            where=path,
            expected="all weights of the model",
            got=f"none for {len(info['missing_keys'])} of them, {sorted(info['missing_keys'])[0]} for example",
            fix="copy all files of the checkpoint, or report this with the model's name",
        )
    if adapter is not None:
        model = put_adapter(model, Path(adapter))
    model = disable_weight_repacking(model) if quantise else model.to(device)
    unused = _unbuilt(model, path, info["unexpected_keys"])
    return LoadedModel(model.eval(), processor, path, unbuilt=unused)


def _unbuilt(model: Any, path: str, unexpected: Iterable[str]) -> tuple[str, ...]:
    folder = folder_of(path)
    return tuple(unbuilt_tensors(base_of(model), tensor_headers(folder), unexpected)) if folder else tuple(sorted(unexpected))


def _check_folder(path: Path) -> None:
    if not (path / "config.json").is_file():
        raise ModelError("the folder holds no model", where=path, expected="config.json", got="none", fix="give the folder of a checkpoint")
    if not any((path / name).is_file() for name in ("processor_config.json", "preprocessor_config.json")):
        raise ModelError(
            "the model folder has no processor",
            where=path,
            expected="processor_config.json or preprocessor_config.json, and a tokenizer",
            got="none",
            fix="copy the processor files of the original model into the folder",
        )
    pickled = sorted(file.name for pattern in PICKLES for file in path.glob(pattern))
    if not any(path.glob("*.safetensors")):
        if pickled:
            raise ModelError(
                "the weights are in a pickle format, which can run code when it is opened",
                where=path,
                expected="*.safetensors",
                got=", ".join(pickled),
                fix="convert them with save_pretrained in a place you trust",
            )
        raise ModelError("the folder holds no weights", where=path, expected="*.safetensors", got="none", fix="copy the weights there")


def _load_processor(path: str) -> Any:
    try:
        processor = AutoProcessor.from_pretrained(path)
    except ImportError as error:
        package = _missing_package(error)
        raise ModelError(
            "the processor needs a package that is not installed",
            where=path,
            expected=package,
            got=_first_line(error),
            fix=f"pip install {package}" if package else "install it",
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            "the processor cannot be loaded", where=path, expected="processor and tokenizer files", got=_first_line(error)
        ) from error
    if not hasattr(processor, "tokenizer") or not hasattr(processor, "image_processor"):
        raise ModelError(
            "the model takes no images and text",
            where=path,
            expected="a processor with tokenizer and image processor",
            got=type(processor).__name__,
        )
    return processor


def put_adapter(model: Any, adapter: Path) -> PeftModel:
    """Load a LoRA adapter from a folder onto a model, and check that every tensor is used.

    PEFT alone ignores tensors whose names it does not know, so that the model would stay the base without any message.

    Raises:
        ModelError: the folder holds no adapter, or one whose tensors do not fit the model's modules.
    """
    if not (adapter / "adapter_config.json").is_file():
        raise ModelError("the folder holds no adapter", where=adapter, expected="adapter_config.json", fix="check the path")
    if not (adapter / "adapter_model.safetensors").is_file():
        raise ModelError("the adapter has no weights", where=adapter, expected="adapter_model.safetensors", fix="save it as safetensors")
    with safe_open(adapter / "adapter_model.safetensors", "pt") as file:
        written = set(file.keys())
    try:
        out: PeftModel = PeftModel.from_pretrained(model, str(adapter))
    except (ValueError, RuntimeError) as error:  # no module of these names, or tensors of other shapes
        raise ModelError(
            "the adapter does not fit the model", where=adapter, expected="an adapter of this model", got=_first_line(error)
        ) from error
    expected = set(get_peft_model_state_dict(out))
    if written != expected:
        lost, empty = sorted(written - expected), sorted(expected - written)
        example = f", {(lost or empty)[0]} for example"
        raise ModelError(
            "the adapter's tensors do not match the model's modules",
            where=adapter,
            expected=f"{len(expected)} tensors under the names that the model gives them",
            got=f"{len(lost)} that fit nowhere, {len(empty)} that are missing{example}",
            fix="use the model and the release of transformers that the adapter was made with",
        )
    return out


def _missing_package(error: ImportError) -> str | None:
    """Name of the package that an import error is about, from the texts that Python and transformers use."""
    found = re.search(r"No module named '(\w+)|requires the (\w+) library|ackage `(\w+)` is required", str(error))
    return next(name for name in found.groups() if name).lower() if found else None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
