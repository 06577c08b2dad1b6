"""The model as it is: what every other method is measured against."""

from __future__ import annotations

from vgid.methods.base import METHODS, Method, MethodConfig


class UntouchedConfig(MethodConfig):
    """Nothing to set."""


@METHODS.register("untouched")
class Untouched(Method[UntouchedConfig]):
    """Does nothing."""

    Config = UntouchedConfig
    kind = "reference"
    trains = False
