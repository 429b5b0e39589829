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
MAP_VERSION = 2


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
    Register(0x50, "sequences", "rw", "times that program and weight stream run; 1 after reset"),
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
    """Codes of the ``status`` register; :data:`STATUS_HELP` says what they mean."""

    OK = 0
    RUNNING = 1
    BAD_OPCODE = 2
    BAD_TILE = 3
    INPUT_READ_ERROR = 4
    OUTPUT_WRITE_ERROR = 5
    WATCHDOG = 6
    BAD_DESCRIPTOR = 7
    BAD_PROGRAM = 8
    PROGRAM_READ_ERROR = 9
    WEIGHT_READ_ERROR = 10
    BAD_PACKET = 11
    BAD_TABLE = 12
    BAD_LOCAL = 13
    BAD_LENGTH = 14
    BAD_SEQUENCES = 15
    BAD_POINTER = 16
    WEIGHTS_LEFT = 17
    READ_TIMEOUT = 18
    WEIGHT_TIMEOUT = 19
    WRITE_TIMEOUT = 20


STATUS_BITS = 5

STATUS_HELP = {
    Status.OK: ("the run is complete", ""),
    Status.RUNNING: ("a run is under way", "wait for the interrupt"),
    Status.BAD_OPCODE: (
        "a descriptor has an opcode that this accelerator lacks",
        "run a program that was built for it; compare register configuration with plan.json"),
    Status.BAD_TILE: (
        "a tile of the weight stream has 0 or too many K-steps or words",
        "load the weight stream that was built for this accelerator"),
    Status.INPUT_READ_ERROR: (
        "m_axi_gmem0 answered a read of the input with an error",
        "check the input pointer, input_stride and the size of that memory"),
    Status.OUTPUT_WRITE_ERROR: (
        "m_axi_gmem0 answered a write of the output with an error",
        "check the output pointer, output_stride and the size of that memory"),
    Status.WATCHDOG: (
        "nothing moved, though memory owes nothing: a product waits for tiles that never come",
        "check weights_beats, and that program and weight stream are of one build"),
    Status.BAD_DESCRIPTOR: (
        "a field of a descriptor is 0, too large, unaligned or outside of the activation buffer",
        "run a program that was built for this accelerator"),
    Status.BAD_PROGRAM: (
        "program_length is 0 or more than the program memory holds, or the program has no END",
        "set program_length to the descriptors of the program, END included"),
    Status.PROGRAM_READ_ERROR: (
        "m_axi_gmem0 answered a read of the program with an error",
        "check the program pointer and program_length"),
    Status.WEIGHT_READ_ERROR: (
        "m_axi_gmem1 answered a read of the weight stream with an error",
        "check the weights pointer and weights_beats"),
    Status.BAD_PACKET: (
        "the weight stream holds no packet where one must begin",
        "check the weights pointer; load the weight stream that was built for this accelerator"),
    Status.BAD_TABLE: (
        "a table of the weight stream is unknown, empty or longer than its memory",
        "load the weight stream that was built for this accelerator"),
    Status.BAD_LOCAL: (
        "the weight stream announces 0 tiles that are made on chip",
        "load the weight stream that was built for this accelerator"),
    Status.BAD_LENGTH: (
        "the valid length of a sequence exceeds the tokens of the program",
        "write lengths up to the program's tokens into the window of valid lengths"),
    Status.BAD_SEQUENCES: (
        "sequences is 0, or more than the window of valid lengths holds",
        f"set sequences to 1 to {LENGTHS}; without encoder units there is no upper limit"),
    Status.BAD_POINTER: (
        "a pointer or a stride is no multiple of the bus width in bytes",
        "align memory to 4096 bytes"),
    Status.WEIGHTS_LEFT: (
        "the program ended before the weight stream did",
        "check weights_beats, and that program and weight stream are of one build"),
    Status.READ_TIMEOUT: (
        "m_axi_gmem0 stopped answering reads",
        "check the memory and its clock; reset the accelerator together with the interconnect"),
    Status.WEIGHT_TIMEOUT: (
        "m_axi_gmem1 stopped answering reads",
        "check the memory and its clock; reset the accelerator together with the interconnect"),
    Status.WRITE_TIMEOUT: (
        "m_axi_gmem0 stopped answering writes",
        "check the memory and its clock; reset the accelerator together with the interconnect"),
}
"""What each code means, and what to do about it."""


def status_text(code):
    """One line that names a status code, says what it means and what to do.

    >>> status_text(1)
    'RUNNING: a run is under way; wait for the interrupt'
    >>> status_text(31)
    'unknown status 31'
    """
    if code not in STATUS_HELP:
        return f"unknown status {code}"
    meaning, action = STATUS_HELP[code]
    return f"{Status(code).name}: {meaning}" + (f"; {action}" if action else "")


def address_of(name):
    """Byte address of a register.

    >>> hex(address_of("cycles"))
    '0xc0'
    """
    return {register.name: register.address for register in REGISTERS}[name]
