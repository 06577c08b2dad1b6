"""The parts of a model, found by inspecting its modules, not by the name of its family."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import nn

from vgid.errors import ModelError
from vgid.processes import gather_nothing
from vgid.settings import Part


@dataclass(frozen=True)
class Structure:
    """Dotted names of a model's parts; every parameter belongs to exactly one.

    Attributes:
        language: the decoder with its embeddings, and the head.
        projector: what lies between vision tower and decoder, single parameters such as LLaVA-NeXT's line break included.
        vision: the vision tower.
    """

    language: tuple[str, ...]
    projector: tuple[str, ...]
    vision: tuple[str, ...]

    def part_of(self, name: str) -> Part | None:
        """Return the part that a module or parameter belongs to, or None; where several match, the longest name counts."""
        parts: tuple[tuple[Part, tuple[str, ...]], ...] = (
            ("language", self.language),
            ("projector", self.projector),
            ("vision", self.vision),
        )
        owners = [(len(owner), part) for part, names in parts for owner in names if f"{name}.".startswith(f"{owner}.")]
        return max(owners)[1] if owners else None


def inspect_model(model: nn.Module) -> Structure:
    """Find decoder, projector and vision tower of a model.

    The decoder is the deepest module that contains both the input embeddings and a stack of layers. A vision tower is the outermost
    module outside it that turns pixels into patches (by a convolution, or by a linear map with `patch_embed` in its name) and has a stack
    of layers. The projector is the rest.

    Raises:
        ModelError: there is no decoder or no vision tower.
    """
    modules = {name: module for name, module in model.named_modules() if name}
    names = {id(module): name for name, module in modules.items()}
    embedding = names[id(model.get_input_embeddings())]  # type: ignore[operator]
    decoder = _innermost(modules, (a for a in _ancestors(embedding)))
    if decoder is None:
        raise ModelError("no decoder found", expected="input embeddings beside a stack of layers", got=type(model).__name__)
    towers = _outermost(
        name
        for name, module in modules.items()
        if not _inside(name, decoder) and not _inside(decoder, name) and _sees_pixels(name, modules) and _has_layers(module)
    )
    if not towers:
        raise ModelError("no vision tower found", expected="a module with patch embedding and layers", got=type(model).__name__)
    width = modules[embedding].weight.shape[1]  # PEFT's wrappers have nothing else of an embedding
    inner = _outermost(
        name for tower in towers for name in modules if _inside(name, tower) and _is_merger(modules[name], name, tower, width)
    )
    head = names.get(id(model.get_output_embeddings()))  # type: ignore[operator]
    language = (decoder, *([head] if head and not _inside(head, decoder) else []))
    taken = (*language, *towers)
    owners = {name.rpartition(".")[0] or name for name, _ in model.named_parameters()}
    rest = _outermost(
        name
        for name in modules
        if not any(_inside(name, t) or _inside(t, name) for t in taken) and any(_inside(owner, name) for owner in owners)
    )
    found = (*taken, *rest)
    loose = [name for name, _ in model.named_parameters() if not any(_inside(name, owner) for owner in found)]
    return Structure(language, (*rest, *inner, *loose), tuple(towers))


def linear_layers(model: nn.Module, parts: Iterable[str]) -> list[str]:
    """Return the names of the linear layers in these parts, without the head, which is often tied to the embeddings."""
    structure, head, wanted = inspect_model(model), model.get_output_embeddings(), set(parts)  # type: ignore[operator]
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head and structure.part_of(name) in wanted
    ]


class MLP(NamedTuple):
    """A feed-forward block: the maps in `ups` compute its neurons from the hidden state, and `down` maps them back to it.

    Neuron j is column j of `down` and row j of every map in `ups`. A map with twice as many rows holds gate and up projection in one;
    its row j + `width` belongs to neuron j too.

    Attributes:
        name: dotted name of the module.
        part: part of the model that it belongs to.
        ups: one or two linear maps from the hidden state.
        down: the linear map to the hidden state.
    """

    name: str
    part: Part
    ups: tuple[nn.Linear, ...]
    down: nn.Linear

    @property
    def width(self) -> int:
        """Number of neurons."""
        return self.down.in_features


def feed_forward(model: nn.Module, parts: Iterable[str]) -> list[MLP]:
    """Find the feed-forward blocks of these parts by their shape.

    A block is a module with two or three linear maps and an activation, in which one map leads back to the width that all others start
    from. The block is at least as wide as that: narrower ones are bottlenecks, such as Gemma's per-layer inputs.

    Returns:
        The blocks, in the order of the layers.

    Raises:
        ModelError: one of the parts has no such block.
    """
    structure, wanted = inspect_model(model), set(parts)
    found = [
        MLP(name, part, *maps)
        for name, module in model.named_modules()
        if (part := structure.part_of(name)) in wanted and part is not None and (maps := _maps(module)) is not None
    ]
    missing = wanted - {block.part for block in found}
    if missing:
        raise ModelError(
            "no feed-forward neurons found",
            expected=f"blocks of two or three linear layers and an activation in {', '.join(sorted(missing))}",
            got="none",
            fix="choose another method, or other parts",
        )
    return found


def _maps(module: nn.Module) -> tuple[tuple[nn.Linear, ...], nn.Linear] | None:
    children = list(module.children())
    linears = [linear for child in children if (linear := _linear(child)) is not None]
    active = any(next(child.parameters(), None) is None and not isinstance(child, (nn.Dropout, nn.Identity)) for child in children)
    if not active or len(linears) not in (2, 3):
        return None
    # With two maps the second leads back; with three their shapes decide, whatever their order.
    for down in linears[-1:] if len(linears) == 2 else reversed(linears):
        ups = tuple(linear for linear in linears if linear is not down)
        if down.in_features >= down.out_features and all(
            up.in_features == down.out_features and up.out_features in (down.in_features, 2 * down.in_features) for up in ups
        ):
            return ups, down
    return None


def _linear(module: nn.Module) -> nn.Linear | None:
    """The module itself, or the single linear map inside it."""
    linears = [inner for inner in module.modules() if isinstance(inner, nn.Linear)]
    return linears[0] if len(linears) == 1 and not isinstance(module, nn.ModuleList) else None


def decoder_layers(model: nn.Module) -> list[nn.Module]:
    """Return the layers of the decoder, first to last: its longest list of modules."""
    decoder = model.get_submodule(inspect_model(model).language[0])
    lists = [list(child) for child in decoder.modules() if isinstance(child, nn.ModuleList)]
    return max(lists, key=len)


def base_of(model: Any) -> Any:
    """Return the model inside PEFT's wrapper, or the model itself where there is none; adapters stay on its layers."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def unfreeze(model: Any, parts: Iterable[str]) -> Any:
    """Make the parameters of these parts trainable and freeze all others; returns the model.

    Raises:
        ModelError: the parts have no parameters.
    """
    gather_nothing(model)
    structure, wanted = inspect_model(model), set(parts)
    count = 0
    for name, parameter in model.named_parameters():
        parameter.requires_grad = structure.part_of(name) in wanted
        count += parameter.requires_grad
    if not count:
        raise ModelError("there is nothing to train", expected=f"parameters in {', '.join(sorted(wanted)) or 'a part'}", got="none")
    return model


