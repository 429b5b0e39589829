"""What a descriptor may hold: one table, of which the hardware's checks and their software twin are made."""

from dataclasses import dataclass, replace

from compressor.intops.fixedpoint import SHIFT_MAX
from rtl_templates.program_format import SIDE_BANK, Flag, Opcode, Unit
from rtl_templates.register_map import Status
from rtl_templates.word_format import CHANNELS, token_groups

COUNT_MAX = (1 << 16) - 1
EXPONENT_BITS = 6
"""Width of the exponent of a SOFTMAX."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Limits of the fields of one opcode.

    Parameters
    ----------
    counts : tuple of str
        Fields that must be at least 1.
    groups, length : int or None
        Most token groups and words; None if only the buffer limits them.
    flags : int
        Flags that it may have.
    source, destination : int or None
        Words of the bank that it reads and writes; None if the field is not used.
    source_side, destination_side : bool or None
        Whether that is the side bank; None leaves the choice to the address.
    branch : bool
        ``offset`` is a second source, in the side bank.
    transfer : bool
        ``length`` words, consecutive; ``offset`` is a multiple of the bus width in bytes.
    """

    counts: tuple[str, ...] = ()
    groups: int | None = None
    length: int | None = None
    flags: int = 0
    source: int | None = None
    destination: int | None = None
    source_side: bool = False
    destination_side: bool | None = False
    branch: bool = False
    transfer: bool = False


def rules(spec):
    """Rule of every opcode of an accelerator: dict by Opcode.

    Parameters
    ----------
    spec : rtl_templates.array_spec.AcceleratorSpec
    """
    main, encoder = spec.activation_words, spec.encoder
    result = {
        Opcode.LOAD: Rule(counts=("length",), destination=main, transfer=True),
        Opcode.STORE: Rule(counts=("length",), source=main, transfer=True),
        Opcode.MATMUL: Rule(counts=("groups", "tiles"), source=main, destination=main),
        Opcode.END: Rule()}
    if encoder is None:
        return result
    side, lanes = encoder.side_words, spec.array.lanes
    groups = token_groups(encoder.tokens, lanes)
    counts = ("groups", "length")
    return result | {
        Opcode.MATMUL: replace(result[Opcode.MATMUL], destination_side=None,
                               flags=int(Flag.GELU | Flag.GELU_BANK)),
        Opcode.KEYS: Rule(counts=counts, groups=groups, length=encoder.key_columns, source=side,
                          source_side=True),
        Opcode.SOFTMAX: Rule(counts=counts, groups=groups, length=groups * lanes // CHANNELS, source=side,
                             source_side=True,
                             flags=int(Flag.TABLE_BANK) | bool(encoder.map_entries) * int(Flag.MAP_PRUNING)),
        Opcode.TRANSPOSE: Rule(counts=(*counts, "tiles"), length=COUNT_MAX, source=side, source_side=True,
                               destination=main),
        Opcode.NORM: Rule(counts=counts, length=encoder.columns, source=main, destination=main, branch=True,
                          flags=int(Flag.TABLE_BANK | Flag.OUTPUT_NORM))}


def known_units(spec):
    """Units that a wait mask may name, as a mask: int."""
    return int(Unit.LOAD | Unit.ARRAY | Unit.STORE) if spec.encoder is None else sum(Unit)


def fault(descriptor, spec, valid_length=0):
    """Status code with which the accelerator refuses a descriptor; Status.OK if it takes it.

    The software twin of :class:`rtl_templates.descriptor_check.DescriptorCheck`.

    Parameters
    ----------
    descriptor : Descriptor
    spec : AcceleratorSpec
    valid_length : int
        Of the sequence that runs.
    """
    d, rule = descriptor, rules(spec).get(descriptor.opcode)
    if rule is None:
        return Status.BAD_OPCODE
    bad = (any(getattr(d, name) == 0 for name in rule.counts) or int(d.wait) & ~known_units(spec)
           or int(d.flags) & ~rule.flags or (rule.groups and d.groups > rule.groups)
           or (rule.length and d.length > rule.length)
           or (rule.transfer and d.offset % (spec.bus_bits // 8))
           or (d.opcode is Opcode.KEYS and not 0 < d.offset >> 16 <= SHIFT_MAX)
           or (d.opcode is Opcode.SOFTMAX and d.offset >> 32 + EXPONENT_BITS))
    outside = False
    for address, words, side, extent in _extents(d, rule, spec):
        in_side = bool(address & SIDE_BANK)
        bad = bad or side not in (None, in_side)
        if side is None and in_side:
            words = spec.encoder.side_words
        outside = outside or (address & ~SIDE_BANK) + extent > words
    if bad:
        return Status.BAD_DESCRIPTOR
    if d.opcode is Opcode.SOFTMAX and valid_length > CHANNELS * d.length:
        return Status.BAD_LENGTH
    return Status.BAD_DESCRIPTOR if outside else Status.OK


def _extents(d, rule, spec):
    """Ranges that a descriptor uses: address, words of its bank, whether that is the side bank, words."""
    if rule.transfer:
        address, words = (d.source, rule.source) if rule.source else (d.destination, rule.destination)
        return [(address, words, False, d.length)]
    extents = []
    if rule.source:
        extent = (d.groups - 1) * d.source_stride + (d.length or d.source_stride)
        extents.append((d.source, rule.source, rule.source_side, extent))
        if rule.branch:
            extents.append((d.offset & 0xFFFFFFFF, spec.encoder.side_words, True, extent))
    if rule.destination:
        groups, words = d.groups, d.destination_stride
        if d.opcode is Opcode.TRANSPOSE:
            groups, words = token_groups(CHANNELS * d.length, spec.array.lanes), d.tiles
        elif d.opcode is Opcode.NORM:
            words = d.length
        extents.append((d.destination, rule.destination, rule.destination_side,
                        (groups - 1) * d.destination_stride + words))
    return extents
