"""The plan: everything that hwgen decided for one bundle, as plain values."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from rtl_templates.array_spec import AcceleratorSpec, Accumulation, ArraySpec, EncoderSpec, PoolStorage
from rtl_templates.slot_assignment import SlotAssignment
from rtl_templates.word_format import CHANNELS, token_groups

PLAN_VERSION = 2


class PlanError(ValueError):
    """A request that no accelerator can meet, or an unreadable plan file; the message has the numbers."""


@dataclass(frozen=True, kw_only=True)
class LayerPlan:
    """One linear layer on the array.

    Parameters
    ----------
    name, role, structure : str
        As in the bundle.
    rows, inner : int
        Output rows and inner dimension K, multiples of 4.
    ksteps : tuple of int
        K-steps of each tile; a tile is 4R output rows.
    kept_weights : int
        Weights that the layer's structure keeps: its useful MACs a token.
    """

    name: str
    role: str
    structure: str
    rows: int
    inner: int
    ksteps: tuple[int, ...]
    kept_weights: int

    @property
    def columns(self) -> int:
        """Activation words of a token group of the input: K / 4."""
        return self.inner // CHANNELS

    @property
    def output_words(self) -> int:
        """Activation words of a token group of the output: rows / 4."""
        return self.rows // CHANNELS

    def tiles(self, units: int) -> list[tuple[int, int]]:
        """Pairs (output words, K-steps) of the tiles on an array of ``units`` block units.

        >>> layer = LayerPlan(name="", role="q", structure="dense", rows=24, inner=4, ksteps=(2, 2),
        ...                   kept_weights=96)
        >>> layer.tiles(4)
        [(4, 2), (2, 2)]
        """
        return [(min(units, self.output_words - tile * units), ksteps)
                for tile, ksteps in enumerate(self.ksteps)]


@dataclass(frozen=True, kw_only=True)
class AttentionPlan:
    """Attention of one encoder layer: sizes, and the constants that its descriptors carry.

    Parameters
    ----------
    name : str
        Path of the encoder layer.
    heads, key_size, value_size : int
        Channels of a head in q and k, and in v.
    score_multiplier, score_shift : tuple of int
        One a head.
    context_numerator, context_exponent : int
    map_pruning : bool
    """

    name: str
    heads: int
    key_size: int
    value_size: int
    score_multiplier: tuple[int, ...]
    score_shift: tuple[int, ...]
    context_numerator: int
    context_exponent: int
    map_pruning: bool


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Sizes, layers and limits of one accelerator.

    Parameters
    ----------
    device : str or None
        Name of the device it was sized for.
    spec : AcceleratorSpec
        Its ``configuration`` is the first 32 bits of :attr:`configuration_hash`.
    layers : tuple of LayerPlan
        In execution order.
    tokens : int
        Longest sequence S that the activation buffer holds.
    modelled : dict
        Modelled resources by name (hwgen.resource_model); not measured.
    predicted_cycles : int
        Cycles of the built program, all layers on ``tokens`` tokens, with the nominal memory.
    attention : tuple of AttentionPlan
        One for each encoder layer; empty if the accelerator runs linear layers alone.
    """

    device: str | None
    spec: AcceleratorSpec
    layers: tuple[LayerPlan, ...]
    tokens: int
    modelled: dict[str, int]
    predicted_cycles: int
    attention: tuple[AttentionPlan, ...] = ()

    @property
    def configuration_hash(self) -> str:
        """SHA-256 of everything that shapes the hardware, as hex."""
        return configuration_hash(self.spec)

    def layer(self, name: str) -> LayerPlan:
        """The layer of that name; PlanError if the plan has none."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise PlanError(f"the plan has no layer {name!r}; it has {', '.join(lp.name for lp in self.layers)}")

    def groups(self, tokens: int) -> int:
        """Token groups of a sequence; PlanError unless it has 1 to ``self.tokens`` tokens."""
        if not 1 <= tokens <= self.tokens:
            raise PlanError(f"{tokens} tokens do not fit: this accelerator was built for 1 to {self.tokens}; "
                            f"build it with --tokens {tokens}")
        return token_groups(tokens, self.spec.array.lanes)

    def to_json(self) -> str:
        """Canonical JSON text."""
        values = {"plan_version": PLAN_VERSION, "configuration_hash": self.configuration_hash, **asdict(self)}
        return json.dumps(values, indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Inverse of :meth:`to_json`.

        Raises
        ------
        PlanError
            If the text is no plan, or of another version, or its hash does not match.
        """
        try:
            values = json.loads(text)
            version = values.pop("plan_version")
            if version != PLAN_VERSION:
                raise PlanError(f"plan version is {version}; {PLAN_VERSION} is read here: build again")
            stored = values.pop("configuration_hash")
            spec = values.pop("spec")
            array = spec.pop("array")
            assignment = SlotAssignment(**_tuples(array.pop("assignment")))
            array = ArraySpec(assignment=assignment, storage=PoolStorage(array.pop("storage")),
                              accumulation=Accumulation(array.pop("accumulation")), **array)
            encoder = spec.pop("encoder")
            encoder = encoder and EncoderSpec(**_tuples(encoder))
            layers = tuple(LayerPlan(**_tuples(layer)) for layer in values.pop("layers"))
            attention = tuple(AttentionPlan(**_tuples(layer)) for layer in values.pop("attention"))
            plan = cls(spec=AcceleratorSpec(array=array, encoder=encoder, **spec), layers=layers,
                       attention=attention, **values)
        except PlanError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PlanError(f"not a plan: {type(error).__name__}: {error}") from error
        if plan.configuration_hash != stored:
            raise PlanError("the plan's sizes do not match its configuration hash; build again")
        return plan


def configuration_hash(spec: AcceleratorSpec) -> str:
    """SHA-256 of the sizes of an accelerator, as hex; ``spec.configuration`` itself does not count.

    Patterns of weights that are loaded at run time do not shape the hardware, only their number and routing
    do. Patterns of attention maps always do: they are in the logic that chooses among them.
    """
    values = asdict(replace(spec, configuration=0))
    if spec.array.storage is not PoolStorage.ROM:
        del values["array"]["assignment"]["rows"], values["array"]["assignment"]["columns"]
        if spec.encoder is not None:
            values["map_patterns"] = spec.array.assignment.masks[list(spec.encoder.map_entries)].tolist()
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def with_configuration(spec: AcceleratorSpec) -> AcceleratorSpec:
    """The same spec with ``configuration`` set to the first 32 bits of its hash."""
    return replace(spec, configuration=int(configuration_hash(spec)[:8], 16))


def _tuples(value: Any) -> Any:
    """JSON values with every list turned into a tuple."""
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return value
