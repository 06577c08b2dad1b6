"""Recipes, overrides, and what is said about mistakes in them."""

from pathlib import Path

import pytest

from vgid.benchmarking.bench import BenchmarkChoice
from vgid.benchmarks import BENCHMARKS
from vgid.config import load_config, read_recipe, recipe_names, resolve, validate_config
from vgid.errors import ConfigError
from vgid.methods import METHODS


@pytest.mark.parametrize("recipe", recipe_names())
def test_every_built_in_recipe_is_valid(recipe: str) -> None:
    config = load_config(recipe)
    # What is written into the results reads back as the same configuration.
    assert validate_config(config.model_dump(mode="json")) == config
    special = "vgid_released" if recipe.startswith("released") else "finetune" if recipe.endswith("-finetune") else None
    assert config.method.name == (special or "vgid")


def test_halves_of_the_teacher_are_recipes() -> None:
    parts = {name: load_config(name).build_method().config for name in ("noise-only", "instruction-only", "on-policy")}
    assert parts["noise-only"].instruction is None and parts["noise-only"].noise.kind == "uniform"
    assert parts["instruction-only"].instruction == "forget" and parts["instruction-only"].noise.kind == "none"
    assert parts["on-policy"].answers == ("student",)


def test_recipes_for_models_save_memory_and_end() -> None:
    models = {
        "llava-1.5-7b-mllmu-paper",
        "llava-1.5-7b-clear-paper",
        "qwen2.5-vl-7b",
        "gemma-3-4b",
        "smolvlm-256m",
        "own-data",
        "no-retain",
    }
    learning = {f"{name}-finetune" for name in ("llava-1.5-7b-mllmu", "llava-1.5-7b-clear", "llava-phi-3-fiubench")}
    of_the_method = {"demo", "paper", "released", "released-readme", "noise-only", "instruction-only", "on-policy"}
    assert models | learning | of_the_method == set(recipe_names())
    for config in map(load_config, models):
        assert config.training.gradient_checkpointing == config.training.precision == "auto" and config.training.steps is None
        assert config.adapter is not None and config.adapter.scope == ("language",)
        assert config.training.learning_rate == "auto" or config.training.learning_rate < 1e-3
    assert load_config("no-retain").neutral_retain == 256 and not load_config("own-data").neutral_retain
    paper, mllmu = load_config("paper"), load_config("llava-1.5-7b-mllmu-paper")
    assert mllmu.method == paper.method and mllmu.adapter == paper.adapter
    assert mllmu.training.learning_rate == paper.training.learning_rate and mllmu.training.forget_batch == paper.training.forget_batch


def test_recipes_of_benchmarks_fit_them() -> None:
    named = {name: BenchmarkChoice(**choice) for name in recipe_names() if (choice := read_recipe(name).benchmark)}
    assert {name: (choice.name, choice.forget) for name, choice in named.items()} == {
        "llava-1.5-7b-mllmu-paper": ("mllmu", "5"),
        "llava-1.5-7b-clear-paper": ("clear", "05"),
        "llava-1.5-7b-mllmu-finetune": ("mllmu", "5"),
        "llava-1.5-7b-clear-finetune": ("clear", "05"),
        "llava-phi-3-fiubench-finetune": ("fiubench", "5"),
    }
    paper = load_config("paper")
    for name, choice in named.items():
        kind = BENCHMARKS.get(choice.name)
        # They can be opened for every forget set, with the published protocol, and are the paper's method.
        assert kind.Protocol(**choice.protocol).deviations() == {} and choice.forget in kind.forget_sets
        assert kind.source is not None and choice.data == kind.source.id and choice.train == (kind.training and kind.training.id)
        config = load_config(name)
        if name.endswith("-finetune"):
            continue
        learns = read_recipe(str(read_recipe(name).finetune))  # what makes the model that this one unlearns
        assert learns.benchmark == read_recipe(name).benchmark and learns.values["method"] == {"name": "finetune"}
        assert (config.method, config.adapter, config.training.learning_rate) == (paper.method, paper.adapter, paper.training.learning_rate)


def test_defaults_are_meant_for_real_checkpoints() -> None:
    config, demo = load_config(None), load_config("demo")
    assert config.training.learning_rate == "auto" and config.training.steps is None and config.adapter is not None
    assert config == load_config("own-data") and (config.adapter.rank, config.adapter.alpha) == (16, 32)
    assert (demo.training.learning_rate, demo.training.steps) == (2e-3, 200)


def test_released_recipe_is_the_released_script() -> None:
    config, readme = load_config("released"), load_config("released-readme")
    assert config.method.name == "vgid_released" and config.build_method().alternates
    assert config.adapter is not None and (config.adapter.rank, config.adapter.alpha, config.adapter.dropout) == (16, 16, 0.05)
    assert config.adapter.targets == ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert (config.training.max_grad_norm, config.data.prompt) == (0, "USER: <image>\n{question}\nASSISTANT: {answer}")
    assert (config.training.learning_rate, config.training.epochs) == (5e-4, 5)
    assert (readme.training.learning_rate, readme.training.epochs) == (2e-5, 1)
    same = {"training": config.training}
    assert readme.model_copy(update=same) == config and readme.training != config.training


