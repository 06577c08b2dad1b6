"""The policy: which attacks must fail, how much may come back, and what an audit needs to say anything at all."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vgid.attacks import ATTACKS, Attack
from vgid.config import explain
from vgid.errors import ConfigError

Profile = Literal["quick", "full"]


class Rule(BaseModel):
    """What holds for one attack.

    Attributes:
        most: recovered share that is allowed.
        required: whether the overall verdict depends on it.
        settings: of the attack, over those of the profile.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    most: float = Field(default=0.1, ge=0, lt=1)
    required: bool = True
    settings: dict[str, Any] = Field(default_factory=dict)


class Policy(BaseModel):
    """Thresholds of an audit.

    Attributes:
        utility_floor: least part of what the base answers on the retain set that must still be answered.
        least_facts: least number of facts the base knew for a verdict.
        least_people: least number of people they are about.
        least_known: least part of the forget set that the base knew.
        least_power: least part of what the base knew that an attack must get out of the base itself to show anything.
        least_agreement: least part of a served model's answers that must be those of the audited one.
        strict: whether a required attack that does not apply or shows nothing keeps an audit from passing.
        attacks: which are tried, and their rules.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    utility_floor: float = Field(default=0.9, ge=0, le=1)
    least_facts: int = Field(default=20, ge=1)
    least_people: int = Field(default=3, ge=1)
    least_known: float = Field(default=0.2, gt=0, le=1)
    least_power: float = Field(default=0.2, ge=0, le=1)
    least_agreement: float = Field(default=0.9, ge=0, le=1)
    strict: bool = False
    attacks: dict[str, Rule] = Field(min_length=1)

    def attack(self, name: str, profile: Profile) -> Attack[Any]:
        """An attack with the settings of the profile and the policy's own.

        Raises:
            ConfigError: unknown attack, or settings it does not have.
        """
        kind = ATTACKS.get(name)
        settings = {**(kind.full if profile == "full" else {}), **self.attacks[name].settings}
        try:
            return kind(kind.Config(**settings))
        except ValidationError as error:
            problems = explain(error, kind.Config, f"attacks.{name}.settings.")
            raise ConfigError("the policy is not valid", got="\n  ".join(["", *problems])) from error


def load_policy(path: str | Path | None = None) -> Policy:
    """Read a policy file; None reads the one that comes with the package.

    Raises:
        ConfigError: no such file, no YAML mapping, unknown keys or attacks, values out of range.
    """
    if path is None:
        return read_policy((files("vgid.auditing") / "policy.yaml").read_text("utf-8"), "policy.yaml")
    if not Path(path).is_file():
        raise ConfigError("no such policy file", where=str(path), expected="a YAML file", fix="check the path")
    return read_policy(Path(path).read_text("utf-8"), str(path))


def read_policy(text: str, where: str) -> Policy:
    """Validate a policy as a whole, the attacks' settings included.

    Raises:
        ConfigError: as `load_policy`.
    """
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError("the policy is no valid YAML", where=where, got=str(error)) from error
    if not isinstance(values, Mapping):
        raise ConfigError("the policy is no mapping", where=where, expected="key: value lines", got=type(values).__name__)
    try:
        policy = Policy(**values)
    except ValidationError as error:
        raise ConfigError("the policy is not valid", where=where, got="\n  ".join(["", *explain(error, Policy, "")])) from error
    for name in policy.attacks:
        policy.attack(name, "quick")
        policy.attack(name, "full")
    return policy
