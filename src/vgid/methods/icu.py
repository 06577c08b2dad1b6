"""ICU: in-context unlearning (after Pawelczyk et al., arXiv 2310.07579), the control that trains nothing.

The checkpoint stays as it is. Every question that is put to the model, about whomever, gets an instruction in front of it, and its
pictures get noise if configured: whoever serves the model does not know whom a question is about. The paper puts relabelled examples into
the prompt; here it is an instruction, the same that VGID's teacher reads, so that the two compare. Taken without its wrapper the
model has forgotten nothing.
"""

from __future__ import annotations

import logging
from typing import Any, ClassVar

from pydantic import model_validator

from vgid.data.batching import EncodedRow, Encoder, Pictures
from vgid.data.example import Example
from vgid.data.picture_size import PictureSize
from vgid.instructions import INSTRUCTIONS, instruction_text
from vgid.methods.base import METHODS, Context, Method, MethodConfig, Search
from vgid.perturbation import NoiseConfig, perturb_row

log = logging.getLogger("vgid")


class ICUConfig(MethodConfig):
    """Settings of ICU.

    Attributes:
        instruction: name of a built-in instruction, or a text; empty for none, where there is noise.
        noise: how pictures are perturbed; kind `none` leaves them alone.
    """

    instruction: str = "forget"
    noise: NoiseConfig = NoiseConfig(kind="none")

    @model_validator(mode="after")
    def _does_something(self) -> ICUConfig:
        if not self.instruction and self.noise.kind == "none":
            raise ValueError("method.instruction is empty and method.noise.kind is none, so that nothing would change; give one of them")
        return self

    @property
    def text(self) -> str:
        """The instruction itself."""
        return instruction_text(self.instruction)


class InContext(Encoder):
    """Puts every question behind the instruction, and noise on its pictures, unless it brings an instruction or pictures of its own."""

    def __init__(self, processor: Any, config: ICUConfig, seed: int, size: PictureSize | None = None) -> None:
        super().__init__(processor, size=size)
        self.config, self.seed, self.plain = config, seed, Encoder(processor, size=size)

    def row(self, example: Example, instruction: str | None = None, answer: str | None = "", images: Pictures | None = None) -> EncodedRow:
        """Encode one example as the wrapped model is asked.

        Args:
            example: the row.
            instruction: text before the question; None takes the configured instruction.
            answer: answer to append; "" takes the recorded one, None none.
            images: pictures in place of the row's own; they are not perturbed.

        Returns:
            The encoded row.
        """
        instruction = instruction if instruction is not None else self.config.text
        if images is not None:
            return self.plain.row(example, instruction, answer, images)
        return perturb_row(self.plain, example, self.config.noise, seed=(self.seed, "icu"), instruction=instruction, answer=answer)


@METHODS.register("icu")
class ICU(Method[ICUConfig]):
    """Ask the untouched model with an instruction to forget."""

    Config = ICUConfig
    kind = "inference"
    paper = "2310.07579"
    needs = ("a wrapper wherever the model is served",)
    trains = False
    search: ClassVar[Search] = {"method.instruction": tuple(INSTRUCTIONS), "method.noise.kind": ("none", "uniform", "blur")}

    def prepare(self, model: Any, context: Context) -> None:
        """Say that the weights keep everything."""
        super().prepare(model, context)
        log.warning("icu changes no weights: a checkpoint written from it has forgotten nothing unless it is asked through the wrapper")

    def make_encoder(self, processor: Any) -> Encoder:
        """The wrapper."""
        return InContext(processor, self.config, self.context.seed, self.context.encoder.size)