def _inside(name: str, owner: str) -> bool:
    return f"{name}.".startswith(f"{owner}.")


def _ancestors(name: str) -> Iterable[str]:
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def _outermost(names: Iterable[str]) -> list[str]:
    out: list[str] = []
    for name in names:  # parents come before children
        if not any(_inside(name, owner) for owner in out):
            out.append(name)
    return out


def _innermost(modules: dict[str, nn.Module], names: Iterable[str]) -> str | None:
    return next((name for name in names if _has_layers(modules[name])), None)


def _has_layers(module: nn.Module) -> bool:
    return any(isinstance(child, nn.ModuleList) and len(child) for child in module.modules())


def _sees_pixels(name: str, modules: dict[str, nn.Module]) -> bool:
    return any(
        _inside(inner, name) and (isinstance(module, (nn.Conv2d, nn.Conv3d)) or "patch_embed" in inner.rpartition(".")[2])
        for inner, module in modules.items()
    )


def _is_merger(module: nn.Module, name: str, tower: str, width: int) -> bool:
    """Whether a module is a projector inside the tower (Qwen-VL's merger): a direct child without a stack of layers, that ends at the
    decoder's width."""
    if name == tower or "." in name[len(tower) + 1 :] or (_has_layers(module) and not isinstance(module, nn.ModuleList)):
        return False
    last = [child for child in module.modules() if isinstance(child, nn.Linear)]
    return bool(last) and last[-1].out_features == width and "merger" in name.rpartition(".")[2]
