"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vgid.errors import ConfigError

Out = Annotated[Path, typer.Option("--out", help="Folder for the results; must be new or empty.", file_okay=False)]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier run left in the folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print the results object alone on stdout.")]
Recipe = Annotated[str | None, typer.Option(help="Built-in recipe (default, paper, own-data ...) or a YAML file.")]
Method = Annotated[str | None, typer.Option(help="A method of `vgid methods`, with settings that fit it, in place of VGID.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="Change one setting: a.b=c.")]
AllowUnknown = Annotated[bool, typer.Option("--allow-unknown", help="Go on although the model does not know the forget set.")]
Sample = Annotated[int, typer.Option(min=1, help="Forget rows that the preflight asks the model and the teacher.")]
Bench = Annotated[str | None, typer.Option("--benchmark", help="Read the data as a benchmark, such as mllmu or clear.")]
Part = Annotated[str | None, typer.Option("--forget-part", help="Which forget set of the benchmark, such as 5 or 10.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Everything random follows from it.")]


def run_config(method: str | None, recipe: str | None, settings: list[str] | None, retain_ratio: float | None, seed: int | None) -> Any:
    """The configuration that a command's options describe, as `vgid.config.RunConfig`."""
    from vgid.config import load_config, method_config

    overrides = [*(settings or [])]
    overrides += [f"training.retain_ratio={retain_ratio}"] if retain_ratio is not None else []
    overrides += [f"seed={seed}"] if seed is not None else []
    if method is None:
        return load_config(recipe, overrides)
    if recipe is not None:
        raise ConfigError("a recipe names its method itself", got=f"--method {method} and --recipe {recipe}", fix="leave one of them out")
    return method_config(method, overrides)
