"""Evaluation from end to end: resumed after a kill, never with stale answers; private files; one page; batched as one by one."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.benchmarks import fixtures
from vgid.benchmarking import asking
from vgid.benchmarking.asking import ask, check_items, compute_figures, run_fingerprint
from vgid.benchmarking.evaluate import build_benchmark_results, published_figures, run_benchmark
from vgid.benchmarking.splits import open_benchmark, parse_protocol
from vgid.benchmarking.store import AnswerStore, model_fingerprint
from vgid.benchmarks.base import Answer, Answered, Benchmark, Item
from vgid.benchmarks.clear import CLEAR
from vgid.benchmarks.common.files import locate
from vgid.benchmarks.mllmu import MLLMU
from vgid.data.example import Example
from vgid.errors import ConfigError, DataError, OutputError
from vgid.evaluation.generation import OnAnswers, generate
from vgid.evaluation.scoring import score
from vgid.models.loading import LoadedModel, load_model
from vgid.progress import Stages
from vgid.report.benchmark import benchmark_table, published_rows, published_table, render_benchmark

KNOWN = {"path": "m", "weights": "0" * 64, "commit": None}


@pytest.fixture(scope="module")
def folder(random_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random model with a context that holds shots."""
    loaded = load_model(random_folder)
    loaded.processor.tokenizer.model_max_length = 8192
    path = tmp_path_factory.mktemp("long") / "model"
    loaded.model.save_pretrained(path)
    loaded.processor.save_pretrained(path)
    return path


def clear(root: Path, **settings: Any) -> CLEAR:
    return CLEAR(locate(root), CLEAR.Protocol(max_new_tokens=2, **settings), "10")


def answer_all(benchmark: Benchmark, loaded: LoadedModel, path: Path | None) -> dict[str, tuple[str, tuple[float, ...]]]:
    total, data = check_items(benchmark)
    with AnswerStore(path, run_fingerprint(benchmark, data, model_fingerprint(loaded))) as store:
        return {each.item.key: tuple(each.answer) for each in ask(benchmark, loaded, store, total=total, batch_size=3)}


def test_batched_answers_are_those_of_one_question_at_a_time(tmp_path: Path, folder: Path) -> None:
    loaded, benchmark = load_model(folder), clear(fixtures.write_clear(tmp_path, people=3, forget=1))
    batched = answer_all(benchmark, loaded, None)
    for item in benchmark.items():
        said = generate(loaded, [item.example], max_new_tokens=2)[0]
        losses = [score(loaded, [Example("x", item.example.question, each, item.example.images)])[0].loss for each in item.candidates]
        assert batched[item.key][0] == said and batched[item.key][1] == pytest.approx(losses, rel=1e-4)


