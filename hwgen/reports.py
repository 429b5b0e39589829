"""Texts of a build: costs and README. Every number says if it is exact, modelled or assumed."""

from hwgen.devices import DEVICES
from hwgen.resource_model import RAM_OF_FAMILY
from rtl_templates.array_spec import PoolStorage
from rtl_templates.register_map import POOL_BASE, address_of


def sizes_line(plan):
    """The sizes of an accelerator in one line."""
    spec, array = plan.spec, plan.spec.array
    return (f"R = {array.units} block units x T = {array.lanes} lanes x 4 rows x "
            f"n = {array.assignment.slots} slots: {array.multipliers} MACs per cycle; "
            f"pool in {array.storage}; {spec.bus_bits}-bit bus; up to {plan.tokens} tokens")


def resources_line(plan):
    """Modelled resources in one line, with the device's own if there is one."""
    device = DEVICES.get(plan.device)
    ram = RAM_OF_FAMILY[device.family if device else "xcup"].name
    parts = []
    for key, name in (("luts", "LUT"), ("ffs", "FF"), ("dsps", "DSP"), ("rams", ram), ("urams", "URAM288")):
        if plan.modelled[key] or key != "urams":
            limit = f" of {getattr(device, key):,}" if device else ""
            parts.append(f"{plan.modelled[key]:,}{limit} {name}")
    return ", ".join(parts)


def summary_lines(plan, cost):
    """What `hwgen build` prints."""
    lines = [sizes_line(plan),
             f"{cost.cycles:,} cycles for {_what(plan, cost)} on {cost.tokens} tokens, "
             f"{100 * cost.utilization:.1f} % utilization "
             "(exact with the nominal memory)",
             f"{cost.dense_array_cycles / cost.array_cycles:.2f} times fewer array cycles than the same "
             "layers dense",
             f"modelled: {resources_line(plan)}"]
    if plan.device:
        device = DEVICES[plan.device]
        milliseconds = cost.cycles / device.assumed_clock_mhz / 1e3
        lines.append(f"{milliseconds:.2f} ms at an assumed {device.assumed_clock_mhz:g} MHz on "
                     f"{plan.device}; {bandwidth(cost, device):.2f} of {device.dram_gbytes_per_s:g} GB/s "
                     "memory bandwidth")
    return lines


def _what(plan, cost):
    if cost.whole_encoder:
        return f"the whole encoder of {len(plan.attention)} layers"
    return f"{len(cost.layers)} linear layers"


def bandwidth(cost, device):
    """Average memory traffic in 10^9 bytes a second at the device's assumed clock."""
    total = cost.weight_bytes + cost.input_bytes + cost.output_bytes + cost.program_bytes
    return total / cost.cycles * device.assumed_clock_mhz / 1e3


def cost_markdown(plan, cost):
    """The report ``cost.md``."""
    lines = ["# Cost of this build", "", *(f"* {line}" for line in summary_lines(plan, cost)),
             f"* memory traffic: weights {cost.weight_bytes:,}, inputs {cost.input_bytes:,}, outputs "
             f"{cost.output_bytes:,}, program {cost.program_bytes:,} bytes", "",
             *_cycles_text(cost), "Useful MACs are the weights that a layer keeps, times",
             "tokens; utilization is useful MACs / (MACs x cycles). Resources are modelled; `hwgen synth`",
             "measures them.", "",
             "| layer | structure | shape | tiles | K-steps | cycles | array cycles | dense | utilization |",
             "|---|---|---|--:|--:|--:|--:|--:|--:|"]
    for layer in cost.layers:
        lines.append(f"| {layer.name} | {layer.structure} | {layer.rows} x {layer.inner} | {layer.tiles} "
                     f"| {layer.ksteps:,} | {layer.cycles:,} | {layer.array_cycles:,} "
                     f"| {layer.dense_array_cycles:,} | {100 * layer.utilization:.1f} % |")
    lines.append(f"| **all** | | | {sum(layer.tiles for layer in cost.layers)} "
                 f"| {sum(layer.ksteps for layer in cost.layers):,} | {cost.cycles:,} "
                 f"| {cost.array_cycles:,} | {cost.dense_array_cycles:,} | {100 * cost.utilization:.1f} % |")
    return "\n".join(lines) + "\n"


def _cycles_text(cost):
    lines = ["Cycles are exact for a memory that always accepts and answers after a fixed latency;",
             "simulation measures the same number."]
    if cost.whole_encoder:
        lines += ["Those of a layer are its product's; attention and LayerNorm lie between them and count in",
                  "the total."]
    return lines


