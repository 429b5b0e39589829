"""ControlRegisters: one response for each request on AXI4-Lite."""

import numpy as np
from amaranth.hdl import Assert, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from formal.prover import Method, Proof
from rtl_templates.array_spec import AcceleratorSpec, ArraySpec
from rtl_templates.control_registers import ControlRegisters
from rtl_templates.slot_assignment import SlotAssignment

SPEC = AcceleratorSpec(
    array=ArraySpec(units=1, lanes=1, assignment=SlotAssignment.balanced(np.tile([1, 1, 0, 0], (1, 4)), 2)),
    bus_bits=32, activation_words=2, tile_ksteps=2, column_bits=1, program_depth=2)
CHANNELS = {"aw": "b", "w": "b", "ar": "r"}
"""Channels of requests, and the channel of their responses."""


class ResponseHarness(wiring.Component):
    """Counts what was asked and answered; the master may do anything at all.

    A write's address and data are two requests that one response answers. What is owed is then known from
    the outside: a request was taken and its channel is not ready for another, or the response is offered.
    """

    def __init__(self, component=ControlRegisters):
        self.dut = component(SPEC)
        super().__init__({name: In(member.shape) for name, member in self.dut.signature.members.items()
                          if member.flow is In})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        for name in self.signature.members:
            m.d.comb += getattr(dut, name).eq(getattr(self, name))

        def handshake(channel):
            return getattr(dut, f"bus_{channel}valid") & getattr(dut, f"bus_{channel}ready")
        for request, response in CHANNELS.items():
            owed = Signal(2, name=f"owed_{request}")
            m.d.sync += owed.eq(owed + handshake(request) - handshake(response))
            offered = getattr(dut, f"bus_{response}valid")
            blocked = ~getattr(dut, f"bus_{request}ready")
            # A read blocks its channel until the response has gone, a write only until it is done.
            m.d.comb += Assert(owed == (blocked if response == "r" else blocked + offered))
            with m.If(offered):
                m.d.comb += Assert(owed > 0)
        for response in ("b", "r"):
            valid, refused = getattr(dut, f"bus_{response}valid"), Signal(name=f"refused_{response}")
            m.d.sync += refused.eq(valid & ~getattr(dut, f"bus_{response}ready"))
            with m.If(refused):
                m.d.comb += Assert(valid)
        data = Signal.like(dut.bus_rdata)
        m.d.sync += data.eq(dut.bus_rdata)
        with m.If(refused):
            m.d.comb += Assert(dut.bus_rdata == data)
        return m


PROOFS = (
    Proof(claim="AXI4-Lite: one response for each request, offered until it is taken, unchanged",
          harness=ResponseHarness, method=Method.INDUCTION, cycles=4),
)
