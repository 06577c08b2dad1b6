"""Search the suffix of `suffix` by gradients: greedy coordinate gradient (GCG, arXiv 2307.15043).

Shapes: r rows, s positions, k tokens of the suffix, v vocabulary, h hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from statistics import fmean
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from vgid.attacks.base import ATTACKS
from vgid.attacks.suffix import Suffix, SuffixConfig, readable_tokens, with_suffix
from vgid.data.example import Example
from vgid.evaluation.inference import frozen
from vgid.evaluation.scoring import score
from vgid.losses import answer_nll
from vgid.models.forward import answer_logits
from vgid.models.loading import LoadedModel
from vgid.models.quantisation import is_quantised


class GcgConfig(SuffixConfig):
    """Settings of the attack.

    Attributes:
        trials: number of steps; each takes one gradient and keeps the best of `width` replacements.
        top: number of tokens for each place with the steepest gradients, among which replacements are drawn.
        width: number of replacements that are tried in a step.
    """

    trials: int = Field(default=4, ge=1)
    top: int = Field(default=32, ge=1)
    width: int = Field(default=8, ge=1)


@ATTACKS.register("gcg")
class Gcg(Suffix):
    """Search a suffix by gradients on half of the forgotten people; ask about the other half."""

    Config = GcgConfig
    config: GcgConfig
    access = "weights"
    finds = "forgetting that holds for ordinary prompts only"
    tries = "Searching for words to add that bring the facts back, guided by the model's own gradients"
    full: ClassVar = {"tokens": 20, "trials": 200, "rows": 32, "top": 256, "width": 64}
    most = 0.1
    position = 182
    profile = "full"

    def search(self, loaded: LoadedModel, rows: Sequence[Example], seed: int, batch_size: int) -> str:
        """Search for the suffix under which the recorded answers are likeliest.

        A suffix whose tokens are not found again in the encoded questions, since the tokenizer joins them otherwise, is not tried. Where
        no gradients can be taken (weights in few bits), the random search goes on.

        Args:
            loaded: the model; it is left unchanged.
            rows: rows on which every trial is scored.
            seed: seed of the search.
            batch_size: number of rows in a forward pass.

        Returns:
            The best suffix found, as text.
        """
        if is_quantised(loaded.model):
            return super().search(loaded, rows, seed, batch_size)
        rng, tokenizer = Random(f"gcg/{seed}"), loaded.encoder.tokenizer
        words = readable_tokens(loaded)

        def loss(tokens: Sequence[int]) -> float:
            return fmean(each.loss for each in score(loaded, [with_suffix(row, tokenizer.decode(tokens)) for row in rows], batch_size))

        best = next(
            (tokens for _ in range(100) if _place(loaded, rows[0], tokens := rng.choices(words, k=self.config.tokens)) is not None), None
        )
        if best is None:
            return super().search(loaded, rows, seed, batch_size)
        lowest = loss(best)
        for _ in range(self.config.trials):
            slopes = suffix_gradient(loaded, rows, best, batch_size)[:, words]  # [k, words]
            steepest = slopes.topk(min(self.config.top, len(words)), largest=False).indices
            tried = []
            for _ in range(self.config.width):
                tokens, place = list(best), rng.randrange(len(best))
                tokens[place] = words[int(steepest[place, rng.randrange(steepest.shape[1])])]
                tried += [tokens] if _place(loaded, rows[0], tokens) is not None else []
            reached, tokens = min(((loss(each), each) for each in tried), default=(lowest, best))
            if reached < lowest:
                best, lowest = tokens, reached
        return str(tokenizer.decode(best))


def suffix_gradient(loaded: LoadedModel, rows: Sequence[Example], tokens: Sequence[int], batch_size: int) -> Tensor:
    """Compute how the loss changes, to first order, with each token at each place of the suffix.

    The derivative by the one-hot code of a token is the product of the embedding matrix and the gradient at the token's embedding.

    Args:
        loaded: the model; it is left unchanged.
        rows: rows whose answers are scored; those in which the suffix is not found are left out.
        tokens: the suffix, k token ids.
        batch_size: number of rows in a forward pass.

    Returns:
        Derivatives `[k, v]` of the mean loss of the rows, on the CPU.
    """
    model, suffix = loaded.model, loaded.encoder.tokenizer.decode(tokens)
    placed = [(with_suffix(row, suffix), place) for row in rows if (place := _place(loaded, row, tokens)) is not None]
    table = model.get_input_embeddings().weight
    total = torch.zeros(len(tokens), table.shape[1], device=table.device)
    for start in range(0, len(placed), batch_size):
        part = placed[start : start + batch_size]
        batch = loaded.encoder.batch([row for row, _ in part]).to(model.device)
        seen: list[Tensor] = []

        def keep(_: Any, __: Any, output: Tensor, seen: list[Tensor] = seen) -> Tensor:
            seen.append(output.detach().requires_grad_(True))
            return seen[-1]

        hook = model.get_input_embeddings().register_forward_hook(keep)
        try:
            with frozen(model), torch.enable_grad():
                nll = answer_nll(answer_logits(model, batch), batch.answers.targets)
                counts = torch.bincount(batch.owners, minlength=len(part)).to(nll.dtype)
                loss = (nll / counts[batch.owners]).sum() / len(placed)
                [gradient] = torch.autograd.grad(loss, [seen[0]])  # [r, s, h]
        finally:
            hook.remove()
        for number, (_, place) in enumerate(part):
            total += gradient[number, place : place + len(tokens)].float()
    slopes: Tensor = total @ table.detach().float().T
    return slopes.cpu()


def _place(loaded: LoadedModel, row: Example, tokens: Sequence[int]) -> int | None:
    """Where the suffix stands among the tokens of a question; None where the tokenizer joins its words otherwise."""
    ids = loaded.encoder.row(with_suffix(row, loaded.encoder.tokenizer.decode(tokens))).text["input_ids"].tolist()
    places = [place for place in range(len(ids) - len(tokens) + 1) if ids[place : place + len(tokens)] == list(tokens)]
    return places[-1] if places else None
