"""Checkpoint folders as files: names, shapes and types of their tensors, tensors that no model class builds, and side files."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers.utils.hub import cached_file

from vgid.data.example import LFS
from vgid.errors import ModelError, first_line
from vgid.reading import read_json

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf", ".index.json")
"""Endings of files with weights, or that list them."""
NOT_COPIED = ("README.md", ".gitattributes")
"""Side files of a base that are not its result's: the model card speaks of the base."""


class TensorHeader(NamedTuple):
    """Type and shape of a tensor in a file, without its values."""

    dtype: str
    shape: tuple[int, ...]


def folder_of(path: str) -> Path | None:
    """The local folder of a checkpoint: the folder itself, the base's for an adapter, or the snapshot of a hub id; None where there is
    none on this machine."""
    if (Path(path) / "adapter_config.json").is_file() and not (Path(path) / "config.json").is_file():
        named = read_json(Path(path) / "adapter_config.json", ModelError).get("base_model_name_or_path")
        return folder_of(str(named)) if named and str(named) != path else None
    if Path(path).is_dir():
        return Path(path)
    try:
        found = cached_file(path, "config.json", _raise_exceptions_for_missing_entries=False, local_files_only=True)
    except (OSError, ValueError):  # not written like an id on the hub
        return None
    return Path(found).parent if found else None


@contextmanager
def opened(file: Path) -> Iterator[Any]:
    """Open a file of weights, with one clear error for each fault, also while it is read.

    Raises:
        ModelError: it is not a plain file, so that it may never end, or it cannot be read.
    """
    expected, fix = "a whole file in the safetensors format", "copy the file anew"
    if not file.is_file():
        raise ModelError(
            "the weights are not in a plain file",
            where=file,
            expected=expected,
            got="a folder, a special file, or a link to nothing",
            fix=fix,
        )
    try:
        with safe_open(file, "pt") as content:
            yield content
    except (OSError, SafetensorError) as error:
        if is_pointer(file):
            expected, fix = "the weights themselves, not a pointer to them", "git lfs pull"
        raise ModelError("the weights cannot be read", where=file, expected=expected, got=first_line(error), fix=fix) from error


def is_pointer(file: Path) -> bool:
    """Whether a file is what git leaves in the place of a large one that was not fetched."""
    try:
        with file.open("rb") as content:
            return content.read(len(LFS)) == LFS
    except OSError:
        return False


def tensor_headers(folder: Path, pattern: str = "*.safetensors") -> dict[str, TensorHeader]:
    """Read names, types and shapes of all tensors in the files of a folder.

    Raises:
        ModelError: a file of weights cannot be read.
    """
    headers: dict[str, TensorHeader] = {}
    for file in sorted(folder.glob(pattern)):
        with opened(file) as content:
            for name in content.keys():  # noqa: SIM118
                part = content.get_slice(name)
                headers[name] = TensorHeader(part.get_dtype(), tuple(part.get_shape()))
    return headers


def read_tensors(folder: Path, names: Iterable[str]) -> dict[str, Tensor]:
    """Read some tensors of a checkpoint folder.

    Raises:
        ModelError: a file of weights cannot be read.
    """
    wanted, found = set(names), dict[str, Tensor]()
    for file in sorted(folder.glob("*.safetensors")):
        with opened(file) as content:
            found |= {name: content.get_tensor(name) for name in content.keys() if name in wanted}  # noqa: SIM118
    return found


def unbuilt_tensors(model: Any, names: Iterable[str], unexpected: Iterable[str]) -> list[str]:
    """Names of tensors in a checkpoint that the model class does not build, such as heads for multi-token prediction.

    Args:
        model: the loaded model.
        names: names of all tensors in the checkpoint.
        unexpected: names that transformers reported as unexpected, in the present layout also where the checkpoint has an older one; those
            that it is configured to ignore are found by their patterns.

    Returns:
        The names, sorted.
    """
    kinds = [type(model), *type(model).__mro__]
    patterns = [each for kind in kinds for each in getattr(kind, "_keys_to_ignore_on_load_unexpected", None) or ()]
    names = list(names)
    built, reported = set(model.state_dict()), {_as_stored(name, names) for name in unexpected}
    unused = (name for name in names if name not in built)
    return sorted(name for name in unused if name in reported or any(re.search(each, name) for each in patterns))


def _as_stored(name: str, names: Sequence[str]) -> str:
    """The name in the file of what transformers reports by its present name: an older layout differs at the beginning."""
    if name in names:
        return name
    parts = name.split(".")

    def alike(other: str) -> tuple[int, int]:
        pairs = zip(reversed(parts), reversed(other.split(".")), strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs)), len({*parts} & {*other.split(".")})

    return max(names, key=alike, default=name)


def copy_side_files(base: Path, out: Path) -> list[str]:
    """Copy files of a base that its result lacks: generation settings, chat templates, variants of the preprocessor, licences.

    Args:
        base: folder of the base.
        out: folder of the result; files in it are not replaced.

    Returns:
        Names of the files copied.
    """
    copied = []
    for file in sorted(base.iterdir()):
        wanted = file.is_file() and not file.name.startswith(".") and not file.name.endswith(WEIGHTS) and file.name not in NOT_COPIED
        if wanted and not (out / file.name).exists():
            shutil.copyfile(file, out / file.name)
            copied.append(file.name)
    return copied


def differences(base: Mapping[str, TensorHeader], merged: Mapping[str, TensorHeader]) -> list[str]:
    """Name each tensor in which two checkpoints differ by name, shape or type.

    Args:
        base: tensors of the base.
        merged: tensors of the merged model.

    Returns:
        One line for each difference. Checkpoints that name nearly everything differently (an older layout) are compared by number and
        shapes of tensors only.
    """
    common = base.keys() & merged.keys()
    if len(common) < len(base) / 2:
        shapes = [sorted(header.shape for header in each.values()) for each in (base, merged)]
        return [] if shapes[0] == shapes[1] else [f"{len(base)} tensors in the base's older layout, {len(merged)} in the merged model"]
    lines = [f"{name}: missing in the merged model" for name in sorted(base.keys() - merged.keys())]
    lines += [f"{name}: not in the base" for name in sorted(merged.keys() - base.keys())]
    for name in sorted(common):
        if base[name] != merged[name]:
            one, other = (f"{each.dtype} {list(each.shape)}" for each in (base[name], merged[name]))
            lines.append(f"{name}: {one} in the base, {other} in the merged model")
    return lines


def check_finite(folder: Path, pattern: str = "*.safetensors") -> None:
    """Make sure that no weight of a checkpoint or an adapter is NaN or infinite; one tensor at a time is read.

    Raises:
        ModelError: one is.
    """
    for file in sorted(folder.glob(pattern)):
        with opened(file) as content:
            for name in content.keys():  # noqa: SIM118
                value = content.get_tensor(name)
                if value.is_floating_point() and not bool(torch.isfinite(value.float()).all()):
                    raise ModelError(
                        "a weight is not a finite number",
                        where=file,
                        expected="finite weights",
                        got=f"NaN or infinity in {name}",
                        fix="do not deploy this model; the run that made it diverged, or the numbers do not fit the precision",
                    )
