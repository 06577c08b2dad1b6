"""The model as it is: what every other method is measured against."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from vgid.methods.base import METHODS, Method


class UntouchedConfig(BaseModel):
    """Nothing to set."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@METHODS.register("untouched")
class Untouched(Method[UntouchedConfig]):
    """Does nothing."""

    Config = UntouchedConfig
    kind = "reference"
    trains = False