def test_a_stopped_run_goes_on(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, benchmark = load_model(folder), clear(fixtures.write_clear(tmp_path / "data"))
    whole, file = answer_all(benchmark, loaded, None), tmp_path / "answers.jsonl"
    asked: list[str] = []

    def stopping(model: LoadedModel, examples: Sequence[Example], *, on_answers: OnAnswers, **options: Any) -> list[str]:
        def keep(places: Sequence[int], said: Sequence[str]) -> None:
            on_answers(places, said)
            asked.extend(examples[place].id for place in places)
            if len(asked) >= 6:
                raise KeyboardInterrupt

        return generate(model, examples, on_answers=keep, **options)

    monkeypatch.setattr(asking, "generate", stopping)
    with pytest.raises(KeyboardInterrupt):
        answer_all(benchmark, loaded, file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    done = len(asked)
    assert 6 <= done < len(whole) and len(file.read_text().splitlines()) == 1 + done
    # A line cut short, as by a power cut, is dropped, and asked again.
    content = file.read_bytes()
    file.write_bytes(content[: content.rstrip(b"\n").rfind(b"\n") + 9])
    again: list[str] = []

    def count(model: LoadedModel, examples: Sequence[Example], **options: Any) -> list[str]:
        again.extend(each.id for each in examples)
        return generate(model, examples, **options)

    monkeypatch.setattr(asking, "generate", count)
    resumed = answer_all(benchmark, loaded, file)
    assert {key: said for key, (said, _) in resumed.items()} == {key: said for key, (said, _) in whole.items()}
    assert all(resumed[key][1] == pytest.approx(losses, rel=1e-4) for key, (_, losses) in whole.items())
    assert len(again) == len(whole) - done + 1 and len(set(asked) & set(again)) == 1
    assert answer_all(benchmark, loaded, file) == resumed and len(again) == len(whole) - done + 1


def test_stale_answers_are_never_reused(tmp_path: Path, folder: Path) -> None:
    root, file, loaded = fixtures.write_clear(tmp_path / "data", people=3, forget=1), tmp_path / "answers.jsonl", load_model(folder)
    _, data = check_items(clear(root))

    def header() -> str:
        return json.loads(file.read_text().splitlines()[0])["fingerprint"]

    prints = [run_fingerprint(clear(root), data, model_fingerprint(loaded))]
    answer_all(clear(root), loaded, file)
    assert header() == prints[0] and run_fingerprint(clear(root), data, model_fingerprint(loaded)) == prints[0]
    prints.append(run_fingerprint(clear(root, seed=1), data, model_fingerprint(loaded)))  # protocol
    with torch.no_grad():
        next(iter(loaded.model.parameters())).view(-1)[0] += 1e-3  # model
    prints.append(run_fingerprint(clear(root), data, model_fingerprint(loaded)))
    fixtures.write_clear(root, people=3, forget=2)  # data
    prints.append(run_fingerprint(clear(root), check_items(clear(root))[1], model_fingerprint(loaded)))
    assert len(set(prints)) == 4
    with AnswerStore(file, prints[2]) as store:
        assert len(store) == 0
    assert header() == prints[2] and len(file.read_text().splitlines()) == 1
    with AnswerStore(file, prints[2]) as store:
        store.add_said("a", "Ü\n")
        store.add_losses("a", (0.1, 2.0))
    with AnswerStore(file, prints[2]) as store:
        assert (store.said("a"), store.losses("a"), store.said("b")) == ("Ü\n", (0.1, 2.0), None)
    file.write_bytes(b"rubbish")
    with AnswerStore(file, prints[2]) as store:
        assert len(store) == 0


def test_one_command_for_three_models(tmp_path: Path, folder: Path) -> None:
    root, out = fixtures.write_clear(tmp_path / "data", people=3, forget=1), tmp_path / "out"
    models = {name: (str(folder), None) for name in ("base", "unlearned", "retrained")}
    with Stages(quiet=True) as stages:
        results = run_benchmark(clear(root), models, out, stages=stages, batch_size=8)
    assert results == json.loads((out / "results.json").read_text()) and results["schema"] == "vgid.benchmark/1"
    assert results["deviations"] == {"max_new_tokens": 2} and results["questions"] == 10 and results["benchmark"]["forget"] == "10"
    assert results["figures"]["base"] == results["figures"]["unlearned"]
    # The results identify the questions and the model.
    known = results["models"]["base"]
    assert known == {"path": str(folder), "weights": model_fingerprint(load_model(folder)), "commit": None}
    assert results["benchmark"]["questions"] == check_items(clear(root))[1] and results["unlearning"] is None
    assert results["composite"] is None or results["composite"]["known"] is False
    page = (out / "report.html").read_text()
    assert (
        "Not as published" in page
        and "max_new_tokens=2" in page
        and page.count("<script") == 1
        and "http" not in page.replace("http-equiv", "")
    )
    # Neither questions nor answers leave the run.
    assert all(word not in page + (out / "results.json").read_text() for word in ("Author", "reads a book", "Star"))
    assert not (out / "answers").exists() and benchmark_table(results).row_count == len(results["figures"]["base"])
    with Stages(quiet=True) as stages:
        with pytest.raises(OutputError, match="the output folder is not empty"):
            run_benchmark(clear(root), models, out, stages=stages)
        models = {"unlearned": (str(folder), None)}
        run_benchmark(clear(root, forget_quality=False), models, out, stages=stages, overwrite=True, keep_answers=True)
    assert [path.name for path in (out / "answers").iterdir()] == ["unlearned.jsonl"]


def test_a_page_shows_what_was_known_before(tmp_path: Path) -> None:
    root = fixtures.write_clear(tmp_path)
    benchmark, made = clear(root), {}
    items = list(benchmark.items())
    for name, knows in (("base", True), ("unlearned", False), ("retrained", False)):
        losses = (1.0, 1.0, 2.0, 2.0)

        def say(item: Item, knows: bool = knows) -> str:
            return item.example.answer if knows or item.split != "forget" else "Nobody"

        answered = [Answered(item, Answer(say(item), losses[: len(item.candidates)])) for item in items]
        made[name] = compute_figures(benchmark, answered, answered)
    results = build_benchmark_results(benchmark, dict.fromkeys(made, KNOWN), made, total=16, data="d", seed=0, seconds={})
    assert results["knowledge"] == {"base": 1.0, "unlearned": 0.0, "retrained": 0.0} and results["composite"]["score"] == 1.0
    page = render_benchmark(results)
    assert '<h1 class="verdict">100.0\u00a0% of what could be removed is gone, and' in page and "knew the forget set before" in page
    assert "Retrained" in page and "open_fq" in page
    results["composite"] = {"known": False}
    assert '<h1 class="verdict">Nothing can be said about forgetting' in render_benchmark(results)
    results["composite"] = None
    assert "Unlearned: 0.000 knowledge of the forget set" in render_benchmark(results)
    with pytest.raises(DataError, match="these results cannot be shown"):
        render_benchmark({"schema": "x"})


def test_published_figures_stand_beside_ours(tmp_path: Path) -> None:
    root = tmp_path / "data"
    fixtures.write_mllmu(root)
    for name in ("forget", "retain"):
        (root / f"{name}_{'5' if name == 'forget' else '95'}").rename(root / f"{name}_{'10' if name == 'forget' else '90'}")
    benchmark = MLLMU(locate(root), None, "10")
    made = compute_figures(benchmark, [Answered(item, Answer(item.example.answer)) for item in benchmark.items()])
    half = [figure._replace(value=figure.value / 2) for figure in made]
    models = dict.fromkeys(("base", "unlearned"), KNOWN)
    results = build_benchmark_results(benchmark, models, {"base": made, "unlearned": half}, total=1, data="d", seed=0, seconds={})
    ours = {f"{f.split}/{f.task}/{f.metric}" for f in made}
    for source in results["published"]:
        assert set(source["figures"]) <= ours
        assert all(len(values) == len(source["figures"]) for values in (source.get("models") or source["changes"]).values())
    figures_of, changes_of = (published_rows(results, source) for source in results["published"])
    assert figures_of[0] == ("forget/cloze_image/accuracy", ["1.000", "0.500"], ["0.135", "0.125", "0.000", "0.083", "0.146", "0.125"])
    # ROUGE-L fell by a half; the paper's headline is a fall of 0.371.
    assert changes_of[0] == ("forget/generation_image/rougeL", ["+0.000", "-0.500"], ["-0.371"])
    page = render_benchmark(results)
    assert "arXiv 2610.10358, tables 5 to 7" in page and "Retain only" in page and "0.135" in page and "-0.371" in page
    assert [table.row_count for table in published_table(results)] == [12, 2]
    assert [each["source"] for each in published_figures(MLLMU(locate(root), None, "5"))] == [
        "arXiv 2606.00105",
        "MLLMU-Bench's repository, issues 11 and 20",
    ]
    assert published_figures(CLEAR(locate(root))) == []


def test_mistakes_are_errors_before_a_model_is_loaded(tmp_path: Path) -> None:
    nowhere: dict[str, tuple[str, Path | None]] = {"unlearned": ("no/where", None)}
    with Stages(quiet=True) as stages:
        with pytest.raises(ConfigError, match=r"(?s)never saw the forget set.*--reference.*forget_quality=false"):
            run_benchmark(clear(tmp_path), nowhere, None, stages=stages)
        with pytest.raises(DataError, match="split 'forget10_perturbed' is not there"):
            run_benchmark(clear(tmp_path, forget_quality=False), nowhere, None, stages=stages)
    with pytest.raises(ConfigError, match=r"(?s)the protocol of MLLMU-Bench has no such settings.*few_shot.*shots: Extra inputs"):
        open_benchmark("mllmu", str(tmp_path), None, parse_protocol(["shots=1"]))
    opened = open_benchmark("mllmu", str(tmp_path), "10", parse_protocol(["few_shot=0", "tasks=[cloze]"]))
    assert isinstance(opened, MLLMU) and opened.protocol.deviations() == {"few_shot": 0, "tasks": ["cloze"]}
    for bad in ("few_shot", "=3", "a=[1"):
        with pytest.raises(ConfigError, match=r"setting of the protocol cannot be parsed|--protocol a:1: not valid YAML"):
            parse_protocol([bad])


@pytest.mark.slow
def test_a_killed_process_goes_on(tmp_path: Path, folder: Path) -> None:
    root, out = fixtures.write_mllmu(tmp_path / "data", people=24, forget=6), tmp_path / "out"
    command = [sys.executable, "-m", "vgid", "evaluate", "--benchmark", "mllmu", "--data", root, "--model", folder, "--out", out]
    command += ["--protocol", "max_new_tokens=4", "--batch-size", "2", "--keep-answers"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(list(map(str, command)), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    file, started = out / "answers" / "unlearned.jsonl", time.monotonic()
    while time.monotonic() - started < 120 and (not file.exists() or file.read_bytes().count(b"\n") < 12):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = file.read_text().splitlines()[:12]
    assert len(before) == 12 and not (out / "results.json").exists()
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    after = file.read_text().splitlines()
    keys = [json.loads(line)["key"] for line in after[1:]]
    assert after[:12] == before and len(keys) == len(set(keys)) == json.loads((out / "results.json").read_text())["questions"]
    assert "classification_image" in done.stdout and "Oslo" not in done.stdout + done.stderr
