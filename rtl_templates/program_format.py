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
    END = 255
    """Wait for every unit, then finish the run."""


class Unit(IntFlag):
    """Units that a wait mask can name."""

    LOAD = 1
    ARRAY = 2
    STORE = 4


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
        Bytes from the input or output pointer; a multiple of the bus width.
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

    def pack(self):
        """Bytes of the descriptor.

        >>> len(Descriptor(opcode=Opcode.END).pack())
        32
        """
        return _LAYOUT.pack(self.opcode, self.wait, self.groups, self.tiles, 0, self.source,
                            self.destination, self.source_stride, self.destination_stride,
                            self.length, self.offset)

    @classmethod
    def unpack(cls, raw):
        """Descriptor of 32 bytes.

        >>> load = Descriptor(opcode=Opcode.LOAD, length=7, offset=4096)
        >>> Descriptor.unpack(load.pack()) == load
        True
        """
        (opcode, wait, groups, tiles, _, source, destination, source_stride, destination_stride,
         length, offset) = _LAYOUT.unpack(raw)
        return cls(opcode=Opcode(opcode), wait=Unit(wait), groups=groups, tiles=tiles, source=source,
                   destination=destination, source_stride=source_stride,
                   destination_stride=destination_stride, length=length, offset=offset)
