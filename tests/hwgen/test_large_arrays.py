"""Arrays of data-centre size: no signal may exceed what the Verilog writer takes."""

import pytest
from amaranth.back import verilog

from compressor.pools import build_pool
from hwgen.model_sizes import pool_assignment
from rtl_templates.array_spec import ArraySpec
from rtl_templates.pattern_array import PatternArray


@pytest.mark.nightly
def test_array_of_6144_multipliers_is_written():
    spec = ArraySpec(units=24, lanes=32, assignment=pool_assignment(build_pool("reed_muller")))
    assert spec.multipliers == 6144
    text = verilog.convert(PatternArray(spec), name="array", emit_src=False, strip_internal_attrs=True)
    assert text.count("endmodule") > spec.units
