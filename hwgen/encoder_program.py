"""The program of a whole encoder: descriptors of all layers, and the places of their tensors.

Main bank: the layer's input and output, the attention norm's output, and above them q, context and
the transposed values of two heads, later the GELU's output. Side bank: k, v, scores and transposed
context of a head, later the branches of both norms. What shares a place is never alive together, so
that no wait comes from it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from compressor.intops.encoder import LINEAR_PATHS
from hwgen.hazards import with_waits
from hwgen.plan import AttentionPlan, LayerPlan, Plan, PlanError
from hwgen.program import TENSOR_ALIGNMENT, Program, Tensor, linear_program
from rtl_templates.program_format import SIDE_BANK, Descriptor, Flag, Opcode
from rtl_templates.slot_assignment import SIZE
from rtl_templates.word_format import token_groups

PROFILE_DEPTH = 4096
"""Descriptors whose dispatch cycles the register window can show."""


@dataclass(frozen=True, kw_only=True)
class EncoderProgram(Program):
    """A program of encoder layers; its input and outputs are hidden states of one sequence.

    Parameters
    ----------
    side_words : int
        Words of the side bank that it uses.
    works_on : tuple of str
        What each descriptor works on: a layer's name, or "<encoder layer>: <what>".
    """

    side_words: int
    works_on: tuple[str, ...]

    @property
    def steps(self):
        """``works_on``."""
        return self.works_on

    @property
    def matmuls(self):
        """Index of the MATMUL descriptor of each linear layer: dict by layer name."""
        return {name: self.steps.index(name) for name in self.layers}


def encoder_program(plan: Plan, tokens: int | None = None, *, every_layer: bool = False) -> EncoderProgram:
    """The whole encoder: load the embeddings, run all layers, store the last hidden states.

    Parameters
    ----------
    plan : hwgen.plan.Plan
        Of an accelerator with encoder units.
    tokens : int, optional
        1 to ``plan.tokens``, the default.
    every_layer : bool
        Store every layer's output, not the last one's alone.

    Returns
    -------
    EncoderProgram

    Raises
    ------
    PlanError
        If the plan has no encoder, or something does not fit its sizes.
    """
    if not plan.attention:
        raise PlanError("this accelerator runs linear layers alone; build it from a bundle with operators")
    tokens = plan.tokens if tokens is None else tokens
    builder = _Builder(plan, tokens)
    last = len(plan.attention) - 1
    for index in range(len(plan.attention)):
        builder.layer(index, store=every_layer or index == last)
    return builder.finish()


def encoder_words(layers: Sequence[LayerPlan], attention: Sequence[AttentionPlan], tokens: int,
                  lanes: int) -> tuple[int, int]:
    """Words of the main and of the side bank that :func:`encoder_program` needs.

    Parameters
    ----------
    layers : sequence of LayerPlan
        All of them, six to an encoder layer.
    attention : sequence of AttentionPlan
    tokens, lanes : int

    Returns
    -------
    main, side : int
    """
    places = [_Places(_roles(layers, one), one, tokens, lanes) for one in attention]
    return max(p.main_words for p in places), max(p.side_words for p in places)


def attention_tiles(spec, tokens):
    """Tiles of the scores of one head, and as many of its context, that are made on chip."""
    return local_tiles(spec.array.units, spec.array.lanes, tokens)


def local_tiles(units, lanes, tokens):
    """Row groups of 4R in the token groups of a sequence.

    >>> local_tiles(units=4, lanes=8, tokens=20)
    2
    """
    return -(-token_groups(tokens, lanes) * (lanes // SIZE) // units)


def _roles(layers, attention):
    by_name = {layer.name: layer for layer in layers}
    return {role: by_name[f"{attention.name}.{path}"] for role, path in LINEAR_PATHS.items()}


class _Places:
    """Word addresses of an encoder layer's tensors; those of the side bank without SIDE_BANK."""

    def __init__(self, roles, attention, tokens, lanes):
        groups = token_groups(tokens, lanes)
        self.key_words = groups * lanes // SIZE
        self.value_groups = token_groups(attention.value_size, lanes)
        hidden, wide = (groups * roles[role].output_words for role in ("o", "ffn1"))
        q, k, v = (groups * roles[role].output_words for role in ("q", "k", "v"))
        transposed = self.value_groups * self.key_words
        self.x, self.norm, self.gelu, self.q = 0, hidden, 2 * hidden, 2 * hidden
        self.context = self.q + q
        self.values = (self.context + v, self.context + v + transposed)
        self.main_words = max(self.gelu + wide, self.values[1] + transposed)
        self.branch, self.k, self.v = 0, 0, k
        self.scores = k + v
        self.new_context = self.scores + groups * self.key_words
        self.side_words = max(hidden, self.new_context + transposed)


