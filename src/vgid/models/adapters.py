"""LoRA adapters on chosen parts of a model, and access to the base without them."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, get_args

import torch
from peft import LoraConfig, PeftModel, get_peft_model, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from vgid.errors import ConfigError, ModelError
from vgid.limits import CallError, OverLimitError, limited
from vgid.memory import free_bytes
from vgid.models.structure import base_of, inspect_model, linear_layers
from vgid.processes import gather_nothing
from vgid.settings import AdapterConfig, Part

log = logging.getLogger("vgid")


@contextmanager
def cast_by_autocast(model: nn.Module, on: bool = True) -> Iterator[None]:
    """Within, LoRA's layers take their inputs as they are: PEFT casts them to float32, and autocast casts them back.

    The result is the same to the last bit, without two copies of each layer's input, of which one is kept for the backward pass.

    Args:
        model: the model, with adapters or without.
        on: whether autocast computes in fewer bits; False changes nothing.
    """
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)] if on else []
    before = [layer.cast_input_dtype_enabled for layer in layers]
    for layer in layers:
        layer.cast_input_dtype_enabled = False
    try:
        yield
    finally:
        for layer, value in zip(layers, before, strict=True):
            layer.cast_input_dtype_enabled = value


def attach_lora(model: nn.Module, config: AdapterConfig, *, seed: int, log_targets: bool = True) -> PeftModel:
    """Put adapters on the linear layers in scope, and freeze everything else but a projector that is trained whole.

    Args:
        model: the model; its modules are replaced in place.
        config: rank, scale and scope of the adapters.
        seed: random seed of the adapters' first values.
        log_targets: whether to log the names of the adapted layers.

    Returns:
        The model in PEFT's wrapper.

    Raises:
        ModelError: the scope, or a name in the targets, matches no linear layer, the rank is larger than every layer's, or there is no
            projector to train.
        ConfigError: the adapter alone would not fit into free memory, the regular expression cannot be used, or the projector would be
            trained twice.
    """
    gather_nothing(model)  # what is frozen below must be the shards
    names = linear_layers(model, config.scope) if config.targets is None else target_layers(model, config.targets)
    if not names:
        found = inspect_model(model)
        raise ModelError(
            "the LoRA scope matches no linear layer",
            expected=f"linear layers in {', '.join(config.scope) or '(nothing)'}",
            got=f"language: {found.language}, projector: {found.projector}, vision: {found.vision}",
            fix="set adapter.scope to parts that have linear layers",
        )
    layers: list[Any] = [model.get_submodule(name) for name in names]
    _check_rank(layers, config.rank, next(model.parameters()).device)
    if log_targets:
        log.info("LoRA on %d linear layers: %s", len(names), summarise_names(names))
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=names,
        init_lora_weights=True if config.init == "default" else config.init,
    )
    projector = _projector(model, names) if config.whole_projector else []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        adapted = get_peft_model(model, lora)
    for module in projector:
        module.requires_grad_(True)
    return adapted


def _projector(model: nn.Module, adapted: Sequence[str]) -> list[nn.Module]:
    """The modules of the projector, which are trained themselves: PEFT's copies of modules would hide them from whatever looks for them.

    Raises:
        ConfigError: the projector gets an adapter too.
        ModelError: there is no projector.
    """
    structure = inspect_model(model)
    if any(structure.part_of(name) == "projector" for name in adapted):
        raise ConfigError(
            "the projector cannot be trained whole and by an adapter",
            expected="adapter.whole_projector=true, or an adapter on the projector",
            got="both",
            fix="take the projector out of adapter.scope and adapter.targets",
        )
    modules = dict(model.named_modules())
    found = [modules[name] for name in structure.projector if name in modules]
    if not any(True for module in found for _ in module.parameters()):
        raise ModelError("the model has no projector to train", where="adapter.whole_projector", got=type(model).__name__)
    return found


def _check_rank(layers: Sequence[Any], rank: int, device: torch.device) -> None:
    """Check that some layer has such a rank, and that the adapters alone would fit, before anything is estimated.

    Raises:
        ModelError: the rank is larger than every layer's.
        ConfigError: the adapters' float32 weights alone, without gradients, would not fit into free memory.
    """
    most = max(min(layer.in_features, layer.out_features) for layer in layers)
    if rank > most:
        raise ModelError(
            "the rank of the adapter is larger than that of every layer",
            where="adapter.rank",
            expected=f"at most {most}",
            got=str(rank),
            fix="lower it, or train all parameters with adapter=null",
        )
    needed = 4 * rank * sum(layer.in_features + layer.out_features for layer in layers)
    free = free_bytes(device)
    if free is not None and needed > free:
        raise ConfigError(
            "the adapter does not fit into memory",
            where="adapter.rank",
            expected=f"at most {free / 2**30:.1f} GiB, which are free",
            got=f"{needed / 2**30:.1f} GiB for rank {rank}",
            fix="set a lower adapter.rank",
        )


def target_layers(model: nn.Module, targets: Sequence[str] | str) -> list[str]:
    """Find the linear layers that names, or a regular expression, mean, in any part of the model; never the head.

    Args:
        model: the model.
        targets: names, each a layer's whole dotted name or the end of one, or one regular expression for whole dotted names.

    Returns:
        Dotted names, in the model's order.

    Raises:
        ModelError: a name or the expression matches no linear layer; the nearest names are given.
        ConfigError: the expression is not valid, or takes too long.
    """
    names = linear_layers(model, get_args(Part))
    if isinstance(targets, str):
        # In a worker process: some expressions take longer than anybody waits.
        try:
            chosen: list[str] = limited(_matching, targets, names)
        except (OverLimitError, CallError) as error:
            raise ConfigError(
                "this regular expression cannot be used",
                where="adapter.targets",
                expected="a valid expression that comes to an end",
                got=error.text if isinstance(error, CallError) else str(error),
                fix='give a simpler one, or names, such as adapter.targets=["q_proj", "v_proj"]',
            ) from None
        missing = [] if chosen else [targets]
    else:
        found = {target: [name for name in names if name == target or name.endswith(f".{target}")] for target in targets}
        wanted = {name for each in found.values() for name in each}
        chosen, missing = [name for name in names if name in wanted], [target for target, each in found.items() if not each]
    if missing or not chosen:
        raise ModelError(
            "there is no such linear layer",
            where="adapter.targets",
            expected=f"names such as {', '.join(dict.fromkeys(name.rpartition('.')[2] for name in names))}",
            got=", ".join(missing) or "no name",
            fix="take names of this model, or set adapter.targets=null to choose by adapter.scope",
        )
    return chosen


def _matching(pattern: str, names: Sequence[str]) -> list[str]:
    return [name for name in names if re.fullmatch(pattern, name)]


def summarise_names(names: Sequence[str]) -> str:
    """Join names for people: those that differ in a layer's number only appear once, with their count."""
    patterns = Counter(re.sub(r"\.\d+\.", ".*.", name) for name in names)
    return ", ".join(f"{name} ({count})" for name, count in patterns.items())


