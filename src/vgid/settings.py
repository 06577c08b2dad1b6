"""The settings of a run that every method shares: training, early stopping, adapter. Their defaults are meant for real checkpoints.

This module imports nothing else of the package. A method's own settings are in its file; recipes and overrides are read by
`vgid.config`.
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

DEFAULT_METHOD = "vgid"
"""The method of a run that names none."""
LARGEST = 10**7
"""Steps, epochs and ranks, at most: above, sums of them no longer fit into what PyTorch counts with."""
MOST_ROWS = 4096
"""Rows of a step, at most: a step of more would end after hours, since as many passes are made as memory needs. Chosen by hand."""
LARGEST_SEED = 2**32 - 1
"""The largest seed that all random generators take; NumPy has the smallest range."""
Part = Literal["language", "projector", "vision"]
"""A part of a vision-language model: decoder with embeddings and head, projector, vision tower."""
Precision = Literal["auto", "fp32", "bf16"]


class Settings(BaseModel):
    """Base of all settings: immutable, and an unknown key is an error that names the nearest known one.

    Attributes:
        renamed: former keys, each with what to write in its place; using one is an error that says so.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    renamed: ClassVar[dict[str, str]] = {}


class AdapterConfig(Settings):
    """LoRA (arXiv 2106.09685).

    Attributes:
        rank: rank of the update.
        alpha: the update is scaled by alpha / rank.
        dropout: probability of dropping an input of the update during training.
        scope: parts of the model whose linear layers get an adapter.
        targets: linear layers that get an adapter, in place of `scope`: a list of names, each a whole dotted name or the end of one (as
            in PEFT, `q_proj` is the layer of that name in every part of the model), or one regular expression for whole dotted names.
        init: how the adapter's first matrix is drawn; the second is zero, so the update starts at zero.
        whole_projector: train the projector's own weights beside the adapter.
        quantise: `4bit` holds the frozen decoder in 4 bits (QLoRA, arXiv 2305.14314); the exported model has full precision.
    """

    rank: int = Field(default=16, ge=1, le=LARGEST)
    alpha: float = Field(default=32, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    scope: tuple[Part, ...] = ("language",)
    targets: tuple[str, ...] | str | None = None
    init: Literal["default", "gaussian"] = "default"
    whole_projector: bool = False
    quantise: Literal["4bit"] | None = None


class DataConfig(Settings):
    """How rows are read, and at which size pictures are shown to the model.

    Attributes:
        turns: of a conversation, `last` takes the last answer, with what was said before as context; `all` makes a row of each answer.
        image_root: folder that image paths are relative to and must stay in; null for the data file's own.
        max_pixels: pixels of a picture, at most; larger ones are scaled down. null leaves it to the model's processor. The written model
            keeps its own settings.
        image_size: the longer side of a picture in pixels, at most, in the same way.
        prompt: text of a row in training, in place of the model's chat template, with `{question}`, `{answer}` and, where the row's
            pictures go, `<image>`. Nothing else is written, so without an end token after `{answer}` none is trained. The written model
            keeps its chat template.
    """

    turns: Literal["last", "all"] = "last"
    image_root: str | None = None
    max_pixels: int | None = Field(default=None, ge=1)
    image_size: int | None = Field(default=None, ge=1)
    prompt: str | None = None

    def model_post_init(self, _: object) -> None:
        """Raise an error for a prompt without its places."""
        if self.prompt is not None and not re.fullmatch(r"[^{}]*\{question\}[^{}]*\{answer\}[^{}]*", self.prompt):
            raise ValueError("a prompt has one {question} and, after it, one {answer}")


class TrainingConfig(Settings):
    """How a model is trained.

    Attributes:
        steps: optimizer steps; null takes `epochs` passes over the forget set (over the retain set when nothing is forgotten).
        epochs: passes over the forget set; used only when `steps` is null.
        min_steps: optimizer steps at least, when they follow from `epochs` and something is forgotten: three epochs over the 8 rows of a
            single request would be 6 steps, which forget nothing. Such a run does not stop early before.
        forget_batch: forget rows in a step.
        retain_batch: retain rows in a step; null takes `retain_ratio` x `forget_batch`.
        retain_ratio: retain rows per forget row.
        pack: how many questions about one picture may share a row, which is faster; 1 keeps every question in a row of its own.
        learning_rate: peak of the schedule; `auto` is 0.4 divided by the width of the language model (1e-4 at 7 B), and a tenth of that
            without an adapter.
        schedule: course of the learning rate after the warm-up.
        warmup_steps: steps of linear warm-up.
        optimizer: `adamw`, or `muon` for matrices and AdamW for the rest (full-parameter training of small models).
        weight_decay: decoupled weight decay.
        max_grad_norm: gradients are clipped to this norm; 0 does not clip.
        precision: `bf16` computes in bfloat16 (autocast), `fp32` in float32; `auto` takes bf16 on a GPU that has it, else fp32.
        gradient_checkpointing: keep only the inputs of layers and compute the rest twice: less memory, about a third more time;
            `auto` does so when a step would not fit into free memory otherwise.
        torch_compile: compile the decoder's layers; the first steps take a minute or two, the others less time. `auto` does so on a GPU, in
            runs that are long enough to gain by it.
        report_to: trackers that get loss curves, such as `tensorboard` or `wandb`.
        parts: what full-parameter training (`adapter: null`) trains.
        max_tokens: tokens that go through the model at once, padding included; a longer row goes alone. `auto` is what free memory
            holds by the measured cost of a token, null sets no limit. A run that finds memory too small halves it once. The result is
            the same.
        micro_batch: rows that go through the model at once; null takes as many as `max_tokens` allows. The result is the same.
        checkpoint_every: steps between two checkpoints of `unlearn`; 0 writes one at a signal and at the end only.
        shard: spread parameters, gradients and optimizer over the processes (FSDP2), when a launcher started several.
    """

    steps: int | None = Field(default=None, ge=1, le=LARGEST)
    epochs: float = Field(default=3.0, gt=0, le=LARGEST)
    min_steps: int = Field(default=200, ge=1, le=LARGEST)
    forget_batch: int = Field(default=4, ge=1, le=MOST_ROWS)
    retain_batch: int | None = Field(default=None, ge=0, le=MOST_ROWS)
    retain_ratio: float = Field(default=4.0, ge=0, le=MOST_ROWS)
    pack: int = Field(default=4, ge=1)
    learning_rate: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_steps: int = Field(default=10, ge=0, le=LARGEST)
    optimizer: Literal["adamw", "muon"] = "adamw"
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, ge=0)
    precision: Precision = "auto"
    gradient_checkpointing: bool | Literal["auto"] = "auto"
    torch_compile: bool | Literal["auto"] = "auto"
    report_to: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ("language", "projector")
    max_tokens: Annotated[int, Field(ge=1, le=LARGEST)] | Literal["auto"] | None = "auto"
    micro_batch: int | None = Field(default=None, ge=1)
    checkpoint_every: int = Field(default=25, ge=0, le=LARGEST)
    shard: bool = False

    @model_validator(mode="after")
    def _check_rows(self) -> Self:
        if self.retain_rows > MOST_ROWS:
            raise ValueError(f"retain_ratio x forget_batch is {self.retain_rows} rows in a step, of at most {MOST_ROWS}")
        return self

    @property
    def retain_rows(self) -> int:
        """Retain rows in a step."""
        return round(self.retain_ratio * self.forget_batch) if self.retain_batch is None else self.retain_batch


