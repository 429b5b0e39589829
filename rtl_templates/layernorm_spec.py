"""Sizes, latencies, command and table format of the LayerNorm unit."""

from dataclasses import dataclass

import numpy as np
from amaranth.hdl import signed
from amaranth.lib import data

from compressor.intops.layernorm import HIDDEN_MAX, IntegerLayerNorm
from rtl_templates.buffer_ports import COUNT_BITS, STRIDE_BITS
from rtl_templates.digit_recurrence import RecurrenceSpec
from rtl_templates.word_format import CHANNELS

Z_BITS = 16
"""Sum of residual and branch in one scale."""

MEAN_BITS = 16
TOTAL_BITS = 26
"""Sum of z over up to 1024 channels."""

SQUARES_BITS = 41
"""Sum of z^2 over up to 1024 channels."""

POWER_BITS = 42
"""Sum of squared deviations plus epsilon: 21 pairs of bits."""

EXPONENT_BITS = 5
"""Position of the highest nonzero pair of bits of the power, 0 to 20."""

HEADER_RECORDS = CHANNELS
"""Records of a table before those of its channels."""

RECORD_BITS = 64


def channel_record():
    """One channel's constants."""
    return data.StructLayout({"gamma": signed(16), "beta": signed(32),
                              "residual_shift": 8, "branch_shift": 8})


def epsilon_record():
    """Record 0 of a table."""
    return data.StructLayout({"epsilon": 40, "output_shift": 8, "_": 16})


def mean_record():
    """Record 1 of a table: multiplier and shift that divide by H."""
    return data.StructLayout({"multiplier": 16, "shift": 8, "_": 40})


@dataclass(frozen=True, kw_only=True)
class LayerNormSpec:
    """Residual addition and LayerNorm of T tokens in parallel, some channels per cycle.

    With B = ``beats(columns)`` cycles per pass and token group, a command takes::

        (groups - 1) * max(B, minimum_period) + 2 * B + latency

    Parameters
    ----------
    lanes : int
        Token lanes T, 1 to 64.
    columns : int
        Most words of a token: largest hidden size / 4, 1 to 256.
    address_bits : int
        Width of an address in the activation buffer, in words.
    channels : int
        Channels per cycle: 1, 2 or 4. Three multipliers per channel and lane.
    read_latency : int
        Cycles from a read's enable to its word, at least 1.
    """

    lanes: int
    columns: int
    address_bits: int
    channels: int = 1
    read_latency: int = 2

    def __post_init__(self):
        if self.channels not in (1, 2, 4):
            raise ValueError(f"LayerNormSpec.channels must be 1, 2 or 4 per cycle, not {self.channels}")
        for name, low, high in (("lanes", 1, 64), ("columns", 1, HIDDEN_MAX // CHANNELS),
                                ("address_bits", 1, 32), ("read_latency", 1, 8)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"LayerNormSpec.{name} must be {low} to {high}, not {getattr(self, name)}")

    @property
    def word_beats(self):
        """Cycles per word: 4 / channels."""
        return CHANNELS // self.channels

    def beats(self, columns):
        """Cycles of one pass over a token group of that many words."""
        return columns * self.word_beats

    @property
    def gather_latency(self):
        """Cycles from a read's enable to the first channels of its word in front of the adders."""
        return 1 + self.read_latency + (1 if self.word_beats == 1 else 2)

    @property
    def sums_latency(self):
        """Cycles from the last channels of a token to its sums: align, add, square (2), (add,) accumulate."""
        return 5 + (self.channels - 1).bit_length()

    @property
    def recurrence(self):
        """Root and reciprocal of all lanes."""
        return RecurrenceSpec(lanes=self.lanes)

    LANE_LATENCY = 14
    """Cycles of a lane in the pipeline that the lanes share: 9 to the power, 5 to normalize it."""

    STATISTICS_HOLD = 7
    """Cycles after which the last statistic of a token group has been taken over by the second pass."""

    SCALING_LATENCY = 14
    """Cycles from z to y: register, subtract, multiply (2), shift (3), multiply, add, shift (3), clip (2)."""

    @property
    def statistics_latency(self):
        """Cycles from the sums to the statistics of all lanes: one lane after the other through the
        shared pipeline, then 17 cycles of root and 17 of division, all lanes at once."""
        return self.lanes + 1 + self.LANE_LATENCY + 2 * self.recurrence.cycles

    @property
    def minimum_period(self):
        """Fewest cycles between two token groups: the statistics of the first have been used."""
        return self.lanes + 2 * self.recurrence.cycles + self.STATISTICS_HOLD

    @property
    def latency(self):
        """Cycles of a command that no pass over the channels accounts for."""
        return self.gather_latency + self.sums_latency + self.statistics_latency + self.SCALING_LATENCY + 2

    @property
    def buffer_beats(self):
        """Depth of the buffer of z: what is written from a beat's first pass until its second."""
        return self.beats(self.columns) + self.sums_latency + self.statistics_latency - 1

    def period(self, columns):
        """Cycles from one token group to the next."""
        return max(self.beats(columns), self.minimum_period)

    def cycles(self, groups, columns):
        """Cycles from ``start`` to ``done``.

        >>> spec = LayerNormSpec(lanes=8, columns=192, address_bits=16, channels=2)
        >>> spec.cycles(groups=16, columns=192)
        6612
        """
        return (groups - 1) * self.period(columns) + 2 * self.beats(columns) + self.latency

    def command_layout(self):
        """A command: ``groups`` token groups of ``columns`` words; addresses and strides in words."""
        return data.StructLayout({
            "groups": COUNT_BITS, "columns": range(self.columns + 1), "bank": 1,
            "residual": self.address_bits, "residual_stride": STRIDE_BITS,
            "branch": self.address_bits, "branch_stride": STRIDE_BITS,
            "destination": self.address_bits, "destination_stride": STRIDE_BITS})

    def table_layout(self):
        """Write port of the tables, one record of :meth:`table` per cycle."""
        return data.StructLayout({"enable": 1, "bank": 1, "data": RECORD_BITS,
                                  "address": range(HEADER_RECORDS + CHANNELS * self.columns)})

    def table(self, golden):
        """Records of one layer: epsilon, mean, two zeros, then one per channel.

        Parameters
        ----------
        golden : IntegerLayerNorm

        Returns
        -------
        uint64 array, shape (4 + H,)
        """
        if not isinstance(golden, IntegerLayerNorm):
            raise TypeError(f"a table is made from an IntegerLayerNorm, not {type(golden).__name__}")
        hidden = len(golden.gamma)
        if hidden > CHANNELS * self.columns:
            raise ValueError(f"LayerNorm has {hidden} channels; the unit holds {CHANNELS * self.columns}")
        multiplier, shift = golden.mean_rescaling
        records = np.zeros(HEADER_RECORDS + hidden, np.dtype(
            [("gamma", "<i2"), ("beta", "<i4"), ("residual_shift", "u1"), ("branch_shift", "u1")]))
        for name in records.dtype.names:
            records[name][HEADER_RECORDS:] = getattr(golden, name)
        table = records.view("<u8").copy()
        table[0] = golden.epsilon | golden.output_shift << 40
        table[1] = multiplier | shift << 16
        return table