class _Builder:
    """Collects descriptors with what they work on."""

    def __init__(self, plan, tokens):
        self.plan, self.tokens, self.groups = plan, tokens, plan.groups(tokens)
        self.lanes = plan.spec.array.lanes
        self.tiles = attention_tiles(plan.spec, tokens)
        self.descriptors, self.steps, self.layers, self.outputs = [], [], [], []
        self.hidden_words = plan.layers[0].columns
        self.main_words, self.side_words = encoder_words(plan.layers, plan.attention, tokens, self.lanes)
        self._add("input", Opcode.LOAD, destination=0, length=self.groups * self.hidden_words)

    def layer(self, index, *, store):
        """All descriptors of one encoder layer."""
        attention = self.plan.attention[index]
        roles = _roles(self.plan.layers, attention)
        at = _Places(roles, attention, self.tokens, self.lanes)
        bank = index & 1
        self._linear(roles["q"], at.x, at.q)
        self._linear(roles["k"], at.x, at.k | SIDE_BANK)
        self._linear(roles["v"], at.x, at.v | SIDE_BANK)
        self._values(attention, roles, at, 0)
        for head in range(attention.heads):
            self._head(attention, roles, at, head, bank)
        self._linear(roles["o"], at.context, at.branch | SIDE_BANK)
        self._norm(f"{attention.name}: attention norm", at.x, at.branch, at.norm, bank * Flag.TABLE_BANK)
        self._linear(roles["ffn1"], at.norm, at.gelu, Flag.GELU | bank * Flag.GELU_BANK)
        self._linear(roles["ffn2"], at.gelu, at.branch | SIDE_BANK)
        self._norm(f"{attention.name}: output norm", at.norm, at.branch, at.x,
                   Flag.OUTPUT_NORM | bank * Flag.TABLE_BANK)
        if store:
            self._store(attention.name, at.x)

    def finish(self):
        """The program; PlanError if it does not fit."""
        spec = self.plan.spec
        descriptors = (*with_waits(self.descriptors, lanes=self.lanes), Descriptor(opcode=Opcode.END))
        for what, needed, allowed in (
                ("descriptors", len(descriptors), min(spec.program_depth, PROFILE_DEPTH)),
                ("words of activation buffer", self.main_words, spec.activation_words),
                ("words of side bank", self.side_words, spec.encoder.side_words)):
            if needed > allowed:
                raise PlanError(f"the encoder's program needs {needed} {what}; "
                                f"this accelerator has {allowed}")
        source = Tensor(name="input", offset=0, bytes=self._bytes, tokens=self.tokens,
                        channels=SIZE * self.hidden_words)
        return EncoderProgram(descriptors=descriptors, layers=tuple(self.layers), inputs=(source,),
                              outputs=tuple(self.outputs), sources={}, tokens=self.tokens,
                              buffer_words=self.main_words, side_words=self.side_words,
                              works_on=(*self.steps, "end"))

    @property
    def _bytes(self):
        return self.groups * self.hidden_words * self.plan.spec.array.word_bits // 8

    def _add(self, step, opcode, **fields):
        self.steps.append(step)
        self.descriptors.append(Descriptor(opcode=opcode, **fields))

    def _linear(self, layer, source, destination, flags=0):
        self.layers.append(layer.name)
        self._add(layer.name, Opcode.MATMUL, groups=self.groups, tiles=len(layer.ksteps), source=source,
                  destination=destination, source_stride=layer.columns,
                  destination_stride=layer.output_words, flags=int(flags))

    def _head(self, attention, roles, at, head, bank):
        """Scores, softmax and context of a head; meanwhile the next head's values are transposed."""
        name = f"{attention.name}: head {head}"
        key_columns = attention.key_size // SIZE
        stride = roles["q"].output_words
        offset = head * key_columns
        rescaling = attention.score_multiplier[head] | attention.score_shift[head] << 16
        self._add(f"{name}, keys", Opcode.KEYS, groups=self.groups, length=key_columns,
                  source=at.k + offset | SIDE_BANK, source_stride=stride, offset=rescaling)
        self._add(f"{name}, scores", Opcode.MATMUL, groups=self.groups, tiles=self.tiles,
                  source=at.q + offset, source_stride=stride, length=key_columns,
                  destination=at.scores | SIDE_BANK, destination_stride=at.key_words)
        self._add(f"{name}, softmax", Opcode.SOFTMAX, groups=self.groups, length=-(-self.tokens // SIZE),
                  source=at.scores | SIDE_BANK, source_stride=at.key_words,
                  offset=attention.context_numerator | attention.context_exponent << 32,
                  flags=bank * Flag.TABLE_BANK | attention.map_pruning * Flag.MAP_PRUNING)
        self._add(f"{name}, context", Opcode.MATMUL, groups=at.value_groups, tiles=self.tiles,
                  source=at.values[head & 1], source_stride=at.key_words,
                  destination=at.new_context | SIDE_BANK, destination_stride=at.key_words)
        if head + 1 < attention.heads:
            self._values(attention, roles, at, head + 1)
        columns = attention.value_size // SIZE
        self._add(f"{name}, context to words", Opcode.TRANSPOSE, groups=at.value_groups, length=at.key_words,
                  source=at.new_context | SIDE_BANK, source_stride=at.key_words,
                  destination=at.context + head * columns, destination_stride=roles["v"].output_words,
                  tiles=columns)

    def _values(self, attention, roles, at, head):
        columns = attention.value_size // SIZE
        self._add(f"{attention.name}: head {head}, values", Opcode.TRANSPOSE, groups=self.groups,
                  length=columns, source=at.v + head * columns | SIDE_BANK,
                  source_stride=roles["v"].output_words, destination=at.values[head & 1],
                  destination_stride=at.key_words, tiles=at.key_words)

    def _norm(self, step, residual, branch, destination, flags):
        self._add(step, Opcode.NORM, groups=self.groups, length=self.hidden_words, source=residual,
                  offset=branch | SIDE_BANK, source_stride=self.hidden_words, destination=destination,
                  destination_stride=self.hidden_words, flags=int(flags))

    def _store(self, name, source):
        self.outputs.append(Tensor(name=name, offset=len(self.outputs) * self._tensor_step, bytes=self._bytes,
                                   tokens=self.tokens, channels=SIZE * self.hidden_words))
        self._add(f"{name}: store", Opcode.STORE, source=source, length=self.groups * self.hidden_words,
                  offset=self.outputs[-1].offset)

    @property
    def _tensor_step(self):
        return -(-self._bytes // TENSOR_ALIGNMENT) * TENSOR_ALIGNMENT


def whole_program(plan: Plan, tokens: int | None = None) -> Program:
    """What a build runs: the whole encoder, or all linear layers if the accelerator has no more."""
    return encoder_program(plan, tokens) if plan.attention else linear_program(plan, tokens=tokens)
