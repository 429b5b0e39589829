"""Placement: what is read from nextpnr's reports, and, where nextpnr is, a small design through all of it."""

import json
from types import SimpleNamespace

import pytest

from hwgen.placement import place, placement_lines, read_reports
from hwgen.templates import render
from hwgen.toolchain import ToolError, find_tool
from hwgen.vendor import lattice

CELLS = {"TRELLIS_COMB": (1200, 83640), "TRELLIS_FF": (900, 83640), "DP16KD": (8, 208),
         "MULT18X18D": (16, 156)}


def step(kind, delay, cell):
    return {"type": kind, "delay": delay, "from": {"cell": "before"}, "to": {"cell": cell}, "net": "net"}


def report(mhz, luts=1200):
    """What nextpnr writes, as far as it is read."""
    utilization = {name: {"used": used, "available": available} for name, (used, available) in CELLS.items()}
    utilization["TRELLIS_COMB"]["used"] = luts
    return json.dumps({
        "fmax": {"$glbnet$clk": {"achieved": mhz, "constraint": 125.0}}, "utilization": utilization,
        "critical_paths": [
            {"from": "<async>", "to": "posedge $glbnet$clk", "path": [step("routing", 20.0, "pin")]},
            {"from": "posedge $glbnet$clk", "to": "posedge $glbnet$clk", "path": [
                step("clk-to-q", 5.73, "ram"), step("routing", 2.0, "lut"), step("setup", 0.0, "ff")]}]})


def test_the_median_seed_is_reported():
    placement = read_reports({1: report(120.004, 1), 2: report(99.5, 2), 7: report(110.25, 3)})
    assert placement.fmax_mhz == {1: 120.0, 2: 99.5, 7: 110.25}
    assert placement.median_mhz == 110.25
    assert placement.used == {"LUT4": 3, "FF": 900, "EBR18": 8, "MULT18": 16}
    assert placement.available == {"LUT4": 83640, "FF": 83640, "EBR18": 208, "MULT18": 156}
    assert [(step["type"], step["cell"]) for step in placement.critical_path] == [
        ("clk-to-q", "ram"), ("routing", "lut"), ("setup", "ff")]
    text = "\n".join(placement_lines(placement))
    assert "median of 3 seeds (120.0, 99.5, 110.2)" in text
    assert "slowest path, 7.73 ns:" in text


def test_of_two_seeds_the_slower_one_counts():
    assert read_reports({1: report(120), 2: report(100)}).median_mhz == 100


@pytest.mark.parametrize("text", ["", "{}", '{"fmax": {}}', report(1).replace("DP16KD", "RAM")])
def test_a_strange_report_is_an_error(text):
    with pytest.raises(ToolError, match="nextpnr-ecp5 wrote a report that cannot be read"):
        read_reports({1: text})


def test_no_seeds():
    with pytest.raises(ValueError, match="at least one seed"):
        place("nowhere", ())


@pytest.mark.nightly
def test_a_small_design_is_placed(tmp_path):
    try:
        find_tool("nextpnr-ecp5")
    except ToolError as error:
        pytest.skip(str(error))
    ports = [SimpleNamespace(name=name, direction=direction, width=width) for name, direction, width in (
        ("ap_clk", "in", 1), ("a", "in", 12), ("b", "in", 12), ("product", "out", 24))]
    context = lattice.lattice_context(SimpleNamespace(ports=ports), "A test.")
    (tmp_path / "rtl").mkdir()
    (tmp_path / "ecp5").mkdir()
    (tmp_path / "rtl" / "accelerator.v").write_text(
        "module accelerator(input ap_clk, input [11:0] a, input [11:0] b, output reg [23:0] product);\n"
        "  always @(posedge ap_clk) product <= a * b;\nendmodule\n")
    for name, template in lattice.FILES.items():
        (tmp_path / name).write_text(render(template, context))
    placement = place(tmp_path, (1, 2))
    assert set(placement.fmax_mhz) == {1, 2}
    assert 50 < placement.median_mhz < 800
    assert placement.used["MULT18"] == 1
    assert placement.used["FF"] >= 48
    assert placement.available["EBR18"] == lattice.DEVICE.rams
    assert placement.critical_path