def test_overrides_reach_every_level() -> None:
    config = load_config(None, ["seed=7", "training.learning_rate=2e-4", "method.noise.kind=blur", "adapter=null"])
    assert config.seed == 7 and config.training.learning_rate == 2e-4 and config.adapter is None
    assert config.build_method().config.noise.kind == "blur"


def test_recipe_file(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("training: {steps: 5}\n")
    assert load_config(tmp_path / "mine.yaml", ["training.forget_batch=2"]).training.steps == 5


def test_all_problems_at_once_with_the_nearest_names() -> None:
    overrides = ["training.learnin_rate=1", "method.nois.kind=x", "validation.every=-1", "sed=1"]
    with pytest.raises(ConfigError) as caught:
        load_config(None, overrides)
    text = str(caught.value)
    assert "training.learnin_rate: unknown key; did you mean 'learning_rate'?" in text
    assert "method.nois: unknown key; did you mean 'noise'?" in text
    assert "validation.every: Input should be greater than or equal to 0, got -1" in text
    assert "sed: unknown key; did you mean 'seed'?" in text
    with pytest.raises(ConfigError, match=r"training.learning-rate: unknown key; did you mean 'learning_rate'\?"):
        load_config(None, ["training.learning-rate=1"])


@pytest.mark.parametrize(
    ("recipe", "overrides", "message"),
    [
        ("papr", [], "did you mean 'paper'"),
        ("missing.yaml", [], "no such recipe file"),
        (None, ["method.name=vgd"], "did you mean 'vgid'"),
        (None, ["seed"], "key.subkey=value"),
        (None, ["seed=1", "seed.x=2"], "an override sets a key below a scalar"),
        (None, ["seed=[1"], "--set seed:1: not valid YAML"),
        (None, ["method.positions=all"], "renamed; it is now the method vgid_released"),
        (None, ["method.sparring=0"], r"renamed; it is now adversary"),
        (None, ["method.hold=1"], "renamed; it is now guess_penalty"),
        (None, ["benchmark.name=mllmu"], "a recipe's `benchmark:` section"),
    ],
)
def test_mistakes_have_one_clear_message(recipe: str | None, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(recipe, overrides)


@pytest.mark.parametrize(("text", "message"), [("- a\n- b\n", "not a mapping"), ("a: [", "not valid YAML")])
def test_broken_recipe_files(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "broken.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(tmp_path / "broken.yaml")


def test_a_method_cannot_be_registered_twice() -> None:
    with pytest.raises(ConfigError, match="'vgid' is registered twice"):
        METHODS.register("vgid")(METHODS.get("vgid"))


@pytest.mark.parametrize("name", METHODS)
def test_every_way_to_a_method_gives_the_same_settings(name: str) -> None:
    """By option, by override, by recipe: one order, defaults < the method's own < recipe < overrides."""
    config = resolve(method=name)
    assert config == load_config(None, [f"method.name={name}"]) == load_config(None, [f"method={name}"])
    assert config == validate_config(config.model_dump(mode="json")) and type(config.method) is METHODS.get(name).Config
    own = {key: value for key, value in METHODS.get(name).defaults.items() if key == "training.learning_rate"}
    assert all(config.training.learning_rate == value for value in own.values())
    assert resolve(None, ["training.learning_rate=0.5"], method=name).training.learning_rate == 0.5


def test_method_and_recipe_combine() -> None:
    """The recipe's shared settings hold for the method, but not the settings of the recipe's own method, nor its kind of training."""
    paper, npo, whole = load_config("paper"), resolve("paper", method="npo"), resolve("paper", method="mmunlearner")
    assert (npo.training, npo.adapter, npo.validation) == (paper.training, paper.adapter, paper.validation)
    assert npo.method == resolve(method="npo").method and whole.adapter is None
    assert resolve("paper", ["method.beta=0.5"], method="vgid").method == load_config("paper", ["method.beta=0.5"]).method
    with pytest.raises(ConfigError, match="two methods are named"):
        resolve(None, ["method.name=ga"], method="npo")


def test_recipes_extend_others(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("extends: paper\ntraining: {epochs: 7}\n")
    (tmp_path / "mine.yaml").write_text("about: mine\nextends: base.yaml\nmethod: {beta: 3.0}\n")
    config, paper = load_config(tmp_path / "mine.yaml"), load_config("paper")
    assert config.training == paper.training.model_copy(update={"epochs": 7.0}) and config.adapter == paper.adapter
    assert config.method == paper.method.model_copy(update={"beta": 3.0}) and read_recipe(tmp_path / "mine.yaml").about == "mine"
    (tmp_path / "base.yaml").write_text("extends: mine.yaml\n")
    with pytest.raises(ConfigError, match="extend each other in a circle"):
        load_config(tmp_path / "mine.yaml")
