"""Ports of a stream unit to the activation buffer.

A unit owns the ports of the banks that it uses while it runs, so nothing is ever refused: a word
arrives a fixed number of cycles, the read latency, after ``enable`` and ``address``.
"""

from amaranth.lib import data

from rtl_templates.block_unit import word_layout

STRIDE_BITS = 16
"""Width of a stride, in words from one token group to the next."""

COUNT_BITS = 16
"""Width of a count of token groups or of words of a group."""


def read_port(spec):
    """What a unit drives to read a word; ``spec`` has ``address_bits``."""
    return data.StructLayout({"enable": 1, "address": spec.address_bits})


def write_port(spec):
    """What a unit drives to write a word; ``spec`` has ``address_bits`` and ``lanes``."""
    return data.StructLayout({"enable": 1, "address": spec.address_bits, "data": word_layout(spec)})
