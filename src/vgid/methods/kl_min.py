r"""KL minimisation (TOFU, arXiv 2401.06121), on answer tokens only:

.. math:: L = -\ell(x_f, y) + \alpha E_r[mean_t KL(p_0 \| p)]

TOFU's script averages the divergence over prompt and padding as well; here it is taken where answers are predicted.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vgid.methods.base import METHODS
from vgid.methods.common.terms import RetainConfig
from vgid.methods.grad_diff import GradDiff


class KLMinConfig(RetainConfig):
    """Settings of KL minimisation: `retain_weight` is the paper's alpha."""

    retain_loss: Literal["ce", "kl"] = Field(default="kl")


@METHODS.register("kl_min")
class KLMin(GradDiff):
    """Ascend on the forget set, stay near the base on the retain set."""

    Config = KLMinConfig
    needs = ("retain data", "the untouched base")
