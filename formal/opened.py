"""Components whose inside a harness can name: an induction has to say what is true of their registers."""

import sys
from unittest.mock import patch

from amaranth.hdl import Array, Elaboratable, Fragment, Module, Signal
from amaranth.lib.memory import ReadPort, WritePort
from amaranth.utils import ceil_log2

from rtl_templates.beat_fifo import BeatFifo


class Opened(Elaboratable):
    """The component, elaborated; the submodule in its place.

    Parameters
    ----------
    component : Component
    fifo : type, optional
        Whose memory shall be registers as well.
    """

    def __init__(self, component, fifo=BeatFifo):
        self._component, self._locals = component, {}
        before = sys.getprofile()
        sys.setprofile(self._watch)
        try:
            with patch.dict(fifo.elaborate.__globals__, Memory=RegisterMemory):
                self._fragment = Fragment.get(component, None)
        finally:
            sys.setprofile(before)

    def _watch(self, frame, event, _):
        if event == "return" and frame.f_code.co_name == "elaborate":
            self._locals[id(frame.f_locals["self"])] = dict(frame.f_locals)

    def inside(self, *path):
        """Local variables of ``elaborate()`` by name: the component's, or a submodule's that is one of them.

        ``inside("bursts")["left"]`` is the signal ``left`` of the submodule ``bursts``.
        """
        variables = self._locals[id(self._component)]
        for name in path:
            variables = self._locals[id(variables[name])]
        return variables

    def elaborate(self, platform):
        return self._fragment


class RegisterMemory(Elaboratable):
    """A memory with one port for writing and one for reading, as Amaranth's, whose ``rows`` can be named."""

    def __init__(self, *, shape, depth, init, attrs):
        address_bits = ceil_log2(depth)
        self.rows = [Signal(shape, name=f"row{index}") for index in range(depth)]
        self._write = WritePort.Signature(addr_width=address_bits, shape=shape).create()
        self._read = ReadPort.Signature(addr_width=address_bits, shape=shape).create()

    def write_port(self):
        return self._write

    def read_port(self):
        return self._read

    def elaborate(self, platform):
        m = Module()
        rows = Array(self.rows)
        with m.If(self._write.en):
            m.d.sync += rows[self._write.addr].eq(self._write.data)
        with m.If(self._read.en):
            m.d.sync += self._read.data.eq(rows[self._read.addr])
        return m