def adapted_modules(model: nn.Module) -> list[str]:
    """Return the names of the modules that have an adapter, without PEFT's prefix."""
    return [name for name, module in base_of(model).named_modules() if hasattr(module, "lora_A")]


@contextmanager
def reference(model: Any, copy: nn.Module | None = None) -> Iterator[Any]:
    """Give the base as it was before training, for the time of a `with` statement; without gradients, in evaluation mode.

    Args:
        model: a model with an adapter, which is switched off meanwhile.
        copy: a frozen copy of the base, for a model whose own parameters are trained; None for a model with an adapter.

    Yields:
        The base. Afterwards the adapter is on again, every module is in the mode it was in, and what was frozen is frozen.

    Raises:
        ModelError: the model has no adapter, and no copy is given.
    """
    if copy is None and not isinstance(model, PeftModel):
        raise ModelError("the base is not available", expected="a model with an adapter, or a frozen copy", got=type(model).__name__)
    base = copy if copy is not None else model
    modes = [(module, module.training) for module in base.modules()]
    frozen = [parameter for parameter in base.parameters() if not parameter.requires_grad]
    try:
        with torch.no_grad(), nullcontext() if copy is not None else model.disable_adapter():
            base.eval()
            try:
                yield base
            finally:
                for module, training in modes:
                    module.training = training
    finally:
        # PEFT makes everything trainable of an adapter that it switches on again, also what a method has fixed.
        for parameter in frozen:
            if parameter.requires_grad:
                parameter.requires_grad_(False)


