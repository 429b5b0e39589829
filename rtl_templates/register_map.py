"""AXI4-Lite register map, in the layout of Vitis RTL kernels.

The one list that RTL, benches, drivers and the generated register files read.
"""

from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum

from rtl_templates.array_spec import PoolStorage

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


STATUS_BITS = 5


class Access(StrEnum):
    """What software may do with a field."""

    READ_WRITE = "rw"
    READ_ONLY = "ro"
    WRITE_ONLY = "wo"
    READ_CLEARS = "rc"
    WRITE_1_SETS = "w1s"
    WRITE_1_TOGGLES = "w1t"


@dataclass(frozen=True)
class Field:
    """Bits ``low`` to ``low + width - 1`` of a register, with their value after reset."""

    name: str
    low: int
    width: int
    access: Access
    meaning: str
    reset: int = 0

    @property
    def high(self):
        """Index of the highest bit."""
        return self.low + self.width - 1


@dataclass(frozen=True)
class Register:
    """One 32-bit register: byte address, name, access (``rw``, ``ro``, ``special``), meaning, fields.

    Without ``fields`` it is one number, ``value``, that is ``reset`` after reset. Bits outside of all fields
    read 0.
    """

    address: int
    name: str
    access: str
    meaning: str
    fields: tuple[Field, ...] = ()
    reset: int = 0

    def __post_init__(self):
        if not self.fields:
            value = Field("value", 0, 32, Access(self.access), self.meaning, self.reset)
            object.__setattr__(self, "fields", (value,))

    @property
    def reset_word(self):
        """The whole register after reset."""
        return sum(field.reset << field.low for field in self.fields)


@dataclass(frozen=True)
class Window:
    """``words`` consecutive 32-bit words from a byte address on, ``ro`` or ``wo``."""

    address: int
    name: str
    words: int
    access: Access
    meaning: str


REGISTERS = (
    Register(0x00, "control", "special", "starts runs and tells when they are over", (
        Field("start", 0, 1, Access.WRITE_1_SETS, "begins a run; cleared when taken"),
        Field("done", 1, 1, Access.READ_CLEARS, "a run has ended"),
        Field("idle", 2, 1, Access.READ_ONLY, "no run is under way", reset=1),
        Field("ready", 3, 1, Access.READ_CLEARS, "the next run may be set up"))),
    Register(0x04, "interrupt_global", "rw", "enables the interrupt output", (
        Field("enable", 0, 1, Access.READ_WRITE, "enables the interrupt output"),)),
    Register(0x08, "interrupt_enable", "rw", "what becomes pending", (
        Field("done", 0, 1, Access.READ_WRITE, "the end of a run interrupts"),
        Field("ready", 1, 1, Access.READ_WRITE, "being ready interrupts"))),
    Register(0x0C, "interrupt_status", "special", "what is pending", (
        Field("done", 0, 1, Access.WRITE_1_TOGGLES, "a run has ended"),
        Field("ready", 1, 1, Access.WRITE_1_TOGGLES, "the next run may be set up"))),
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
    Register(0x50, "sequences", "rw", "times that program and weight stream run", reset=1),
    Register(0x58, "input_stride", "rw", "bytes from the input of a sequence to the next"),
    Register(0x60, "output_stride", "rw", "bytes from the output of a sequence to the next"),
    Register(0x80, "id", "ro", "the letters HWGN", reset=IDENTITY),
    Register(0x84, "version", "ro", "version of this map", reset=MAP_VERSION),
    Register(0x88, "configuration", "ro", "first 32 bits of the configuration hash"),
    Register(0x8C, "status", "ro", "status of the last run", (
        Field("code", 0, STATUS_BITS, Access.READ_ONLY, "status code of the last run; 0 is success"),)),
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


RUN_COUNTERS = tuple(register.name for register in REGISTERS
                 if register.access == "ro" and 0xC0 <= register.address < 0x100)
"""Registers that count during a run, from zero at its start."""


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


def status_text(code: int) -> str:
    """One line that names a status code, says what it means and what to do.

    >>> status_text(1)
    'RUNNING: a run is under way; wait for the interrupt'
    >>> status_text(31)
    'unknown status 31'
    """
    if code not in STATUS_HELP:
        return f"unknown status {code}"
    status = Status(code)
    meaning, action = STATUS_HELP[status]
    return f"{status.name}: {meaning}" + (f"; {action}" if action else "")


def address_of(name: str) -> int:
    """Byte address of a register.

    >>> hex(address_of("cycles"))
    '0xc0'
    """
    return {register.name: register.address for register in REGISTERS}[name]


def mask_of(register: str, field: str) -> int:
    """Mask of a field within its register.

    >>> mask_of("control", "idle")
    4
    """
    fields = next(one.fields for one in REGISTERS if one.name == register)
    return next(((1 << one.width) - 1) << one.low for one in fields if one.name == field)


def registers(spec):
    """:data:`REGISTERS` as an accelerator has them after reset: with its configuration.

    Parameters
    ----------
    spec : AcceleratorSpec

    Returns
    -------
    tuple of Register
    """
    return tuple(replace(register, fields=(), reset=spec.configuration)
                 if register.name == "configuration" else register for register in REGISTERS)


def windows(spec):
    """Windows that an accelerator has.

    Parameters
    ----------
    spec : AcceleratorSpec

    Returns
    -------
    tuple of Window
    """
    found = []
    if spec.encoder is not None:
        found.append(Window(LENGTHS_BASE, "lengths", LENGTHS, Access.WRITE_ONLY,
                            "valid tokens of each sequence of a run"))
    found.append(Window(PROFILE_BASE, "profile", max(2, spec.program_depth), Access.READ_ONLY,
                        "cycle in which each descriptor was dispatched, in the last sequence"))
    if spec.array.storage is PoolStorage.RAM:
        words = 2 << (spec.array.control_bits + 1)
        found.append(Window(POOL_BASE, "pool", words, Access.WRITE_ONLY,
                            "pattern memory, two words an entry, low half first"))
    return tuple(found)
