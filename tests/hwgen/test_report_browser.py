"""Pages in headless Chromium: accessible by axe-core's rules; nothing blank, overlapping or cut off."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

from hwgen.design_points import Evaluator, pareto_front
from hwgen.design_search import Exploration, all_points
from hwgen.plan import PlanError
from hwgen.plan_request import PlanRequest
from hwgen.planner import make_plan
from hwgen.report.explore_page import explore_data, explore_page
from hwgen.report.files import render, write_report
from tests.browser.chromium import MISSING, launch_options
from tests.bundles import random_encoder_bundle
from tests.hwgen.test_report import RESULTS

TIMELINE = '<svg xmlns="http://www.w3.org/2000/svg" width="900" height="90"/>'
PAGES = ("nothing ran", "all ran", "exploration")
VIEWS = {f"{name}, {scheme}": (width, scheme) for name, width in (("desktop", 1280), ("phone", 390))
         for scheme in ("light", "dark")}

PICTURES = """() => [...document.images].map(one => [one.alt, one.complete && one.naturalWidth > 0])"""

LAYOUT = """() => {
  const all = (pattern, inside = document) => [...inside.querySelectorAll(pattern)].filter(
      one => one.getClientRects().length > 0 && one.checkVisibility());
  const box = one => one.getBoundingClientRect(), start = text => text.trim().slice(0, 40);
  const meet = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
      && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1;
  const groups = [...all(".row, .tile, .tiles, nav ul, .legend, .patterns, .pair, main")
      .map(one => all(":scope > *", one)), ...all(".plot").map(one => all("text", one))];
  const overlapping = groups.flatMap(parts => parts.flatMap((one, at) => parts.slice(at + 1)
      .filter(other => meet(box(one), box(other)))
      .map(other => start(one.textContent) + " | " + start(other.textContent))));
  const empty = all("main section, main figure, main dd:not(.note), main td, main th")
      .filter(one => box(one).height < 4 || !one.textContent.trim()).map(one => one.outerHTML.slice(0, 80));
  const {scrollWidth, clientWidth} = document.documentElement;
  const cut = all("body *").filter(one => !one.closest(".scroll, .skip, svg"))
      .filter(one => box(one).right > clientWidth + 1).map(one => one.outerHTML.slice(0, 80));
  return {overflow: scrollWidth - clientWidth, overlapping, empty, cut};
}"""

FOCUSABLE = """() => [...document.querySelectorAll("a[href], summary, [tabindex='0']")]
  .filter(one => one.checkVisibility()).map((one, at) => { one.dataset.order = at; return at; })"""
FOCUSED = """() => { const one = document.activeElement, style = getComputedStyle(one);
  return [one.dataset.order, style.outlineStyle != "none" && parseFloat(style.outlineWidth) >= 2]; }"""


@pytest.fixture(scope="module")
def browser():
    options = launch_options()
    if options is None:
        pytest.skip(MISSING)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(**options)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def addresses(tmp_path_factory):
    """Addresses of a report of a build on which nothing ran, of one with all results, of an exploration."""
    bundle = random_encoder_bundle(absent_blocks=0.3)
    plan = make_plan(bundle, PlanRequest(rows=2, lanes=8, device="kv260"))
    found = {}
    for name, results in (("nothing ran", ()), ("all ran", RESULTS)):
        folder = tmp_path_factory.mktemp("report")
        write_report(folder, bundle, plan, results, TIMELINE if results else None)
        found[name] = (folder / "report" / "index.html").as_uri()
    page = tmp_path_factory.mktemp("exploration") / "explore.html"
    page.write_text(_exploration(bundle))
    return {**found, "exploration": page.as_uri()}


def _exploration(bundle):
    evaluator, evaluations = Evaluator(bundle, "kv260"), []
    for point in list(all_points(evaluator))[::9]:
        try:
            evaluations.append(evaluator(point))
        except PlanError:
            continue
    found = Exploration(model="pruned.pt", device="kv260", tokens=evaluator.tokens,
                        default=evaluator.default(), evaluations=tuple(evaluations),
                        front=tuple(pareto_front(evaluations)))
    return render("explore.html", explore_page(found, explore_data(found)))


@pytest.fixture(params=VIEWS)
def view(browser, request):
    """A tab of the browser, and what it complains about."""
    width, scheme = VIEWS[request.param]
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    tab, complaints = context.new_page(), []
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("requestfailed", lambda failed: complaints.append(failed.url))
    yield tab, complaints
    context.close()


@pytest.mark.parametrize("name", PAGES)
def test_the_page_in_a_browser(name, addresses, view):
    tab, complaints = view
    tab.goto(addresses[name])
    for details in tab.query_selector_all("details:not([open]) > summary"):
        details.click()
    assert complaints == []
    pictures = tab.evaluate(PICTURES)
    assert [alt for alt, decoded in pictures if not decoded] == []
    assert bool(pictures) == (name != "exploration")
    assert tab.evaluate(LAYOUT) == {"overflow": 0, "overlapping": [], "empty": [], "cut": []}
    found = Axe().run(tab)
    assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("view", ["desktop, light", "phone, dark"], indirect=True)
@pytest.mark.parametrize("name", ["all ran", "exploration"])
def test_the_keyboard_reaches_everything(name, addresses, view):
    tab, _ = view
    tab.goto(addresses[name])
    order = tab.evaluate(FOCUSABLE)
    assert len(order) > 2
    for expected in order:
        tab.keyboard.press("Tab")
        assert tab.evaluate(FOCUSED) == [str(expected), True]
    tab.keyboard.press("Tab")
    assert tab.evaluate(FOCUSED)[0] is None
    tab.goto(addresses[name])
    tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    expect(tab).to_have_url(re.compile("#content$"))


BROKEN = """<!DOCTYPE html><html><head><title>x</title></head><body><main>
<img src="data:image/png;base64,AAAA"><p style="color:#aaa">Pale</p><div style="width:3000px">Wide</div>
<div class="row"><span>One</span><span style="margin-left:-3em">Two</span></div><section></section>
<script>console.error("Complaint")</script></main></body></html>"""


@pytest.mark.parametrize("view", ["phone, light"], indirect=True)
def test_the_checks_see_what_is_broken(view, tmp_path):
    tab, complaints = view
    page = tmp_path / "broken.html"
    page.write_text(BROKEN)
    tab.goto(page.as_uri())
    assert complaints == ["Complaint"]
    assert tab.evaluate(PICTURES) == [["", False]]
    layout = tab.evaluate(LAYOUT)
    assert layout["overflow"] > 0
    assert layout["overlapping"] == ["One | Two"]
    assert layout["empty"] == ["<section></section>"]
    assert any("Wide" in one for one in layout["cut"])
    broken = {one["id"] for one in Axe().run(tab).response["violations"]}
    assert {"image-alt", "color-contrast", "html-has-lang"} <= broken
