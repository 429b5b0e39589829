"""Where a figure comes from. Every figure of a report carries one of these."""

from enum import StrEnum


class Origin(StrEnum):
    """How a figure was found."""

    COUNTED = "counted"
    ASSUMED = "assumed"
    MODELLED = "modelled"
    COMPUTED = "computed"
    SIMULATED = "simulated"
    SYNTHESIZED = "synthesized"
    PLACED = "placed"


MEANINGS = {
    Origin.COUNTED: "counted in the model, the program or the weight image",
    Origin.ASSUMED: "from a data sheet, or a clock frequency that nobody measured",
    Origin.MODELLED: "by hwgen's cost model; cycles are exact with the nominal memory, LUTs are estimates",
    Origin.COMPUTED: "by PyTorch or the integer golden model, in software",
    Origin.SIMULATED: "the generated Verilog or HLS C++ ran, every output word was compared",
    Origin.SYNTHESIZED: "Yosys mapped the generated Verilog to the device's cells",
    Origin.PLACED: "a place-and-route tool finished",
}
