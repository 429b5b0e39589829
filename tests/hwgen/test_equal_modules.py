"""Equal modules are merged, others are not, and what is counted once is counted as often as it is there."""

import functools
import re

import pytest

from hwgen.equal_modules import Design, merge_equal_modules
from hwgen.synthesis import synthesize

UNIT = """
module \\top.unit{n} (\\a$1{n} , \\b$2{n} , sum, clk);
  input [7:0] \\a$1{n} ;
  wire [7:0] \\a$1{n} ;
  input [7:0] \\b$2{n} ;
  input clk;
  output reg [7:0] sum;
  wire [7:0] \\s$3{n} ;
  \\top.unit{n}.adder  adder (
    .\\x$4{n} (\\a$1{n} ),
    .\\y$5{n} (\\b$2{n} ),
    .o(\\s$3{n} )
  );
  always @(posedge clk) sum <= \\s$3{n} ;
endmodule
module \\top.unit{n}.adder (\\x$4{n} , \\y$5{n} , o);
  input [7:0] \\x$4{n} ;
  input [7:0] \\y$5{n} ;
  output [7:0] o;
  assign o = \\x$4{n} + \\y$5{n} ^ 8'h{constant};
endmodule
"""

INSTANCE = """\
  \\top.unit{n}  unit{n} (
    .\\a$1{n} (d[7:0]),
    .\\b$2{n} (d[{high}:{low}]),
    .clk(clk),
    .sum(q[{high}:{low}])
  );
"""


def design(constants):
    """A unit for each constant, all else equal."""
    bits = 8 * len(constants)
    instances = "".join(INSTANCE.format(n=n, high=8 * n + 7, low=8 * n) for n in range(len(constants)))
    units = "".join(UNIT.format(n=n, constant=constant) for n, constant in enumerate(constants))
    return (f"module top (clk, d, q);\n  input clk;\n  input [{bits - 1}:0] d;\n  output [{bits - 1}:0] q;\n"
            f"{instances}endmodule\n{units}")


def test_equal_units_are_one_with_the_right_ports():
    merged = merge_equal_modules(design(["00"] * 4))
    assert dict(merged.instances("top")) == {"top": 1, "\\top.unit0": 4, "\\top.unit0.adder": 4}
    assert merged.repeated("top") == ["\\top.unit0"]
    assert re.findall(r"^module (\S+)", merged.text, re.MULTILINE) == ["top", "\\top.unit0",
                                                                       "\\top.unit0.adder"]
    assert merged.text.count(".\\b$20 (d[") == 4
    assert "unit3 (\n    .\\a$10 (d[7:0])" in merged.text


@pytest.mark.parametrize("old_and_new", [
    ("8'h00", "8'h01"),  # a constant
    ("input [7:0] \\x$43 ;", "input signed [7:0] \\x$43 ;"),
    ("assign o = \\x$43 ", "assign o = \\y$53 "),  # another name, the same base elsewhere
    (".\\x$43 (\\a$13 )", ".\\x$43 (\\b$23 )"),
    ("always @(posedge clk) sum <= \\s$33 ", "always @(negedge clk) sum <= \\s$33 "),
])
def test_a_unit_that_differs_stays(old_and_new):
    head, last = design(["00"] * 4).rsplit("module \\top.unit3 (", 1)
    assert last.count(old_and_new[0]) == 1
    merged = merge_equal_modules(head + "module \\top.unit3 (" + last.replace(*old_and_new))
    instances = merged.instances("top")
    assert (instances["\\top.unit0"], instances["\\top.unit3"]) == (3, 1)


def test_modules_under_ifdef_stay():
    text = design(["00"] * 2) + "`ifdef A\nmodule two (a);\n  input a;\nendmodule\n`else\n" \
                                "module two (a);\n  input a;\nendmodule\n`endif\n"
    assert merge_equal_modules(text).text.count("module two") == 2


def test_repeated_units_count_as_often_as_they_are_there(tmp_path):
    """Four equal units of 8 bits, and one more that differs: 40 sites and 40 flip-flops."""
    (tmp_path / "top.v").write_text(design(["00"] * 4 + ["55"]))
    found = synthesize([tmp_path / "top.v"], "top", "xcup")
    assert found.ff == 40
    assert 40 <= found.lut_sites <= 48


def test_a_design_that_is_too_large_is_divided():
    """Two units that differ, each with an adder: children before parents."""
    whole = merge_equal_modules(design(["00", "55"]))
    assert whole.parts("top") == ["top"]
    below = sum(whole.sizes.values()) - whole.sizes["top"]
    assert whole.parts("top", whole.sizes["top"] + below // 2) == ["\\top.unit0", "top"]
    assert whole.parts("top", 1) == ["\\top.unit0.adder", "\\top.unit1.adder", "\\top.unit0", "\\top.unit1",
                                     "top"]


@pytest.mark.nightly
def test_parts_lose_nothing_and_count_once(tmp_path, monkeypatch):
    (tmp_path / "top.v").write_text(design(["00", "55"]))
    flat = synthesize([tmp_path / "top.v"], "top", "xcup")
    monkeypatch.setattr(Design, "parts", functools.partialmethod(Design.parts, limit=1))
    divided = synthesize([tmp_path / "top.v"], "top", "xcup")
    assert divided.ff == flat.ff == 16
    assert flat.lut_sites <= divided.lut_sites <= 24  # borders keep LUTs apart: at most sum and xor of 8 bits
