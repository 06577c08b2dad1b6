"""The policy of an audit: which attacks must fail, how much they may recover, and what evidence a verdict needs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from vgid.attacks import ATTACKS, Attack
from vgid.attacks.base import Profile as Profile
from vgid.config import explain
from vgid.errors import ConfigError
from vgid.reading import LARGEST_YAML, parse_yaml, read_text


class Rule(BaseModel):
    """The part of a policy that is about one attack. In a policy, what a rule leaves out is taken from the attack.

    Attributes:
        most: largest recovered share, in [0, 1), with which the attack is passed; see `Attack.most` for how it was calibrated.
        required: whether the verdict of the whole audit depends on this attack.
        settings: settings of the attack that replace those of the profile.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    most: float = Field(default=0.1, ge=0, lt=1)
    required: bool = True
    settings: dict[str, Any] = Field(default_factory=dict)


class Policy(BaseModel):
    """The rules of an audit, fixed before it starts. The defaults were calibrated together with the attacks (docs/audit.md).

    Attributes:
        utility_floor: least share of the retain rows answered by the base that the audited model must still answer.
        least_facts: least number of facts known by the base; with fewer, nothing is decided.
        least_people: least number of people that these facts are about.
        least_known: least share of the forget set that the base knew; with less, there was nothing to forget.
        least_power: least share of the known facts, beyond guessing, that an attack must recover from the base to show anything.
        least_agreement: least share of a served model's answers that must equal those of the audited one.
        significance: in an audit of few people, the probability of failing a model that never knew the facts, over all levels.
        strict: whether a required attack that does not apply or shows nothing keeps an audit from passing.
        attacks: the attacks to run, in this order, with their rules.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    utility_floor: float = Field(default=0.9, ge=0, le=1)
    least_facts: int = Field(default=20, ge=1)
    least_people: int = Field(default=3, ge=1)
    least_known: float = Field(default=0.2, gt=0, le=1)
    least_power: float = Field(default=0.2, ge=0, le=1)
    least_agreement: float = Field(default=0.9, ge=0, le=1)
    significance: float = Field(default=0.05, gt=0, lt=1)
    strict: bool = False
    attacks: dict[str, Rule] = Field(min_length=1)

    @field_validator("attacks", mode="before")
    @classmethod
    def _with_thresholds(cls, rules: Any) -> Any:
        """Fill in what a rule leaves out; what is not valid is left for the validation that follows."""
        filled = dict(rules) if isinstance(rules, Mapping) else {}
        for name, rule in filled.items():
            if isinstance(name, str) and isinstance(rule, Mapping):
                try:
                    attack = ATTACKS.get(name)
                except ConfigError:  # unknown, or of a broken package: `attack` says so
                    continue
                filled[name] = {"most": attack.most, "required": attack.required, **rule}
        return filled or rules

    def attack(self, name: str, profile: Profile) -> Attack[Any]:
        """Make an attack with the settings of a profile and, over them, the policy's own.

        Raises:
            ConfigError: unknown attack, or settings that it does not have.
        """
        kind = ATTACKS.get(name)
        settings = {**(kind.full if profile == "full" else {}), **self.attacks[name].settings}
        try:
            return kind(kind.Config(**settings))
        except ValidationError as error:
            problems = explain(error, kind.Config, f"attacks.{name}.settings.")
            raise ConfigError("the policy is not valid", got="\n  ".join(["", *problems])) from error


def default_policy(profile: Profile = "quick") -> Policy:
    """The package's own policy for a profile: every attack that asks for a place in it, with the attack's own threshold.

    Args:
        profile: `full` adds the attacks that are too slow for a quick audit.

    Returns:
        The policy.

    Raises:
        ConfigError: an attack of another package has a threshold or settings that are not valid.
    """
    attacks = {name: ATTACKS.get(name) for name in ATTACKS}
    chosen = {name: attack for name, attack in attacks.items() if attack.profile in ("quick", profile)}
    ordered = sorted((attack.position, name) for name, attack in chosen.items() if attack.position is not None)
    return _validated({"attacks": {name: {} for _, name in ordered}}, "the package's own policy")


def load_policy(path: str | Path | None = None, profile: Profile = "quick") -> Policy:
    """Read a policy file.

    Args:
        path: the file; None for the package's own policy.
        profile: the profile of the audit; a policy file holds for all of them.

    Returns:
        The policy.

    Raises:
        ConfigError: no such file, not a YAML mapping, unknown keys or attacks, or values out of range.
    """
    if path is None:
        return default_policy(profile)
    if not Path(path).is_file():
        raise ConfigError("no such policy file", where=str(path), expected="a YAML file", fix="check the path")
    return read_policy(read_text(Path(path), ConfigError, largest=LARGEST_YAML), str(path))


def read_policy(text: str, where: str) -> Policy:
    """Read a policy from YAML, and validate it as a whole, with the settings of its attacks.

    Args:
        text: the YAML text.
        where: name of the file, for error messages.

    Returns:
        The policy.

    Raises:
        ConfigError: not a YAML mapping, unknown keys or attacks, or values out of range.
    """
    values = parse_yaml(text, where, ConfigError)
    if not isinstance(values, Mapping) or not all(isinstance(key, str) for key in values):
        raise ConfigError("the policy is not a mapping", where=where, expected="key: value lines", got=type(values).__name__)
    return _validated(values, where)


def _validated(values: Mapping[str, Any], where: str) -> Policy:
    try:
        policy = Policy(**values)
    except ValidationError as error:
        raise ConfigError("the policy is not valid", where=where, got="\n  ".join(["", *explain(error, Policy, "")])) from error
    for name in policy.attacks:
        policy.attack(name, "quick")
        policy.attack(name, "full")
    return policy
