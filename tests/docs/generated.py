"""Parts of the documentation that are written from the code: `python -m tests.docs.generated` writes all of them anew."""

import importlib.util
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.docs import scaling
from tests.docs.markdown import ROOT
from vgid.attacks import ATTACKS
from vgid.auditing.policy import load_policy
from vgid.benchmarking import table as benchmarks
from vgid.config import read_recipe, recipe_names
from vgid.methods import catalogue
from vgid.metrics.measure import list_metrics
from vgid.report.meta import meta_markdown
from vgid.settings import DEFAULT_METHOD
from vgid.settings_reference import as_markdown

COMMAND = "python -m tests.docs.generated"
RESULTS = ROOT / "perf" / "results"
KINDS = "ablate|attackers|audit|calibrate|compare|demo|device|evaluate|growth|metrics|one-person|passes|reverse|sequence|settings|step"
RESULT_NAME = re.compile(rf"\b((?:{KINDS})-[\w.-]*\.json)\b")
DATED = ("docs/LOG.md", "CHANGELOG.md")
"""Pages whose entries belong to the code of their day."""


def attacks() -> str:
    """The attacks of the package's own policy, in its order: what each needs, what it may recover, and what it finds."""
    lines = ["| attack | access | profile | allowed share | finds |", "|---|---|---|---|---|"]
    for name, rule in load_policy(profile="full").attacks.items():
        attack, most = ATTACKS.get(name), f"{rule.most:g}" if rule.required else f"{rule.most:g}, not required"
        lines.append(f"| `{name}` | {attack.access} | {attack.profile} | {most} | {attack.finds} |")
    return "\n".join(lines) + "\n"


def recipes() -> str:
    """The built-in recipes, as `vgid recipes` lists them."""
    read = [(each, each.values.get("method", {}).get("name", DEFAULT_METHOD)) for each in map(read_recipe, recipe_names())]
    lines = ["| recipe | method | for |", "|---|---|---|", *(f"| `{each.name}` | `{method}` | {each.about} |" for each, method in read)]
    return "\n".join(lines) + "\n"


