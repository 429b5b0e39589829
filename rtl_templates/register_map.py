"""AXI4-Lite register map, in the layout of Vitis RTL kernels.

The one list that RTL, benches and drivers read.
"""

from dataclasses import dataclass
from enum import IntEnum

ADDRESS_BITS = 16
LENGTHS_BASE = 0x3000
"""Window of valid lengths (encoders): word i is the number of valid tokens of sequence i of a run."""
LENGTHS = 1024
"""Words of that window: most sequences of a run of an encoder."""
PROFILE_BASE = 0x4000
"""Window of dispatch times: word i is the cycle, counted from start, of descriptor i's dispatch,
in the last sequence."""
POOL_BASE = 0x8000
"""Window of the pattern memory (RAM pools): two words an entry, low half first."""
IDENTITY = 0x4E475748
"""Value of ``id``: the letters HWGN."""
MAP_VERSION = 1


@dataclass(frozen=True)
class Register:
    """One 32-bit register: byte address, name, access (``rw``, ``ro``, ``special``), meaning."""

    address: int
    name: str
    access: str
    meaning: str


REGISTERS = (
    Register(0x00, "control", "special",
             "bit 0 start (set to begin, cleared when taken), bit 1 done (cleared by reading), "
             "bit 2 idle, bit 3 ready"),
    Register(0x04, "interrupt_global", "rw", "bit 0 enables the interrupt output"),
    Register(0x08, "interrupt_enable", "rw", "bit 0 done, bit 1 ready"),
    Register(0x0C, "interrupt_status", "special", "bit 0 done, bit 1 ready; write 1 to toggle"),
    Register(0x10, "program_low", "rw", "program pointer, bits 31:0; 4096-byte aligned"),
    Register(0x14, "program_high", "rw", "program pointer, bits 63:32"),
    Register(0x1C, "weights_low", "rw", "weight stream pointer, bits 31:0; 4096-byte aligned"),
    Register(0x20, "weights_high", "rw", "weight stream pointer, bits 63:32"),
    Register(0x28, "input_low", "rw", "input pointer, bits 31:0; 4096-byte aligned"),
    Register(0x2C, "input_high", "rw", "input pointer, bits 63:32"),
    Register(0x34, "output_low", "rw", "output pointer, bits 31:0; 4096-byte aligned"),
    Register(0x38, "output_high", "rw", "output pointer, bits 63:32"),
    Register(0x40, "program_length", "rw", "descriptors in the program, END included"),
    Register(0x48, "weights_beats", "rw", "beats of the weight stream"),
    Register(0x50, "sequences", "rw", "times that program and weight stream run; 0 counts as 1"),
    Register(0x58, "input_stride", "rw", "bytes from the input of a sequence to the next"),
    Register(0x60, "output_stride", "rw", "bytes from the output of a sequence to the next"),
    Register(0x80, "id", "ro", "0x4E475748"),
    Register(0x84, "version", "ro", "version of this map"),
    Register(0x88, "configuration", "ro", "first 32 bits of the configuration hash"),
    Register(0x8C, "status", "ro", "status code of the last run; 0 is success"),
    Register(0x90, "descriptor", "ro", "index of the last dispatched descriptor"),
    Register(0xC0, "cycles", "ro", "clock cycles from start to done"),
    Register(0xC4, "busy_cycles", "ro", "cycles in which the array took a K-step"),
    Register(0xC8, "weight_wait_cycles", "ro", "cycles in which a product waited for its tile"),
    Register(0xCC, "drain_wait_cycles", "ro", "cycles in which the array waited for results to drain"),
    Register(0xD0, "load_cycles", "ro", "cycles in which the load unit was busy"),
    Register(0xD4, "store_cycles", "ro", "cycles in which the store unit was busy"),
    Register(0xD8, "saturations", "ro", "output values that were clipped"),
    Register(0xDC, "tiles", "ro", "tiles consumed"),
)


class Status(IntEnum):
    """Codes of the ``status`` register."""

    OK = 0
    RUNNING = 1
    BAD_OPCODE = 2
    BAD_TILE = 3
    READ_ERROR = 4
    WRITE_ERROR = 5
    WATCHDOG = 6


def address_of(name):
    """Byte address of a register.

    >>> hex(address_of("cycles"))
    '0xc0'
    """
    return {register.name: register.address for register in REGISTERS}[name]
