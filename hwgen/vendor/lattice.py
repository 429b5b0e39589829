"""Files for ECP5 devices: synthesis by Yosys, placement and routing by nextpnr, without any board."""

from dataclasses import dataclass

from hwgen.devices import DEVICES

DEVICE = DEVICES["ecp5-85k"]
"""What is placed on: LFE5U-85F, speed grade 6."""

DIRECTORY = "ecp5"
OPTIONS = ("--85k", "--package", "CABGA756", "--speed", "6", "--freq", "125", "--timing-allow-fail",
           "--lpf-allow-unconstrained", "--placer-heap-timingweight", "30")
"""Options of nextpnr-ecp5. The frequency is what it aims at, above the goal: it then works on more paths; and
timing weighs three times as much in the placement as by default."""

REGISTERS_SCRIPT = "move_registers.py"
"""Runs between Yosys and nextpnr: registers go into multipliers and block RAMs."""

FILES = {
    f"{DIRECTORY}/accelerator_chain.v": "ecp5/accelerator_chain.v",
    f"{DIRECTORY}/synth.ys": "ecp5/synth.ys",
    f"{DIRECTORY}/{REGISTERS_SCRIPT}": f"ecp5/{REGISTERS_SCRIPT}",
    f"{DIRECTORY}/Makefile": "ecp5/Makefile",
}
"""Path in the build, and template."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a port lies in the chain: bits ``left`` to ``right`` of ``bus``."""

    name: str
    bus: str
    left: int
    right: int


@dataclass(frozen=True, kw_only=True)
class LatticeContext:
    """Variables of the templates in ``rtl_templates/ecp5``; ``inputs``, ``outputs``: bits of the chain."""

    generated: str
    part: str
    options: str
    inputs: int
    outputs: int
    places: tuple[Place, ...]


def lattice_context(top, generated):
    """Variables for a TopLevel."""
    places, bits = [], {"in": 0, "out": 0}
    for port in top.ports:
        if port.name == "ap_clk":
            continue
        right = bits[port.direction]
        bits[port.direction] += port.width
        places.append(Place(name=port.name, bus="in" if port.direction == "in" else "results",
                            left=right + port.width - 1, right=right))
    return LatticeContext(generated=generated, part=DEVICE.part, options=" ".join(OPTIONS),
                          inputs=bits["in"], outputs=bits["out"], places=tuple(places))
