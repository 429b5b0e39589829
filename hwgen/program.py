"""The program: which descriptors run a list of linear layers, and where their tensors lie in memory.

Wait masks come from hwgen.hazards, which knows nothing of layers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hwgen.hazards import with_waits
from hwgen.plan import LayerPlan, Plan, PlanError
from rtl_templates.program_format import SIDE_BANK, Descriptor, Opcode, Unit

TENSOR_ALIGNMENT = 4096
"""Bytes. Tensors start on 4 KB, where AXI bursts may not cross."""


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A tensor in input or output memory, in word order (rtl_templates.word_format).

    Parameters
    ----------
    name : str
        The layer that reads it (inputs) or computes it (outputs).
    offset, bytes : int
        From the input or output pointer.
    tokens, channels : int
        Its shape.
    """

    name: str
    offset: int
    bytes: int
    tokens: int
    channels: int


@dataclass(frozen=True, kw_only=True)
class Program:
    """Descriptors, and the memory that they expect.

    Parameters
    ----------
    descriptors : tuple of Descriptor
        In dispatch order; the last is END.
    layers : tuple of str
        Layers in the order in which they consume the weight stream.
    inputs, outputs : tuple of Tensor
    sources : dict of str to (str or None)
        For each layer, the layer whose output it reads; None if it reads an input.
    tokens : int
    buffer_words : int
        Words of the activation buffer that it uses.
    """

    descriptors: tuple[Descriptor, ...]
    layers: tuple[str, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    sources: dict
    tokens: int
    buffer_words: int

    @property
    def input_bytes(self):
        """Size of the input memory."""
        return _end(self.inputs)

    @property
    def output_bytes(self):
        """Size of the output memory."""
        return _end(self.outputs)

    @property
    def steps(self):
        """What each descriptor works on: tuple of str, a layer's name where it multiplies."""
        names = {index: name for name, index in self.matmuls.items()}
        return tuple(names.get(index, "") for index in range(len(self.descriptors)))

    @property
    def matmuls(self):
        """Index of the MATMUL descriptor of each layer: dict by layer name."""
        indices = [i for i, d in enumerate(self.descriptors) if d.opcode is Opcode.MATMUL]
        return dict(zip(self.layers, indices, strict=True))

    def input_of(self, layer):
        """The input tensor that a layer reads: its own, or the one that the program has."""
        return next((tensor for tensor in self.inputs if tensor.name == layer), self.inputs[0])

    def pack(self) -> bytes:
        """Bytes of the program."""
        return b"".join(descriptor.pack() for descriptor in self.descriptors)


def linear_program(plan: Plan, layers: Sequence[str] | None = None, tokens: int | None = None) -> Program:
    """Each layer on its own: load its input, multiply, store its output.

    The next layer's input is loaded, and the last layer's output stored, while the array computes,
    wherever the activation buffer has room for that.

    Parameters
    ----------
    plan : hwgen.plan.Plan
    layers : sequence of str, optional
        Names in execution order; all layers of the plan unless given.
    tokens : int, optional
        1 to ``plan.tokens``, the default.

    Returns
    -------
    Program

    Raises
    ------
    PlanError
        If a layer is unknown, or something does not fit the plan's sizes.
    """
    chosen = _chosen(plan, layers)
    tokens = plan.tokens if tokens is None else tokens
    return _linear(chosen, plan.spec, tokens, plan.groups(tokens), plan.spec.activation_words)


def linear_buffer_words(layers: Sequence[LayerPlan], groups: int, *, overlap: bool = True) -> int:
    """Words of activation buffer for :func:`linear_program`; overlap is with loads and stores."""
    if not overlap:
        return groups * max(layer.columns + layer.output_words for layer in layers)
    return max(range_[1] for step in _place_linear(layers, groups, None) for range_ in step[:2])


def chained_program(plan, layers=None, tokens=None):
    """Encoder layers whose activations stay on the chip.

    q, k and v read x, o reads v, ffn1 reads o, ffn2 reads ffn1. What a benchmark of the linear layers
    runs: the sizes are a BERT's, the values are not, since nothing happens between the layers. One input
    (x of the first layer) is loaded; every output is stored.

    Parameters, returns and errors are those of :func:`linear_program`.
    """
    chosen = _chosen(plan, layers)
    tokens = plan.tokens if tokens is None else tokens
    groups, sources = plan.groups(tokens), _chain(chosen)
    memory = _Memory(plan.spec, tokens, groups)
    places = {None: (0, groups * chosen[0].columns)}
    descriptors = [memory.load(places[None], chosen[0])]
    unstored, previous, buffer_words = [], None, places[None][1]
    for index, layer in enumerate(chosen):
        source = places[sources[layer.name]]
        places[layer.name] = _first_fit(groups * layer.output_words, places.values())
        buffer_words = max(buffer_words, places[layer.name][1])
        descriptors.append(memory.matmul(source, places[layer.name], layer))
        # A store waits until the array is idle. A product that reads the one before it waits for that
        # anyway, so everything older is then done and its stores run beside the array.
        if sources[layer.name] == previous:
            descriptors += [memory.store(places[old.name], old) for old in unstored]
            unstored = []
        unstored.append(layer)
        previous = layer.name
        needed = {sources[later.name] for later in chosen[index + 1:]} | {old.name for old in unstored}
        places = {name: place for name, place in places.items() if name in needed}
    descriptors += [memory.store(places[old.name], old) for old in unstored]
    return _finish(descriptors, chosen, sources, memory, buffer_words)


def listing(program):
    """The program as text, one descriptor a line."""
    names = dict(enumerate(program.steps))
    lines = ["index  opcode     wait              source  destination  words/tiles  groups  offset"]
    for index, d in enumerate(program.descriptors):
        wait = "+".join(unit.name.lower() for unit in Unit if unit & d.wait) or "-"
        amount = d.tiles if d.opcode is Opcode.MATMUL else d.length
        offset = d.offset if d.opcode is not Opcode.NORM else _place(d.offset)
        lines.append(f"{index:5d}  {d.opcode.name.lower():9s}  {wait:15s}  {_place(d.source):>7s}  "
                     f"{_place(d.destination):>11s}  {amount:11d}  {d.groups:6d}  {offset:>6}  "
                     f"{names.get(index, '')}".rstrip())
    return "\n".join(lines) + "\n"


def _place(address):
    """Word address as text; those of the side bank begin with "s"."""
    return f"s{address & ~SIDE_BANK}" if address & SIDE_BANK else str(address)


def _linear(layers, spec, tokens, groups, capacity):
    memory = _Memory(spec, tokens, groups)
    descriptors, buffer_words = [], 0
    steps = _place_linear(layers, groups, capacity)
    descriptors.append(memory.load(steps[0][0], layers[0]))
    for index, (layer, (source, result, ahead)) in enumerate(zip(layers, steps, strict=True)):
        descriptors.append(memory.matmul(source, result, layer))
        buffer_words = max(buffer_words, source[1], result[1])
        load = ([memory.load(steps[index + 1][0], layers[index + 1])] if index + 1 < len(layers) else [])
        store = [memory.store(result, layer)]
        descriptors += load + store if ahead else store + load
    return _finish(descriptors, layers, dict.fromkeys(layer.name for layer in layers), memory, buffer_words)


def _place_linear(layers, groups, capacity):
    """Ranges of each layer in a linear program: input, output, and if the next input loads meanwhile."""
    sizes = [(groups * layer.columns, groups * layer.output_words) for layer in layers]
    steps, source, previous = [], (0, sizes[0][0]), None
    for index, (_, size) in enumerate(sizes):
        # Beside the output that is still being stored if possible; else over it, which costs a wait.
        result = (_first_fit(size, [source, previous], capacity) or _first_fit(size, [source], capacity)
                  or (source[1], source[1] + size))
        following = None
        if index + 1 < len(sizes):
            following = _first_fit(sizes[index + 1][0], [source, result], capacity)
            if following and not _first_fit(sizes[index + 1][1], [following], capacity):
                following = None
        steps.append((source, result, following is not None))
        previous = result
        if index + 1 < len(sizes):
            source = following or (0, sizes[index + 1][0])
    return steps


def _first_fit(size, busy, capacity=None):
    """Lowest range of ``size`` words beside the busy ones; None if the capacity does not hold it.

    >>> _first_fit(4, [(0, 2), (5, 8)]), _first_fit(3, [(0, 2), (5, 8)]), _first_fit(4, [(0, 2)], 5)
    ((8, 12), (2, 5), None)
    """
    start = 0
    for first, end in sorted(range_ for range_ in busy if range_):
        if start + size <= first:
            break
        start = max(start, end)
    return None if capacity is not None and start + size > capacity else (start, start + size)


SOURCE_ROLES = {"q": "ffn2", "k": "ffn2", "v": "ffn2", "o": "v", "ffn1": "o", "ffn2": "ffn1"}
"""Role of the layer whose output a layer of a chain reads: the last one before it with that role."""


def _chain(layers):
    sources, latest = {}, {}
    for layer in layers:
        source = latest.get(SOURCE_ROLES[layer.role])
        columns = source.output_words if source else layers[0].columns
        if columns != layer.columns:
            raise PlanError(f"{layer.name} reads {4 * layer.columns} channels and cannot be chained to "
                            f"{source.name if source else 'the input'}, which has {4 * columns}")
        sources[layer.name] = source.name if source else None
        latest[layer.role] = layer
    return sources


class _Memory:
    """Makes descriptors for one sequence, and lays out input and output memory as it goes."""

    def __init__(self, spec, tokens, groups):
        self.spec, self.tokens, self.groups = spec, tokens, groups
        self.inputs, self.outputs = [], []

    def load(self, place, layer):
        tensor = self._add(self.inputs, layer.name, layer.inner)
        return Descriptor(opcode=Opcode.LOAD, destination=place[0], length=place[1] - place[0],
                          offset=tensor.offset)

    def matmul(self, source, result, layer):
        return Descriptor(opcode=Opcode.MATMUL, groups=self.groups, tiles=len(layer.ksteps), source=source[0],
                          destination=result[0], source_stride=layer.columns,
                          destination_stride=layer.output_words)

    def store(self, place, layer):
        tensor = self._add(self.outputs, layer.name, layer.rows)
        return Descriptor(opcode=Opcode.STORE, source=place[0], length=place[1] - place[0],
                          offset=tensor.offset)

    def _add(self, tensors, name, channels):
        start = -(-_end(tensors) // TENSOR_ALIGNMENT) * TENSOR_ALIGNMENT
        size = self.groups * channels // 4 * self.spec.array.word_bits // 8
        tensors.append(Tensor(name=name, offset=start, bytes=size, tokens=self.tokens, channels=channels))
        return tensors[-1]


def _finish(descriptors, layers, sources, memory, buffer_words):
    program = Program(descriptors=(*with_waits(descriptors), Descriptor(opcode=Opcode.END)),
                      layers=tuple(layer.name for layer in layers), inputs=tuple(memory.inputs),
                      outputs=tuple(memory.outputs), sources=sources, tokens=memory.tokens,
                      buffer_words=buffer_words)
    spec = memory.spec
    for what, needed, allowed in (("descriptors", len(program.descriptors), spec.program_depth),
                                  ("words of activation buffer", buffer_words, spec.activation_words),
                                  ("activation columns", max(layer.columns for layer in layers),
                                   1 << spec.column_bits)):
        if needed > allowed:
            raise PlanError(f"the program needs {needed} {what}; this accelerator has {allowed}")
    return program


def _chosen(plan, names):
    chosen = plan.layers if names is None else [plan.layer(name) for name in names]
    if not chosen:
        raise PlanError("a program needs at least one layer")
    return tuple(chosen)


def _end(tensors):
    return tensors[-1].offset + tensors[-1].bytes if tensors else 0
