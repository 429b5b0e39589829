"""The program: descriptors of 32 bytes, dispatched in order.

A descriptor goes to its unit once that unit is idle and every unit named in its wait mask is idle;
the next descriptor may then be dispatched while it still runs. hwgen sets the wait masks from
the address ranges that descriptors read and write.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag

DESCRIPTOR_BYTES = 32
_LAYOUT = struct.Struct("<BBHHHIIHHIQ")


class Opcode(IntEnum):
    """What a descriptor asks for. 0 is no opcode, so that cleared memory is an error, not a program."""

    LOAD = 1
    """Copy ``length`` words from input memory at ``offset`` to the buffer at ``destination``."""
    MATMUL = 2
    """Run ``tiles`` tiles of the weight stream over ``groups`` groups, ``source`` to ``destination``."""
    STORE = 3
    """Copy ``length`` words from the buffer at ``source`` to output memory at ``offset``."""
    KEYS = 4
    """Make the tiles of the next product from keys: ``groups`` groups of ``length`` words at ``source``;
    ``offset`` holds every row's multiplier in bits 15:0, its shift in bits 31:16."""
    SOFTMAX = 5
    """Make the tiles of the next product from scores: ``groups`` groups of ``length`` words at ``source``;
    ``offset`` holds the numerator of the context in bits 31:0, its exponent in bits 63:32.
    Flags: ``TABLE_BANK`` of the exp table, ``MAP_PRUNING``."""
    TRANSPOSE = 6
    """Transpose ``groups`` groups of ``length`` words at ``source`` to groups of ``tiles`` words."""
    NORM = 7
    """LayerNorm of the residual at ``source`` and the branch at word address ``offset``, both of ``groups``
    groups of ``length`` words in steps of ``source_stride``. Flags: ``TABLE_BANK``, ``OUTPUT_NORM``."""
    END = 255
    """Wait for every unit, then finish the run."""


class Unit(IntFlag):
    """Units that a wait mask can name."""

    LOAD = 1
    ARRAY = 2
    STORE = 4
    KEYS = 8
    SOFTMAX = 16
    TRANSPOSE = 32
    NORM = 64


class Flag(IntFlag):
    """Bits of the flags field; which ones count depends on the opcode."""

    TABLE_BANK = 1
    """SOFTMAX, NORM: bank of the unit's table."""
    MAP_PRUNING = 2
    """SOFTMAX: prune the attention map."""
    OUTPUT_NORM = 2
    """NORM: the table is that of the output norm, else of the attention norm."""
    GELU = 1
    """MATMUL: results go through the GELU table."""
    GELU_BANK = 2
    """MATMUL: bank of the GELU table."""


SIDE_BANK = 1 << 31
"""Bit of a word address that selects the side bank of the activation buffer."""


NO_UNIT = Unit(0)


@dataclass(frozen=True, kw_only=True)
class Descriptor:
    """One instruction.

    Parameters
    ----------
    wait : Unit
        Units that must be idle before dispatch.
    groups : int
        Token groups, 1 to 65535.
    tiles : int
        Tiles of the weight stream, 1 to 65535.
    source, destination : int
        Word addresses in the activation buffer.
    source_stride, destination_stride : int
        Words from one token group to the next.
    length : int
        Words to copy.
    offset : int
        LOAD, STORE: bytes from the input or output pointer, a multiple of the bus width. Else as the
        opcode says.
    flags : int
        See :class:`Flag`.
    """

    opcode: Opcode
    wait: Unit = NO_UNIT
    groups: int = 0
    tiles: int = 0
    source: int = 0
    destination: int = 0
    source_stride: int = 0
    destination_stride: int = 0
    length: int = 0
    offset: int = 0
    flags: int = 0

    def pack(self):
        """Bytes of the descriptor.

        >>> len(Descriptor(opcode=Opcode.END).pack())
        32
        """
        return _LAYOUT.pack(self.opcode, self.wait, self.groups, self.tiles, self.flags, self.source,
                            self.destination, self.source_stride, self.destination_stride,
                            self.length, self.offset)

    @classmethod
    def unpack(cls, raw):
        """Descriptor of 32 bytes.

        >>> load = Descriptor(opcode=Opcode.LOAD, length=7, offset=4096)
        >>> Descriptor.unpack(load.pack()) == load
        True
        """
        (opcode, wait, groups, tiles, flags, source, destination, source_stride, destination_stride,
         length, offset) = _LAYOUT.unpack(raw)
        return cls(opcode=Opcode(opcode), wait=Unit(wait), groups=groups, tiles=tiles, source=source,
                   destination=destination, source_stride=source_stride,
                   destination_stride=destination_stride, length=length, offset=offset, flags=flags)