_FILES_OF = {
    "verilog": "| `rtl/accelerator.v` | the accelerator, top module `accelerator`, Verilog-2005; "
               "add it to your project |\n"
               "| `rtl/files.f` | list of Verilog files, for tools that take one |\n"
               "| `registers/accelerator.html` | the register map, readable |\n"
               "| `registers/accelerator.rdl`, `registers/accelerator.xml`, `registers/accelerator.h`, "
               "`registers/accelerator_registers.py` | the same as SystemRDL, IP-XACT, C and Python |\n"
               "| `registers/test_registers.py`, `registers/Makefile` | cocotb test of every register and "
               "field: `make -C registers` |\n"
               "| `component.xml` | Vivado IP: add this directory to `ip_repo_paths` |\n"
               "| `vivado/package_ip.tcl` | packages the IP anew with Vivado's own checks |\n"
               "| `vivado/synth_ooc.tcl`, `vivado/constraints.xdc` | synthesis, placement and routing out of "
               "context, with reports |\n"
               "| `vivado/block_design.tcl` | example: the IP beside the processors of a Zynq UltraScale+ |\n"
               "| `vivado/xgui.tcl` | the IP's dialog, for `component.xml` |\n"
               "| `vitis/package_xo.tcl`, `vitis/kernel.xml` | make an RTL kernel, `.xo`, for Vitis |\n"
               "| `quartus/accelerator_hw.tcl` | Platform Designer component; its top is "
               "`quartus/accelerator_platform.v` |\n"
               "| `quartus/accelerator.qip`, `quartus/accelerator.sdc` | sources and constraints for a "
               "Quartus project |\n"
               "| `ecp5/Makefile`, `ecp5/synth.ys`, `ecp5/move_registers.py`, "
               "`ecp5/accelerator_chain.v` | Yosys and nextpnr for an ECP5, with a shift chain around the "
               "accelerator; `hwgen synth --place` runs them |\n"
               "| `accelerator.core` | FuseSoC core with targets `lint`, `vivado`, `quartus` |\n"
               "| `edalize/make_project.py`, `edalize/vivado.eda.yml`, `edalize/quartus.eda.yml` | make a "
               "Vivado or Quartus project with edalize |\n"
               "| `litex/accelerator_litex.py` | LiteX module |\n"
               "| `driver/bert_accel.h`, `driver/bert_accel.c`, `driver/bert_accel_build.h` | driver in C, "
               "for hosts without operating system |\n"
               "| `driver/classify.py` | example of the Python driver, for a board with PYNQ or XRT |\n",
    "hls": "| `hls/` | the same accelerator as Vitis HLS C++; `make -C hls` runs its testbenches with g++ on "
           "the golden vectors in `hls/vectors`, `vitis_hls -f run_hls.tcl` synthesizes it |\n",
}
"""README's lines about what a build holds besides program, weights and reports."""


def build_readme(plan, cost, emit):
    """The README of a build: what each file is for; ``emit`` as in :func:`hwgen.packaging.build`."""
    sources = "".join(_FILES_OF[name] for name in emit)
    notes = []
    if "verilog" in emit:
        notes.append(f"""
The clock is `ap_clk`, reset is `ap_rst_n` (low, synchronous). `s_axi_control` is an AXI4-Lite slave with the
register layout of Vitis RTL kernels; `m_axi_gmem0` carries program, inputs and outputs, `m_axi_gmem1` the
weight stream. Register `configuration` (0x{address_of("configuration"):02x}) reads
0x{plan.spec.configuration:08x} in this build. `hwgen sim` on this directory proves the Verilog against the
golden model; `hwgen synth` counts its resources. The files for vendor tools were generated without those
tools and have run in none of them; clock periods in them are assumed.
""")
    if "hls" in emit:
        notes.append("""
The HLS C++ reads the same weight image and the same activation words as the Verilog. `hwgen sim --bench hls`
proves its C simulation against the golden model. Its cycles, and C/RTL co-simulation, need the vendor's tool;
neither was run here.
""")
    pool = ""
    if plan.spec.array.storage is PoolStorage.RAM:
        pool = f"| `weights/pool.bin` | pattern memory: write its words from address {POOL_BASE:#x} on |\n"
    return f"""# Accelerator {plan.configuration_hash[:8]}

{sizes_line(plan)}. {len(plan.layers)} linear layers, {plan.layers[0].name} to {plan.layers[-1].name}.

| file | what it is for |
|---|---|
{sources}| `program/program.bin` | descriptors of 32 bytes; 4096-byte aligned, address to `program_low` |
| `program/program.txt` | the same program, readable |
| `weights/weights.bin` | weight stream of all layers; 4096-byte aligned, address to `weights_low` |
| `weights/layout.json` | where each layer, input and output lies; `weights_beats` goes into that register |
{pool}| `report/cost.md`, `report/cost.json` | cycles (exact), memory traffic, resources (modelled) |
| `report/index.html` | report: open it in a browser; `hwgen sim`, `eval` and `synth` add what they find |
| `report/summary.json`, `report/summary.md` | the same data |
| `plan.json` | every decision: sizes, tiles, limits |
| `bundle.pt` | the compressed model this was built from |
| `manifest.json` | SHA-256 of every file but the report, tool versions, configuration hash |
{''.join(notes)}
The program runs all layers on {plan.tokens} tokens in {cost.cycles:,} cycles.
"""