class SecondAdapter:
    """A LoRA adapter beside what is being trained: it can be switched on, trained by itself, and taken away again.

    It is a second adapter of the same PEFT model, or where all parameters are trained, an adapter of the plain model. Until it is switched
    on, the model computes as without it, and it is never among the trained parameters.

    Args:
        model: the model in training, with its adapter or unfrozen; its layers are wrapped in place.
        name: name of the adapter in PEFT, not that of the first.
        rank: rank of its updates.
        scale: factor of its updates.
        targets: dotted names of linear layers of the model without PEFT's wrapper.
    """

    def __init__(self, model: Any, name: str, rank: int, scale: float, targets: Sequence[str]) -> None:
        self.model, self.name = model, name
        gather_nothing(model)  # what is frozen below must be the shards
        self.remove()  # what a run that ended early has left
        trained = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
        active = list(model.active_adapters) if isinstance(model, PeftModel) else []
        config = LoraConfig(r=rank, lora_alpha=scale * rank, target_modules=list(targets))
        with torch.random.fork_rng():  # PEFT draws first values; a caller's generators are not to notice
            if isinstance(model, PeftModel):
                model.add_adapter(name, config)
            else:
                inject_adapter_in_model(config, model, name)
        self._layers = self._wrapped()
        for layer in self._layers.values():
            layer.set_adapter(active)
        for parameter in model.parameters():  # PEFT freezes what it does not train itself
            parameter.requires_grad_(id(parameter) in trained)

    def weights(self) -> dict[str, tuple[nn.Parameter, nn.Parameter]]:
        """The two matrices of each layer's update, by the layer's name: `[rank, in]` into the rank, `[out, rank]` out of it.

        Read anew at each call: sharding puts other parameters into their places.
        """
        return {part: (layer.lora_A[self.name].weight, layer.lora_B[self.name].weight) for part, layer in self._layers.items()}

    @contextmanager
    def active(self) -> Iterator[None]:
        """Within, its updates take part in every pass, and get no gradients; what is trained otherwise gets them as before."""
        with self._switched(learns=False):
            yield

    @contextmanager
    def learning(self) -> Iterator[None]:
        """Within, its updates take part in every pass, and they alone get gradients."""
        with self._switched(learns=True):
            yield

    def remove(self) -> None:
        """Take it away, if it is there; layers that have no other adapter are what they were before."""
        layers = self._wrapped()
        if not layers:
            return
        if isinstance(self.model, PeftModel):
            self.model.delete_adapter(self.name)
        else:
            del self.model.peft_config
        for part, layer in layers.items():
            if set(layer.lora_A) <= {self.name}:
                parent, _, last = part.rpartition(".")
                setattr(base_of(self.model).get_submodule(parent), last, layer.base_layer)

    def _wrapped(self) -> dict[str, Any]:
        """Layers with this adapter, by their names without PEFT's suffix."""
        return {part: layer for part, layer in base_of(self.model).named_modules() if self.name in getattr(layer, "lora_A", ())}

    @contextmanager
    def _switched(self, *, learns: bool) -> Iterator[None]:
        gather_nothing(self.model)  # as in `attach_lora`, and again where gradients are switched back
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        before = {part: list(layer.active_adapters) for part, layer in self._layers.items()}
        for part, layer in self._layers.items():
            layer.set_adapter([*before[part], self.name], inference_mode=True)
        for parameter in trained:
            parameter.requires_grad_(not learns)
        for pair in self.weights().values():
            for parameter in pair:
                parameter.requires_grad_(learns)
        try:
            yield
        finally:
            for part, layer in self._layers.items():
                layer.set_adapter(before[part], inference_mode=True)
            gather_nothing(self.model)
            for parameter in trained:
                parameter.requires_grad_(True)
