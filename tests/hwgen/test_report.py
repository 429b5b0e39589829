"""Reports: valid pages that need nothing else, every figure with its origin, readable in both themes."""

import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

import html5lib
import numpy as np
import pytest
from jinja2 import UndefinedError

from hwgen.packaging import build, verify_build
from hwgen.plan_request import PlanRequest
from hwgen.planner import make_plan
from hwgen.report.charts import roofline, stacked
from hwgen.report.files import render, write_report
from hwgen.report.origin import MEANINGS
from hwgen.report.page import ROLE_COLORS, make_page
from hwgen.report.pictures import corner_picture, layer_picture
from hwgen.report.refresh import refresh_report
from hwgen.report.summary import summarize
from hwgen.results import Result, record, record_timeline, recorded
from tests.bundles import random_bundle, random_encoder_bundle

NAMESPACE = "{http://www.w3.org/1999/xhtml}"
SVG = "{http://www.w3.org/2000/svg}"
BREAKDOWN = {"array": 900, "drain": 10, "weights": 20, "tables": 0, "keys": 5, "softmax": 30, "layernorm": 20,
             "transpose": 0, "load": 5, "store": 5, "results": 0, "dispatch": 5}
SIMULATED = {"passed": True, "bench": "harness", "runs": 2, "tokens": 16, "words": 128, "mismatches": 0,
             "cycles": 1000, "predicted_cycles": 1000, "breakdown": BREAKDOWN, "layers": []}
REQUEST = {"data": "random", "seed": 7, "stalls": 3, "bench": "harness"}
EVALUATED = {"passed": True, "rows": 8, "tokens": 16, "words": 64, "word_mismatches": 0, "cycles": 500,
             "metric": "matthews_correlation", "prediction_mismatches": 0,
             "metrics": {name: {"accuracy": 0.5, "matthews_correlation": value} for name, value in
                         (("float", 0.75), ("fake_quantized", 0.625), ("golden", 0.625), ("rtl", -0.125))}}
COUNTS = {"lut_cells": 9, "lut_memory": 1, "lut_sites": 4321, "ff": 2, "dsp": 3, "bram36": 1.5, "carry": 0}
PLACED = {"part": "LFE5U-85F", "fmax_mhz": {"1": 81.5, "2": 79.25}, "median_mhz": 79.25,
          "used": {"LUT4": 1000}, "available": {"LUT4": 84000}, "critical_path": []}
RESULTS = (Result(kind="encoder", request=REQUEST, result=SIMULATED),
           Result(kind="evaluation", request={"data": "sst2.tsv", "limit": 8}, result=EVALUATED),
           Result(kind="synthesis", request={"family": "xcup"}, result=COUNTS),
           Result(kind="placement", request={"seeds": 2}, result=PLACED))


@pytest.fixture(scope="module")
def bundle():
    return random_encoder_bundle(absent_blocks=0.3, map_pruning=True)


@pytest.fixture(scope="module")
def plan(bundle):
    return make_plan(bundle, PlanRequest(rows=2, lanes=8, device="kv260"))


@pytest.fixture(scope="module")
def pages(bundle, plan, tmp_path_factory):
    """Texts of index.html without and with results."""
    texts = []
    for results in ((), RESULTS):
        directory = tmp_path_factory.mktemp("report")
        write_report(directory, bundle, plan, results, "<svg/>" if results else None)
        texts.append((directory / "report" / "index.html").read_text())
    return texts


@pytest.fixture(params=[0, 1], ids=["nothing ran", "all ran"])
def page(pages, request):
    return pages[request.param]


@pytest.mark.parametrize("absent", [0.9, 1.0])
def test_layers_without_a_single_block_have_a_page(absent, tmp_path):
    """A random design found this: a layer with nothing left to multiply has no place in a roofline."""
    pruned = random_encoder_bundle(hidden=16, heads=2, ffn=16, absent_blocks=absent, layers=1)
    empty = [layer for layer in pruned.layers.values() if not layer.weight.any()]
    assert empty
    data = write_report(tmp_path, pruned, make_plan(pruned, PlanRequest(rows=2, lanes=8)))
    page = parsed((tmp_path / "report" / "index.html").read_text())
    marks = [circle for circle in page.iter(f"{SVG}circle") if circle.find(f"{SVG}title") is not None]
    assert len(data["layers"]) == 6
    assert len(marks) == 6 - len(empty)


