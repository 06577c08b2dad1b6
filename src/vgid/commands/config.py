"""`vgid config` and `vgid recipes`."""

from __future__ import annotations

from vgid.commands.options import Json, Method, Recipe, RunSeed, Set, run_config
from vgid.commands.root import app
from vgid.commands.show import show, terminal


@app.command()
def config(recipe: Recipe = None, method: Method = None, settings: Set = None, seed: RunSeed = None, as_json: Json = False) -> None:
    """Print the settings that a run would have, as YAML with the meaning of each; it can be given back as --recipe."""
    resolved = run_config(recipe, method, settings, seed)
    if as_json:
        show(resolved.model_dump(mode="json"), True)
        return
    from vgid.settings_reference import as_yaml

    print(as_yaml(resolved), end="")


@app.command()
def recipes(as_json: Json = False) -> None:
    """List the built-in recipes: name, method and what each is for."""
    from vgid.config import read_recipe, recipe_names
    from vgid.report.table import recipes_table
    from vgid.settings import DEFAULT_METHOD

    found = [read_recipe(name) for name in recipe_names()]
    rows = [{"name": each.name, "method": each.values.get("method", {}).get("name", DEFAULT_METHOD), "about": each.about} for each in found]
    if as_json:
        show(rows, True)
        return
    terminal().print(recipes_table(rows))