def step() -> str:
    """A training step, the released procedure and ours, as `perf/step.py` measured it."""
    lines = ["| image tokens | | an epoch | peak memory | against the released procedure | losses differ by |", "|---|---|---|---|---|---|"]
    for tokens in (144, 576):
        found = read_result(f"step-smol-{tokens}.json")
        for name, shown in (("released", "released procedure"), ("ours", "this package, same settings"), ("default", "our default")):
            if name not in found:
                continue  # measured before this was
            each, base = found[name], found["released"]
            ratio = f"{base['epoch_s'] / each['epoch_s']:.1f} times as fast, {each['peak_mb'] / base['peak_mb']:.2f} of the memory"
            differ = f"{found['loss_max_diff']:.0e}" if name == "ours" else ""
            cells = [
                str(tokens),
                shown,
                f"{each['epoch_s']:.1f} s",
                f"{each['peak_mb']:.0f} MB",
                ratio if name != "released" else "",
                differ,
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def passes() -> str:
    """What a default step asks of a device, as `perf/passes.py` counted it."""
    found = read_result("passes-tiny.json")
    rows = {
        "passes of the student": found["student_passes"],
        "passes of the frozen base": found["base_passes"],
        "passes of the adversary": found["adversary_passes"],
        "reads of device tensors by the host": found["syncs"],
        "pictures processed after the first epoch": found["processor_calls"],
        "padding, share of all tokens": f"{found['padding_share']:.2f}",
        "dispatched operations": f"{found['dispatched_ops']:,}",
        f"the same at commit `{found['before']['commit']}`": f"{found['before']['dispatched_ops']:,}",
    }
    return "\n".join(["| a default step | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]) + "\n"


def answers() -> str:
    """Answers a second, as `perf/evaluate.py` measured them."""
    found = read_result("evaluate-smol-144.json")
    lines = ["| | questions a second | peak memory |", "|---|---|---|"]
    for name, shown in (("single", "one question in each call"), ("ours", "this package")):
        lines.append(f"| {shown} | {found[name]['questions_per_s']:.2f} | {found[name]['peak_mb']:.0f} MB |")
    same = "the same answers" if found["same_answers"] else "not all answers the same"
    return "\n".join(lines) + f"\n\n{found['speedup']:.1f} times as fast, {same} (`perf/results/evaluate-smol-144.json`).\n"


def growth() -> str:
    """What grows with the data, as `perf/growth.py` measured it."""
    found = read_result("growth-tiny.json")
    lines = ["| forget answers | time of an epoch for each answer |", "|---|---|"]
    lines += [f"| {each['answers']} | {1000 * each['s_per_answer']:.0f} ms |" for each in found["forget"]]
    lines += [
        "",
        "| retain rows, each with a picture | file | time to read it | memory of the process | time of a step |",
        "|---|---|---|---|---|",
    ]
    for each in found["retain"]:
        cells = [f"{each['rows']:,}", f"{each['file_mb']:.0f} MB", f"{each['read_s']:.1f} s", f"{each['read_peak_mb']:.0f} MB"]
        lines.append(f"| {' | '.join(cells)} | {each['step_s']:.2f} s |")
    return "\n".join(lines) + "\n\n(`perf/results/growth-tiny.json`)\n"


def demo() -> str:
    """What the demo gave on several seeds: before, unlearned and retrained."""
    found = read_result("demo-tiny.json")["seeds"]
    first = next(iter(found.values()))
    lines = [f"| split | n | {' | '.join(f'seed {seed}' for seed in found)} |", f"|---|---|{'---|' * len(found)}"]
    for split, models in first.items():
        cells = [
            " / ".join(f"{100 * seed[split][model]['accuracy']:.1f}" for model in ("base", "unlearned", "retrained"))
            for seed in found.values()
        ]
        lines.append(f"| `{split}` | {models['base']['n']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n\n(`perf/results/demo-tiny.json`)\n"


def metrics() -> str:
    """The metrics of forgetting, as `vgid metrics list` lists them."""
    lines = ["| metric | measures | reads | needs | definition | unit | source |", "|---|---|---|---|---|---|---|"]
    for each in list_metrics():
        shown = f"`{each['name']}`"
        about = (each["about"].removesuffix("."), each["unit"], each["paper"])
        lines.append(f"| {' | '.join([shown, each['measures'], each['reads'], ', '.join(each['needs']), *about])} |")
    return "\n".join(lines) + "\n"


def meta() -> str:
    """Which metrics to trust, as `vgid metrics meta` measured it."""
    return meta_markdown(read_result("metrics-tiny.json"))


def read_result(name: str) -> dict[str, Any]:
    """A result in perf/results."""
    found: dict[str, Any] = json.loads((RESULTS / name).read_text("utf-8"))
    return found


def sources() -> ModuleType:
    """`perf/sources.py`, which stands beside the package."""
    spec = importlib.util.spec_from_file_location("perf_sources", ROOT / "perf" / "sources.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def named_results(text: str) -> list[str]:
    """Names of the results in perf/results that a page quotes."""
    return sorted(set(RESULT_NAME.findall(between("figures").sub("", text))))


def age_of_results(text: str) -> str:
    """One sentence about the results that a page quotes: which were measured with other code than the present, when, and with which."""
    found = {name: sources().read(RESULTS / name) for name in named_results(text)}
    older = [f"`{name}` ({each.day}, commit `{each.commit}`)" for name, each in found.items() if each.older]
    if not older:
        return "The results quoted on this page were measured with the present code.\n"
    others = "; the other results on this page were measured with it" if len(older) < len(found) else ""
    return f"Older than the present code: {', '.join(older)}{others}.\n"


TABLES: Mapping[str, tuple[str, Callable[[], str]]] = {
    "answers": ("speed.md", answers),
    "attacks": ("audit.md", attacks),
    "benchmarks": ("benchmarks.md", benchmarks.as_markdown),
    "demo": ("demo.md", demo),
    "growth": ("speed.md", growth),
    "meta": ("results.md", meta),
    "methods": ("methods.md", catalogue.markdown),
    "metrics": ("metrics.md", metrics),
    "passes": ("speed.md", passes),
    "recipes": ("recipes.md", recipes),
    "scaling": ("scaling.md", scaling.table),
    "step": ("speed.md", step),
}
"""Name in the markers of a table, to the page it is on and the function that makes it."""
PAGES: Mapping[str, Callable[[], str]] = {"settings.md": as_markdown}
"""Whole pages."""


def between(name: str) -> re.Pattern[str]:
    """What stands between a table's markers."""
    return re.compile(rf"(?<=<!-- {name}: generated -->\n)(.*?)(?=<!-- /{name} -->)", re.DOTALL)


def expected(page: str) -> str:
    """The text of a page, named from the project's root, with all that is generated as the code gives it now."""
    name = page.removeprefix("docs/")
    if name in PAGES:
        return PAGES[name]()
    text = (ROOT / page).read_text("utf-8")
    tables = {key: table() for key, (place, table) in TABLES.items() if place == name}
    if page in pages_with_results():
        tables["figures"] = age_of_results(text)
    for key, table in tables.items():
        assert between(key).search(text), f"{page} has no markers <!-- {key}: generated --> and <!-- /{key} -->"
        text = between(key).sub(lambda _, made=f"\n{table}\n": made, text)
    return text


def pages_with_results() -> list[str]:
    """Pages that quote results, from the project's root."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    found = [str(page.relative_to(ROOT)) for page in pages if named_results(page.read_text("utf-8"))]
    return [page for page in found if page not in DATED]


def generated_pages() -> list[str]:
    """Pages that are generated, or that hold a generated part, from the project's root."""
    return sorted({*(f"docs/{page}" for page in (*PAGES, *(page for page, _ in TABLES.values()))), *pages_with_results()})


def by_hand(path: Path) -> str:
    """The text of a file without its generated parts, whose lines are left empty."""
    if path.parent == ROOT / "docs" and path.name in PAGES:
        return ""
    text = path.read_text("utf-8")
    for name in (*TABLES, "figures"):
        text = between(name).sub(lambda found: "\n" * found[0].count("\n"), text)
    return text


if __name__ == "__main__":
    for each in generated_pages():
        (ROOT / each).write_text(expected(each), "utf-8")
