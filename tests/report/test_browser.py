"""Pages in a browser: usable by keyboard and screen reader, sortable, whole without scripts, harmless whatever the data say."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import fixtures
from tests.browser import chromium, faults
from tests.report.test_audit_page import attack, level
from tests.report.test_audit_page import results as audited
from tests.report.test_comparison import results as compared
from tests.report.test_report import data, figures
from tests.report.test_report import results as measured
from tests.requests.runs import honour, make_options, make_request
from vgid.benchmarking.evaluate import run_benchmark
from vgid.benchmarks.clear import CLEAR
from vgid.benchmarks.common.files import locate
from vgid.models.loading import load_model
from vgid.progress import Stages
from vgid.report import audit_page, comparison, record
from vgid.report.html import ReportExample, render_report

WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
HOSTILE = (
    "<script>window.hurt = 1; alert(1)</script>",
    "<img src=x onerror='window.hurt = 1; alert(1)'>",
    "</code></p></td></table></style></script><script>window.hurt = 1; alert(1)</script>",
    '" onmouseover="window.hurt = 1" x="',
    "<svg onload=alert(1)><a href='javascript:alert(1)'>x</a>",
    "{{ 7 * 7 }}{% include 'x' %}",
    "<iframe src='https://example.org'></iframe><link rel=stylesheet href='//example.org/a.css'><meta http-equiv=refresh content='0;url=https://example.org'>",
    "]]></title><style>@import 'https://example.org';body{display:none}</style>",
)
Open = Callable[..., Any]


def hostile_report() -> str:
    bad = "".join(HOSTILE)
    splits = {**measured()["splits"], **{text: {model: figures(0.5) for model in ("base", "unlearned", "retrained")} for text in HOSTILE}}
    given = measured(splits=splits, method=bad, model=bad, training=bad, seconds={bad: 1.0}, config={bad: bad}, versions={bad: bad})
    given["curves"] = {bad: [(1, 1.0), (2, 0.5)], f"recall {bad}": [(2, 0.5)], f"drift {bad}": [(2, 0.5)]}
    given["ablation"] = {bad: {"forget": figures(0.2), "retain": figures(0.9)}}
    shown = tuple(ReportExample("forget", text, text, {"base": text, bad: text}) for text in HOSTILE)
    return render_report(replace(data(), results=given, title=bad, subjects=HOSTILE, examples=shown))


def hostile_comparison() -> str:
    bad = "".join(HOSTILE)
    shown = [ReportExample(split="forget", question=text, expected=text, answers={bad: text}) for text in HOSTILE]
    changes = {"target": bad, "warnings": [bad], "failed": {bad: [bad]}, "configs": {bad: {bad: bad}}, "versions": {bad: bad}}
    return comparison.render_comparison(compared(**changes), shown)


def hostile_audit() -> str:
    bad = "".join(HOSTILE)
    attacks = {bad: attack({bad: level(reason=bad)}, "fail") | {"finds": bad}}
    changes = {"models": {"base": bad, "audited": bad}, "attacks": attacks, "versions": {bad: bad}}
    return audit_page.render_audit(audited(**changes, verdict={"status": "fail", "reasons": [bad], "untested": [bad]}))


PAGES = {
    "report": lambda: render_report(data()),
    "comparison": lambda: comparison.render_comparison(compared()),
    "audit": lambda: audit_page.render_audit(audited()),
    "hostile report": hostile_report,
    "hostile comparison": hostile_comparison,
    "hostile audit": hostile_audit,
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Opens a page (its name, or its text) from a file, and keeps count of what it asks for, of dialogs and of errors."""
    contexts = []

    def opened(name: str, **options: Any) -> Any:
        file = tmp_path / "page.html"
        file.write_text(PAGES[name]() if name in PAGES else name, "utf-8")
        contexts.append(browser.new_context(**{"viewport": WIDE, **options}))
        page = contexts[-1].new_page()
        page.asked, page.dialogs, page.errors = [], [], []
        page.on("request", lambda request: page.asked.append(request.url) if not request.url.startswith("data:") else None)
        page.on("dialog", lambda dialog: (page.dialogs.append(dialog.message), dialog.dismiss()))
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.goto(file.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()


@pytest.mark.parametrize("name", ["hostile report", "hostile comparison", "hostile audit"])
def test_hostile_strings_do_nothing(name: str, show: Open) -> None:
    page = show(name)
    page.mouse.move(300, 300)
    for summary in page.query_selector_all("summary"):
        summary.click()
    page.wait_for_timeout(200)
    assert page.evaluate("window.hurt") is None and not page.dialogs and not page.errors
    assert len(page.asked) == 1 and page.asked[0].startswith("file:")
    assert (
        page.evaluate("document.scripts.length") == 1
        and page.evaluate("document.querySelectorAll('iframe, link, object, form, base').length") == 0
    )
    assert page.evaluate("[...document.querySelectorAll('*')].every(e => ![...e.attributes].some(a => a.name.startsWith('on')))")
    text = page.evaluate("document.body.textContent")
    assert all(each in text for each in HOSTILE) and page.is_visible("main")


def test_a_script_that_got_in_would_not_run(show: Open) -> None:
    page = show("report")
    page.evaluate("const s = document.createElement('script'); s.textContent = 'window.hurt = 1'; document.body.append(s)")
    assert page.evaluate("window.hurt") is None


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("name", ["report", "comparison", "audit"])
def test_axe_finds_nothing(name: str, size: dict[str, int], scheme: str, show: Open) -> None:
    page = show(name, viewport=size, color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
    assert faults(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page is wider than the screen"


@pytest.fixture(scope="module")
def benchmark_page(browser: Any, random_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a real run on a small benchmark."""
    folder = tmp_path_factory.mktemp("benchmark")
    loaded = load_model(random_folder)
    loaded.processor.tokenizer.model_max_length = 8192  # questions with shots are long
    loaded.model.save_pretrained(folder / "model")
    loaded.processor.save_pretrained(folder / "model")
    root = fixtures.write_clear(folder / "data", people=3, forget=1)
    benchmark = CLEAR(locate(root), CLEAR.Protocol(max_new_tokens=2), "10")
    with Stages(quiet=True) as stages:
        models = {name: (str(folder / "model"), None) for name in ("base", "unlearned", "retrained")}
        run_benchmark(benchmark, models, folder / "out", stages=stages)
    return (folder / "out" / "report.html").read_text()


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_a_benchmark_page_is_one_of_them(size: dict[str, int], benchmark_page: str, show: Open) -> None:
    page = show(benchmark_page, viewport=size)
    assert faults(page) == [] and not page.errors and len(page.asked) == 1
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page is wider than the screen"
    assert page.get_by_role("searchbox").count() >= 1


@pytest.fixture(scope="module")
def record_page(browser: Any, random_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of the record of a second request that was honoured, with hostile words in it."""
    root = tmp_path_factory.mktemp("honoured")
    first = make_options(root, random_folder)
    honour(first)
    request = make_request(root / "second", first=10, id="T-2")
    second = replace(first, model=None, after=first.out, request=request, out=root / "later")
    found: dict[str, Any] = json.loads(json.dumps(honour(second).record))
    found["request"] |= {"approver": "".join(HOSTILE), "ground": "".join(HOSTILE)}
    return record.render_record(found)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_a_record_is_one_of_them(size: dict[str, int], scheme: str, record_page: str, show: Open) -> None:
    page = show(record_page, viewport=size, color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
    assert faults(page) == [] and not page.errors and not page.dialogs and len(page.asked) == 1
    assert page.evaluate("window.hurt") is None and all(each in page.evaluate("document.body.textContent") for each in HOSTILE)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page is wider than the screen"


def column(page: Any, number: int) -> list[str]:
    """What the rows on show of the page's first table have in a column: the first word of each."""
    rows = "[...document.querySelector('table.figures').querySelectorAll('tbody tr:not(.group)')].filter(r => !r.hidden)"
    words: list[str] = page.evaluate(f"n => {rows}.map(r => r.cells[n].innerText.split(/\\s/)[0])", number)
    return words


def test_tables_sort_and_filter_by_keyboard(show: Open) -> None:
    page = show("comparison")
    assert column(page, 0)[:4] == ["retrain", "vgid", "g<a>", "untouched"]
    composite = page.get_by_role("button", name="Composite")
    composite.first.focus()
    page.keyboard.press("Enter")
    assert column(page, 0) == ["untouched", "g<a>", "vgid", "retrain", "manu"]  # the failed one has no figure and stays last
    assert page.get_attribute("th[aria-sort]", "aria-sort") == "ascending"
    page.keyboard.press("Space")
    assert column(page, 0) == ["retrain", "vgid", "g<a>", "untouched", "manu"]
    page.keyboard.press("Enter")
    assert page.query_selector("th[aria-sort]") is None
    search = page.get_by_role("searchbox").first
    search.fill("vgid")
    assert column(page, 0) == ["vgid"] and page.get_by_role("status").first.inner_text() == "1 of 5 rows."
    search.fill("")
    assert column(page, 0) == ["retrain", "vgid", "g<a>", "untouched", "manu"]


def test_rows_stay_in_their_groups(show: Open) -> None:
    page = show("hostile report")
    groups = "[...document.querySelector('table.figures').tBodies].map(b => [...b.rows].map(r => r.cells[0].innerText.length).length)"
    before = page.evaluate(groups)
    page.get_by_role("button", name="Unlearned").first.click()
    assert page.evaluate(groups) == before
    assert page.evaluate("[...document.querySelector('table.figures').tBodies].every(b => b.rows[0].classList.contains('group'))")


def test_on_a_phone_a_list_sorts(show: Open) -> None:
    page = show("comparison", viewport=NARROW)
    page.get_by_label("Sort by").first.select_option("Utility, ascending")
    assert column(page, 0)[:2] == ["g<a>", "vgid"]
    assert page.evaluate("[...document.querySelectorAll('button.sort')].every(b => b.tabIndex === -1)")


def test_without_scripts_all_is_there(show: Open) -> None:
    page = show("comparison", java_script_enabled=False)
    assert page.is_visible("text=retrain") and page.query_selector(".tools") is None and page.query_selector("th button") is None


def test_the_printed_page_is_light_and_whole(show: Open, tmp_path: Path) -> None:
    page = show("report", color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)" and not page.is_visible(".tools")
    page.pdf(path=tmp_path / "page.pdf", format="A4")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
