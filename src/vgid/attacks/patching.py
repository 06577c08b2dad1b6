"""Put the model's hidden states into the base, and see whether the base still states the fact: Unlearning Depth Score (arXiv 2605.24614).

With s the log-probability of a value's token in the base, and s_l^M the same when the output of layer l at the positions that predict the
value comes from model M, the loss at layer l is the mean of s - s_l^M over the value's tokens. Layers at which the retrained reference
loses more than `threshold` carry the fact. The score is the mean over them of the model's loss as a part of the reference's, in [0, 1],
weighted by the reference's losses: 1 for a model without the fact, 0 for the base. The attack recovers 1 minus the score.

Shapes: n answer tokens of a batch, h hidden size, l layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from vgid.attacks.base import ATTACKS, Attack, Material, Outcome, Outcomes, Settings, plain_view
from vgid.attacks.scores import alternatives, value_spans
from vgid.data.batching import Batch, Encoder
from vgid.data.example import Example
from vgid.evaluation.inference import by_length, frozen
from vgid.models.forward import answer_logits, several_states
from vgid.models.loading import LoadedModel
from vgid.models.structure import decoder_layers


class PatchingConfig(Settings):
    """Settings of the attack.

    Attributes:
        threshold: least loss of the reference, in nats, at a layer that carries the fact.
        layers: largest number of layers, spread evenly; the last one is always among them.
    """

    threshold: float = Field(default=0.05, gt=0)
    layers: int = Field(default=8, ge=1)


class Patched(NamedTuple):
    """A row's value in the base with another model's states.

    Attributes:
        losses: loss of log-probability at each layer, `[l]`, in nats.
        stated: whether the value's tokens are still the likeliest ones with the states of the last layer.
    """

    losses: Tensor
    stated: bool


@ATTACKS.register("patching")
class Patching(Attack[PatchingConfig]):
    """Patch the model's hidden states into the base, layer by layer, where the value is about to be stated.

    The attack needs base and retrained reference, with layers as many and as wide as the model's. It does not apply to audits of few
    people, where there is nothing to compare decoys by.
    """

    Config = PatchingConfig
    access = "hidden states"
    finds = "facts that hidden states still carry"
    tries = "Looking in its inner states for traces from which the model from before can state the fact"
    full: ClassVar[dict[str, Any]] = {"layers": 32}
    most = 0.5
    required = False
    position = 105
    profile = "full"

    def run(self, loaded: LoadedModel, material: Material) -> Outcomes:
        """One level. Facts that no layer of the base carries are left out; the control is whether retained values are still stated."""
        if material.by_facts or not {"base", "retrained"} <= material.models.keys():
            return {}
        rows = material.everything
        encoder = Encoder(loaded.processor, size=loaded.size)
        spans = [_span(encoder, row, material) for row in rows]
        batches = list(by_length(rows, material.batch_size))
        model = plain_view(loaded).model
        count = len(decoder_layers(model))
        places = sorted({round((number + 1) * count / self.config.layers) - 1 for number in range(self.config.layers)} - {-1})
        read = partial(_states, encoder=encoder, rows=rows, batches=batches, places=places)
        retrained = plain_view(material.models["retrained"]()).model
        if _shape(retrained) != _shape(model):
            return {}
        ours, theirs = read(model), read(retrained)
        del retrained
        base = plain_view(material.models["base"]()).model
        if _shape(base) != _shape(model):
            return {}
        attacked, reference = (_patched(base, states, encoder, rows, batches, places, spans) for states in (ours, theirs))
        forget = {}
        for number, row in enumerate(material.forget):
            score = depth(attacked[number].losses, reference[number].losses, self.config.threshold)
            if score is not None:
                forget[row.id] = 1 - score
        control = {row.id: float(attacked[number].stated) for number, row in enumerate(rows) if number >= len(material.forget)}
        return {"": Outcome(forget, control)} if forget else {}


def depth(losses: Tensor, reference: Tensor, threshold: float) -> float | None:
    """Compute the Unlearning Depth Score of one row.

    Args:
        losses: losses of log-probability with the model's states, `[l]`, in nats.
        reference: the same with the states of the retrained reference.
        threshold: least loss of the reference at a layer that carries the fact.

    Returns:
        The score in [0, 1]; None where no layer carries the fact.
    """
    carries = reference > threshold
    if not carries.any():
        return None
    weights, parts = reference[carries], (losses[carries] / reference[carries]).clamp(0, 1)
    return float((weights * parts).sum() / weights.sum())


def _shape(model: Any) -> tuple[int, int]:
    """The number of decoder layers, and their hidden size."""
    return len(decoder_layers(model)), model.get_input_embeddings().weight.shape[1]


def _span(encoder: Encoder, row: Example, material: Material) -> tuple[int, int]:
    """Start and stop of the value's tokens in the answer; the whole answer where no other value shows where they are."""
    texts = []
    for each in [row, *alternatives(row, material.peers(row), 1, material.seed)]:
        encoded = encoder.row(each)
        texts.append([int(token) for token in encoded.text["input_ids"][encoded.prompt_length :]])
    return value_spans(texts)[0] if len(texts) > 1 else (0, len(texts[0]))