def parsed(page):
    return html5lib.HTMLParser(strict=True).parse(page)


def text_of(element):
    return " ".join(" ".join(element.itertext()).split())


def test_the_page_is_valid_html_and_its_ids_are_unique(page):
    ids = [element.get("id") for element in parsed(page).iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    targets = {href.removeprefix("#") for href in re.findall(r'href="(#[^"]+)"', page)}
    assert targets
    assert targets <= set(ids)
    for names in re.findall(r'aria-labelledby="([^"]+)"', page):
        assert set(names.split()) <= set(ids)


def test_headings_are_in_order_and_one_is_the_first(page):
    levels = [int(level) for level in re.findall(r"<h([1-6])", page)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_every_picture_has_a_text(page):
    tree = parsed(page)
    for image in tree.iter(f"{NAMESPACE}img"):
        assert image.get("alt")
        assert image.get("src").startswith("data:image/")
    for picture in tree.iter(f"{SVG}svg"):
        assert picture.get("role") == "img"
        assert picture.find(f"{SVG}title").text
    for element in tree.iter():
        if element.get("role") in ("img", "region"):
            assert element.get("aria-label") or element.get("aria-labelledby")
    scrolling = [e for e in tree.iter(f"{NAMESPACE}div") if "scroll" in (e.get("class") or "").split()]
    assert scrolling
    assert all(element.get("tabindex") == "0" for element in scrolling)  # reached by keyboard


def test_the_page_needs_nothing_else(page):
    assert "<script" not in page
    assert not re.search(r'(?:src|href)="(?:https?:)?//', page)
    assert set(re.findall(r'href="([^"#][^"]*)"', page)) == {"summary.json", "summary.md", "cost.md"}
    assert "url(" not in page
    assert "default-src 'none'" in page


def luminance(color):
    values = [int(color[i:i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first, second):
    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_colors_have_contrast(pages, theme):
    blocks = re.findall(r":root \{[^}]*--page[^}]*\}", pages[0])
    colors = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", blocks[theme]))
    assert len(blocks) == 2
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    for ground in ("page", "surface", "sunken"):
        for name in ("text", "quiet", "accent"):
            assert contrast(colors[name], colors[ground]) >= 4.5, (name, ground)
    for name in ("good", "bad", "c1", "c2", "c3", "c4", "c5"):  # origins are written in these
        assert contrast(colors[name], colors["surface"]) >= 4.5, name
    for name in ("c1", "c2", "c3", "c4", "c5", "c6", "c7", "accent"):
        assert contrast(colors[name], colors["sunken"]) >= 3, name


def test_every_class_and_color_of_the_page_has_a_style(page):
    style, body = page.split("</style>")
    used = {name for names in re.findall(r'class="([^"]+)"', body) for name in names.split()}
    known = {*re.findall(r"\.([a-z][\w-]*)", style), *MEANINGS, "grid", "name", "row", "corner"}
    assert used <= known | {"bars"}, used - known
    assert set(re.findall(r"var\(--(\w+)\)", style)) <= set(re.findall(r"--(\w+):", style))


def test_what_has_not_run_says_so_with_its_command(pages):
    for command in ("hwgen sim BUILD", "hwgen eval BUILD --data FILE", "hwgen synth BUILD"):
        assert f"<code>{command}</code>" in pages[0]
    assert "Not simulated yet" in pages[0]
    assert 'origin simulated">simulated</span></h3>' not in pages[0]
    assert "Not simulated yet" not in pages[1]
    assert "Not synthesized yet" not in pages[1]
    assert "Not placed" in pages[0]
    assert "Not placed" not in pages[1]


def test_results_come_with_their_origin(pages):
    text = text_of(parsed(pages[1]).find(f".//{NAMESPACE}main"))
    assert "Cycles a sequence 500 16 tokens simulated" in text
    assert "Words that differ 0 of 192 compared simulated" in text
    assert "Matthews correlation of the Verilog -0.1250 8 rows; float 0.7500 simulated" in text
    assert "LUT 4,321 of 117,120 (3.7 %)" in text
    assert "79.2 MHz on LFE5U-85F, the median of 2 placements" in text
    assert "LUT4 1,000 of 84,000 (1.2 %)" in text
    assert "All runs passed: 192 output words compared" in text
    tiles = parsed(pages[1]).findall(f".//{NAMESPACE}dl[@class='tiles']/{NAMESPACE}div")
    assert len(tiles) == 7
    assert all(tile[-1][0].text in list(MEANINGS) for tile in tiles)


def test_a_run_that_failed_is_not_a_proof(bundle, plan):
    broken = replace(RESULTS[0], result={**SIMULATED, "passed": False, "mismatches": 5})
    changed = replace(RESULTS[0], changed="rtl/accelerator.v differs")
    for result in (broken, changed):
        data = summarize(bundle, plan, [result])
        assert data["cycles"]["simulated"] is None
        assert "simulated" in {one["key"] for one in data["missing"]}
    page = make_page(summarize(bundle, plan, [broken]), bundle)
    assert "NOT PROVEN" in page.proof_text
    assert page.proof.rows[0][-1] == "FAILED"
    assert "rtl/accelerator.v differs" in make_page(data, bundle).proof.rows[0][-1]


def test_the_parts_of_the_cycles_add_up(bundle, plan):
    data = summarize(bundle, plan)["cycles"]
    parts = [sum(v for k, v in layer.items() if k != "name") for layer in data["parts"]]
    assert len(parts) == 2
    assert sum(parts) == sum(data["array"].values()) == data["total"] == plan.predicted_cycles
    assert all(value > 0 for layer in data["parts"] for value in layer.values() if value != layer["name"])


def test_linear_layers_alone_have_a_report(tmp_path):
    bundle = random_bundle(hidden=16, heads=2, ffn=32, layers=1, structure="mixed")
    plan = make_plan(bundle, PlanRequest(rows=2, lanes=4))
    data = write_report(tmp_path, bundle, plan)
    assert [part["name"] for part in data["cycles"]["parts"]] == [layer.name for layer in plan.layers]
    assert sum(sum(v for k, v in part.items() if k != "name") for part in data["cycles"]["parts"]) \
        == plan.predicted_cycles
    assert data["resources"]["device"] is None
    parsed((tmp_path / "report" / "index.html").read_text())


def test_names_are_escaped(bundle, plan, tmp_path):
    evil = "<script>alert(1)</script>|x"
    odd = replace(bundle, model={**bundle.model, "task": evil, "labels": [evil]})
    write_report(tmp_path, odd, plan, (replace(RESULTS[0], request={**REQUEST, "data": f"a{evil}"}),))
    page = (tmp_path / "report" / "index.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    parsed(page)
    rows = (tmp_path / "report" / "summary.md").read_text().splitlines()
    assert not [row for row in rows if row.startswith("|") and "script>|x" in row]


def test_templates_use_what_the_page_has_and_nothing_else(bundle, plan):
    page = make_page(summarize(bundle, plan), bundle)
    with pytest.raises(UndefinedError):
        render("index.html", PlanRequest())
    assert render("summary.md", page).startswith("# Accelerator")


@pytest.mark.parametrize("name", ["index.html", "macros.html", "summary.md"])
def test_templates_compute_nothing(name):
    folder = Path(__file__).parents[2] / "hwgen" / "report" / "templates"
    inside = re.findall(r"\{[{%](.*?)[}%]\}", (folder / f"{name}.j2").read_text())
    plain = [re.sub(r'"[^"]*"|\'[^\']*\'', "", code).strip("-") for code in inside]
    assert not [code for code in plain if re.search(r"[-+*/](?![-%])|\bround\b|\bformat\b", code)]


def test_pictures_show_what_is_kept(bundle):
    layer = next(iter(bundle.layers.values()))
    whole, corner = layer_picture(layer), corner_picture(layer, bundle.pool)
    assert ((whole > 0) == layer.block_mask).all()
    assert ((corner > 0)[layer.weight != 0]).all()
    kept = np.kron(layer.block_mask, np.ones((4, 4), bool))
    assert not corner[~kept].any()
    assert (corner > 0).sum() == 8 * layer.block_mask.sum()


def test_stacked_bars_add_up_to_their_length():
    chart = stacked([("a", {"x": 30, "y": 10}), ("b", {"x": 20, "y": 0})], "modelled")
    assert [float(s.percent) for s in chart.bars[0].segments] == [75, 25]
    assert [bar.width for bar in chart.bars] == ["100", "50"]
    assert [(one.name, one.text) for one in chart.legend] == [("x", "83.3 %"), ("y", "16.7 %")]


def test_the_roofline_says_what_bounds(bundle, plan):
    data = summarize(bundle, plan)
    plot = roofline(data["roofline"], data["layers"], ROLE_COLORS)
    roof = data["roofline"]
    assert roof["ridge_macs_per_byte"] == roof["macs_per_cycle"] / roof["bus_bytes_per_cycle"]
    assert ("bound by memory" in plot.label) == (roof["whole"]["macs_per_byte"] < roof["ridge_macs_per_byte"])
    assert len(plot.points) == len(plan.layers)
    assert all(plot.left <= point.x <= plot.width and 0 <= point.y <= plot.bottom for point in plot.points)


@pytest.fixture
def built(tmp_path, monkeypatch):
    from compressor.bundle import save_bundle
    from hwgen import packaging
    monkeypatch.setattr(packaging, "write_verilog", lambda plan, directory: directory.mkdir())
    save_bundle(random_bundle(hidden=16, heads=2, ffn=32, layers=1), tmp_path / "pruned.pt")

    def run(name):
        return build(tmp_path / "pruned.pt", tmp_path / name, PlanRequest(rows=2, lanes=4)).directory
    return run


def test_a_build_has_its_report_outside_of_the_manifest(built):
    first, second = built("a"), built("b")
    for name in ("index.html", "summary.json", "summary.md"):
        assert (first / "report" / name).read_bytes() == (second / "report" / name).read_bytes()
        assert f"report/{name}" not in json.loads((first / "manifest.json").read_text())["files"]
    before = (first / "report" / "index.html").read_bytes()
    refresh_report(first)
    assert (first / "report" / "index.html").read_bytes() == before


def test_results_are_kept_by_request_and_by_build(built):
    directory = built("a")
    result = {**SIMULATED, "tokens": 64, "layers": [{}] * 6}
    for seed in (1, 2, 2):
        record(directory, "layers", {**REQUEST, "seed": seed}, result)
    record_timeline(directory, Path(__file__).parents[2] / "docs" / "pictures" / "encoder_layer.svg")
    assert [one.request["seed"] for one in recorded(directory)] in ([1, 2], [2, 1])
    verify_build(directory)
    data = refresh_report(directory)
    assert data["cycles"]["simulated"]["cycles"] == 1000
    assert "data:image/svg+xml" in (directory / "report" / "index.html").read_text()
    assert data == json.loads((directory / "report" / "summary.json").read_text())
    (directory / "rtl" / "accelerator.v").write_text("changed")
    (directory / "plan.json").write_text((directory / "plan.json").read_text() + "\n")
    record(directory, "layers", {**REQUEST, "seed": 3}, result)
    assert [one.changed for one in recorded(directory)].count(None) == 2
    (directory / "results" / "layers-broken.json").write_text("{")
    (directory / "manifest.json").write_text((directory / "manifest.json").read_text() + " ")
    assert recorded(directory) == []  # another build
    with pytest.raises(ValueError, match="kind must be one of"):
        record(directory, "guess", {}, {})
