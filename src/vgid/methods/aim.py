r"""AIM (Lee et al., arXiv 2608.28312): anchor identity features, then match. No retain pictures and no recorded answers are used.

Stage 1 anchors the target. One visual prompt :math:`\delta` for all forget pictures, within :math:`|\delta| \leq size`, makes the frozen
base refuse to answer about them:

.. math:: \delta^* = \arg\min_\delta E_f[\ell(I + \delta, q, refusal)]

Stage 2 trains the vision tower to see the plain pictures as the base sees the prompted ones, and stay where it matters to other pictures:

.. math:: L = E_f[\|v(I) - v_0(I + \delta^*)\|^2 / \|v_0(I + \delta^*)\|^2]
              + \mu \frac{\sum_i F_i (\theta_i - \theta_{0,i})^2}{\sum_i F_i \theta_{0,i}^2}

v is what the decoder sees of a picture, token by token. F is the diagonal Fisher information of the base's own sampled answers to general
questions about drawn pictures of shapes. The language model is frozen: facts that are asked by name stay, and rows without a picture are
not used.

Written after the paper's abstract. That the prompt is found by refusals, where v is taken, on what F is estimated, and all weights are
ours.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from vgid.data.batching import EncodedRow, join_pictures
from vgid.data.example import Example
from vgid.data.neutral import neutral_examples, own_answers
from vgid.losses import answer_nll, mean_over_examples
from vgid.methods.base import METHODS, Context, Defaults, LossOutput, Method, MethodConfig, Range, Search, StepBatch
from vgid.methods.common.refusals import REFUSALS
from vgid.methods.common.sight import Sight, require_pictures, visual_drift, with_pictures
from vgid.methods.common.targets import Shelf
from vgid.methods.mmunlearner import fisher
from vgid.methods.vgid.sampling import sample_answers
from vgid.models.forward import answer_logits
from vgid.models.pictures import embed_pictures
from vgid.seeds import derive_seed

log = logging.getLogger("vgid")


class AIMConfig(MethodConfig):
    """Settings of AIM.

    Attributes:
        prompt_size: largest value of the visual prompt, in the processor's normalised pixels.
        prompt_steps: steps of Adam in which it is found.
        prompt_rate: their learning rate.
        prompt_batch: forget rows in such a step.
        fisher_weight: mu.
        fisher_rows: drawn pictures on which the Fisher information is estimated.
        refusals: answers that the visual prompt must bring about; one is drawn for each row at each step.
    """

    prompt_size: float = Field(default=0.5, gt=0.0)
    prompt_steps: int = Field(default=60, ge=1)
    prompt_rate: float = Field(default=0.05, gt=0.0)
    prompt_batch: int = Field(default=8, ge=1)
    fisher_weight: float = Field(default=10.0, ge=0.0)
    fisher_rows: int = Field(default=32, ge=1)
    refusals: tuple[str, ...] = Field(default=REFUSALS, min_length=1)


@METHODS.register("aim")
class AIM(Method[AIMConfig]):
    """See forget pictures as the base sees them under a visual prompt that makes it refuse."""

    Config = AIMConfig
    paper = "2608.28312"
    needs = ("forget rows with pictures", "refusals (built in)", "gradients of pixels")
    trainable = ("full",)
    defaults: ClassVar[Defaults] = {"adapter": None, "training.parts": ["vision"]}
    search: ClassVar[Search] = {
        "training.learning_rate": Range(1e-5, 1e-3, log=True),
        "method.prompt_size": Range(0.1, 2.0, log=True),
        "method.fisher_weight": Range(1.0, 1000.0, log=True),
    }

    @property
    def needs_reference(self) -> bool:
        """All that it needs of the base is worked out before training."""
        return False

    def prepare(self, model: Any, context: Context) -> None:
        """Find the visual prompt, what the base sees through it, and which weights matter to other pictures.

        Raises:
            DataError: no forget row has a picture.
        """
        super().prepare(model, context)
        require_pictures("aim", context)
        self.sight = Sight(context)
        training = model.training
        model.eval()
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.start = [parameter.detach().clone() for parameter in self.trained]
        rows = with_pictures(context.forget)
        self.prompt = self._anchored(model, rows)
        self._targets = Shelf()
        with torch.no_grad():
            for row in rows:
                if row.images not in self._targets:
                    self._targets.put(row.images, embed_pictures(model, self._prompted([context.encoder.row(row)])))
        self.fisher = fisher(model, context, self._neutral(model), self.trained)
        self.scale = float(sum((f * start.square()).sum() for f, start in zip(self.fisher, self.start, strict=True)))
        model.train(training)

    def _prompted(self, rows: Sequence[EncodedRow], prompt: Tensor | None = None) -> dict[str, Tensor]:
        """Tensors about the rows' pictures, with the visual prompt added to all pixels."""
        inputs = {name: value.to(self.context.device) for name, value in join_pictures(rows).items()}
        return {**inputs, "pixel_values": inputs["pixel_values"] + (self.prompt if prompt is None else prompt)}

    def _anchored(self, model: Any, rows: Sequence[Example]) -> Tensor:
        """The visual prompt: of a picture's shape, or of a patch's where a processor gives a list of patches."""
        pixels = self.context.encoder.row(rows[0]).images["pixel_values"]
        shape = pixels.shape[-3:] if pixels.ndim >= 4 else pixels.shape[-1:]
        prompt = torch.zeros(shape, device=self.context.device, requires_grad=True)
        optimizer = torch.optim.Adam([prompt], self.config.prompt_rate)
        rng = Random(derive_seed(self.context.seed, "aim"))
        loss = torch.zeros(())
        for _ in range(self.config.prompt_steps):
            drawn = rng.sample(list(rows), min(self.config.prompt_batch, len(rows)))
            refusals = [rng.choice(self.config.refusals) for _ in drawn]
            loss = self.refusing(model, drawn, refusals, prompt)
            (prompt.grad,) = torch.autograd.grad(loss, prompt)
            optimizer.step()
            with torch.no_grad():
                prompt.clamp_(-self.config.prompt_size, self.config.prompt_size)
        log.info("with the visual prompt a refusal costs the base %.2f nats per token", loss.item())
        return prompt.detach()

    def refusing(self, model: Any, rows: Sequence[Example], refusals: Sequence[str], prompt: Tensor) -> Tensor:
        """Negative log-likelihood of refusals where pictures carry a visual prompt: mean over tokens, then over rows."""
        encoder = self.context.encoder
        encoded = [encoder.row(row, answer=refusal) for row, refusal in zip(rows, refusals, strict=True)]
        batch = encoder.collate(encoded).to(self.context.device)
        pixels = {"pixel_values": self._prompted(encoded, prompt)["pixel_values"]}
        logits = answer_logits(model, replace(batch, model_inputs={**batch.model_inputs, **pixels}))
        return mean_over_examples(answer_nll(logits, batch.answers.targets), batch.owners, len(batch.ids))

    def _neutral(self, model: Any) -> list[Example]:
        """Drawn pictures with the base's own sampled answers, as the Fisher information is defined."""
        context, seed = self.context, derive_seed(self.context.seed, "fisher")
        rows = neutral_examples(self.config.fisher_rows, seed, pictures=1.0)

        def say(asked: Sequence[Example]) -> list[str]:
            prompts = context.encoder.prompts(asked).to(context.device)
            return sample_answers(model, context.encoder.tokenizer, prompts, asked, seed)

        return own_answers(rows, say)

    def loss(self, model: Any, batch: StepBatch) -> LossOutput:
        """Distance from the target + mu x weighted change of weights; retain rows, and rows without pictures, count for nothing."""
        zero = torch.zeros((), device=self.context.device)
        if not batch.forget:
            return LossOutput(zero, {"retain": zero} if batch.retain else {})
        moved = sum((f * (p - p0).square()).sum() for f, p, p0 in zip(self.fisher, self.trained, self.start, strict=True))
        parts = {"match": zero, "fisher": moved / max(self.scale, 1e-12)}
        if rows := with_pictures(batch.forget):
            targets = [self._targets.get(row.images).to(zero.device) for row in rows]
            parts["match"] = visual_drift(self.sight.of(model, rows), targets).sum() / len(batch.forget)
        total = parts["match"] + self.config.fisher_weight * parts["fisher"]
        return LossOutput(total, {name: part.detach() for name, part in parts.items()})