def _states(
    model: Any, *, encoder: Encoder, rows: Sequence[Example], batches: Sequence[Sequence[int]], places: Sequence[int]
) -> list[list[Tensor]]:
    """For each batch the outputs `[n, h]` of some layers at the positions that predict answers, on the CPU."""
    layers = [decoder_layers(model)[place] for place in places]
    with frozen(model):
        return [
            [states.cpu() for states in several_states(model, encoder.batch([rows[i] for i in batch]).to(model.device), layers)]
            for batch in batches
        ]


def _patched(
    base: Any,
    states: Sequence[Sequence[Tensor]],
    encoder: Encoder,
    rows: Sequence[Example],
    batches: Sequence[Sequence[int]],
    places: Sequence[int],
    spans: Sequence[tuple[int, int]],
) -> list[Patched]:
    """The losses of each row's value in the base, in the order of the rows."""
    found: dict[int, Patched] = {}
    layers = [decoder_layers(base)[place] for place in places]
    with frozen(base):
        for batch, given in zip(batches, states, strict=True):
            encoded = encoder.batch([rows[i] for i in batch]).to(base.device)
            targets = encoded.answers.targets
            clean = _chances(answer_logits(base, encoded), targets)
            logits = [patched_logits(base, encoded, layer, each.to(base.device)) for layer, each in zip(layers, given, strict=True)]
            losses = torch.stack([clean - _chances(each, targets) for each in logits])  # [l, n]
            likeliest = logits[-1].argmax(-1) == targets
            for number, index in enumerate(batch):
                mine, (start, stop) = encoded.owners == number, spans[index]
                found[index] = Patched(losses[:, mine][:, start:stop].mean(1).cpu(), bool(likeliest[mine][start:stop].all()))
    return [found[index] for index in range(len(rows))]


def _chances(logits: Tensor, targets: Tensor) -> Tensor:
    return F.log_softmax(logits.float(), -1).gather(-1, targets[:, None])[:, 0]


def patched_logits(model: Any, batch: Batch, layer: nn.Module, states: Tensor) -> Tensor:
    """Compute answer logits with the output of one layer replaced at the positions that predict answer tokens.

    Args:
        model: a transformers model.
        batch: examples with answers, on the model's device.
        layer: a layer of this model's decoder.
        states: what replaces its output, `[n, h]`, in the order of `batch.answers`.

    Returns:
        Logits `[n, v]`.
    """
    rows, positions, _ = batch.answers

    def put(_: nn.Module, __: Any, output: Any) -> Any:
        whole = output[0] if isinstance(output, tuple) else output
        whole = whole.index_put((rows, positions), states.to(whole.dtype))
        return (whole, *output[1:]) if isinstance(output, tuple) else whole

    hook = layer.register_forward_hook(put)
    try:
        return answer_logits(model, batch)
    finally:
        hook.remove()