class ValidationConfig(Settings):
    """Early stopping on a part of the forget and retain rows that is never trained on.

    Attributes:
        every: steps between two evaluations; 0 switches early stopping off.
        share: fraction of each set that is held out.
        rows: held-out rows of each set, at most.
        forget_target: training may stop when at most this fraction of the held-out forget rows is still recalled word for word.
        utility_floor: ... and at least this fraction still is of the held-out retain rows that the base recalled and did not guess (each
            token had a probability of 0.7 or more, or it is one of the 16 of which the base was surest).
        patience: evaluations in a row that must meet both targets before training stops early.
        probes: where there are fewer than 1000 retain rows, ask the base about other people, by name and about pictures that it takes
            for them; its answers are held out too (`vgid.data.probes`).
        most_lost: largest share of these held-out retain rows, which are never trained on, that the model may have lost, as a mean of rows
            with pictures and without where there are eight or more of each; a run that lost more ends with exit code 3.
        most_subjects_lost: number of subjects of the retain set of whose rows the model may have lost half or more, of the 64 subjects with
            the most rows; a run that lost more ends with exit code 3.
    """

    every: int = Field(default=25, ge=0, le=LARGEST)
    share: float = Field(default=0.05, gt=0, lt=1)
    rows: int = Field(default=128, ge=1)
    forget_target: float = Field(default=0.0, ge=0, le=1)
    utility_floor: float = Field(default=0.98, ge=0, le=1)
    patience: int = Field(default=3, ge=1)
    probes: bool = True
    most_lost: float = Field(default=0.1, ge=0, le=1)
    most_subjects_lost: int = Field(default=0, ge=0)
