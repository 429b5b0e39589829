"""Design points: the sizes that a planner may choose for a bundle and a device, and what each costs.

Costs are those of the plan that `hwgen build` makes with the same sizes: cycles are exact with the nominal
memory, resources are modelled. What does not change between points is worked out once: K-steps of tiles by R,
programs by R and T, cycles by what they depend on (most pools in ROM and RAM only differ in resources).
"""

import functools
import shlex
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from compressor.bundle import Bundle
from compressor.text_file import StrPath
from hwgen.cost import predict_program
from hwgen.devices import DEVICES
from hwgen.encoder_program import whole_program
from hwgen.encoder_stream import stream_beats, stream_items
from hwgen.model_sizes import BUS_BITS, CANDIDATE_LANES, ModelSizes
from hwgen.plan import Plan, PlanError
from hwgen.plan_request import PlanRequest
from hwgen.planner import USABLE, make_plan, refusal
from hwgen.program import Program, linear_program
from hwgen.resource_model import modelled_resources
from rtl_templates.array_spec import Accumulation, PoolStorage
from rtl_templates.program_format import DESCRIPTOR_BYTES

ROWS = tuple(range(1, 65))
LANES = CANDIDATE_LANES
OBJECTIVES = ("cycles", "luts", "dsps", "rams", "bytes")
"""What a search makes small: clock cycles of a sequence, LUTs, DSPs, block RAMs, bytes of memory traffic."""


@dataclass(frozen=True, order=True)
class DesignPoint:
    """Sizes of an accelerator: what `hwgen build` takes as options.

    Parameters
    ----------
    rows, lanes : int
        Block units R and token lanes T.
    bus_bits : int
        Width of the memory ports.
    pool : str
        ``rom``, ``ram``, or ``stream`` where the model decides.
    accumulation : str
        ``tree``, ``dsp`` or ``paired``.
    """

    rows: int
    lanes: int
    bus_bits: int
    pool: str = "rom"
    accumulation: str = "tree"

    @property
    def plainness(self) -> tuple[bool, "DesignPoint"]:
        """Smaller for the plainer of points that cost the same: a pool in ROM, a smaller array."""
        return self.pool != PoolStorage.ROM, self

    def command(self, model: StrPath, out: StrPath, device: str, tokens: int) -> str:
        """The `hwgen build` command that builds the point."""
        words = ["hwgen", "build", "--model", str(model), "--out", str(out), "--device", device,
                 "--tokens", str(tokens), "--rows", str(self.rows), "--lanes", str(self.lanes),
                 "--bus-bits", str(self.bus_bits), "--accumulation", self.accumulation]
        return shlex.join(words + (["--pool", self.pool] if self.pool != PoolStorage.STREAM else []))


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a point costs.

    Parameters
    ----------
    point : DesignPoint
    fits : bool
        Whether the device has room for it; ``reason`` says why not.
    cycles : int
        Of a sequence of all tokens; of a point that does not fit a lower bound.
    luts, ffs, dsps, rams, urams : int
        Modelled.
    bytes : int
        Memory traffic of a sequence: weights, tables, inputs, outputs, program; 0 if it does not fit.
    excess : float
        Of the scarcest resource, needed / usable.
    """

    point: DesignPoint
    fits: bool
    cycles: int
    luts: int
    ffs: int
    dsps: int
    rams: int
    urams: int
    bytes: int
    excess: float
    reason: str = ""

    @property
    def values(self) -> tuple[int, ...]:
        """The objectives, in the order of :data:`OBJECTIVES`."""
        return tuple(getattr(self, name) for name in OBJECTIVES)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of :meth:`to_dict`."""
        return cls(**{**values, "point": DesignPoint(**values["point"])})


class Evaluator:
    """Evaluates design points of one bundle, device and sequence length; equal to the plans of `hwgen build`.

    Parameters
    ----------
    bundle : compressor.bundle.Bundle
    device : str
    tokens : int, optional
        The bundle's longest sequence unless given.

    Raises
    ------
    PlanError
        If the device is unknown, or no accelerator can run the bundle.
    """

    def __init__(self, bundle: Bundle, device: str, tokens: int | None = None) -> None:
        if device not in DEVICES:
            raise PlanError(f"unknown device {device!r}; known are {', '.join(DEVICES)}")
        self.bundle, self.device = bundle, DEVICES[device]
        first = self._sizes(None, None, None, tokens)
        self.tokens = first.tokens
        self.pools = ("stream",) if first.storage is PoolStorage.STREAM else ("rom", "ram")
        in_dsp = {"xc7": ("dsp",), "xcup": ("paired",)}.get(self.device.family, ())
        self.accumulations = (*(() if first.assignment.is_routed else in_dsp), "tree")
        self.lanes = tuple(lanes for lanes in LANES if self._runs(first, lanes))
        self.buses = tuple(bits for bits in BUS_BITS
                           if (64 if first.attention else 32) <= bits <= self.device.bus_bits)
        self.known_plans, self.widest_bus = first.known_plans, first.widest_bus
        self._programs: dict[tuple[Any, ...], Program] = {}
        self._timed: dict[tuple[Any, ...], tuple[int, int]] = {}
        self._known: dict[DesignPoint, Evaluation] = {}
        self.seconds = 0.0
        self._known_sizes = functools.cache(self._sizes)

    def point(self, rows: int, lanes: int, bus_bits: int, pool: str, accumulation: str) -> DesignPoint:
        """The point with these sizes, its bus at most as wide as the words allow."""
        return DesignPoint(rows, lanes, min(bus_bits, self.widest_bus(rows, lanes)), pool, accumulation)

    def default(self) -> Evaluation:
        """The point that the planner chooses by itself, evaluated; PlanError if there is none."""
        plan = make_plan(self.bundle, PlanRequest(device=self.device.name, tokens=self.tokens))
        array = plan.spec.array
        return self(DesignPoint(array.units, array.lanes, plan.spec.bus_bits, str(array.storage),
                                str(array.accumulation)))

    def __call__(self, point: DesignPoint) -> Evaluation:
        """Evaluate a point.

        Returns
        -------
        Evaluation

        Raises
        ------
        PlanError
            If its sizes contradict each other.
        """
        if point not in self._known:
            begin = time.process_time()
            try:
                self._known[point] = self._evaluate(point)
            finally:
                self.seconds += time.process_time() - begin
        return self._known[point]

    @property
    def points_per_second(self) -> float:
        """Points evaluated in a second of processor time, so far; refused ones take time and do not count."""
        return len(self._known) / max(self.seconds, 1e-9)

    def least_cycles(self, point: DesignPoint) -> int:
        """Cycles of the passes of a point's linear layers: a lower bound that is quick to find."""
        sizes = self._known_sizes(point.pool, point.bus_bits, point.accumulation, self.tokens)
        return sizes.least_cycles(point.rows, point.lanes, self.tokens)

    def plan(self, point: DesignPoint) -> Plan:
        """The plan of a point, without its cycles; whether it fits does not count."""
        return self._plan(point)[0]

    def _runs(self, sizes: ModelSizes, lanes: int) -> bool:
        try:
            sizes.sizes(4, lanes, self.tokens, self.device)
        except PlanError:
            return False
        return True

    def _evaluate(self, point: DesignPoint) -> Evaluation:
        if point.bus_bits < self.buses[0]:
            raise PlanError(f"a bus of {point.bus_bits} bits is too narrow, or R = {point.rows} and "
                            f"T = {point.lanes} allow no wider one; at least {self.buses[0]} are needed")
        plan, excess = self._plan(point)
        common: dict[str, Any] = {key: plan.modelled[key] for key in ("luts", "ffs", "dsps", "rams", "urams")}
        if excess > 1:
            refused = refusal(plan.spec, self.device, self.tokens)
            assert refused is not None  # it counts as here
            return Evaluation(point=point, fits=False, cycles=self.least_cycles(point), bytes=0,
                              excess=excess, reason=refused.message, **common)
        cycles, moved = self._time(plan)
        return Evaluation(point=point, fits=True, cycles=cycles, bytes=moved, excess=excess, **common)

    def _plan(self, point: DesignPoint) -> tuple[Plan, float]:
        sizes = self._known_sizes(point.pool, point.bus_bits, point.accumulation, self.tokens)
        for overlap in (True, False):
            spec = sizes.sizes(point.rows, point.lanes, self.tokens, self.device, overlap=overlap)
            needs = modelled_resources(spec, self.device.family, self.device.urams)
            excess = max(needs[key] / (share * getattr(self.device, key)) if needs[key] else 0
                         for key, share in USABLE.items())
            if excess <= 1 or sizes.attention:  # an encoder's buffers do not depend on the overlap
                break
        return Plan(device=self.device.name, spec=spec, layers=sizes.layer_plans(point.rows),
                    tokens=self.tokens, predicted_cycles=0, attention=sizes.attention,
                    modelled=needs), excess

    def _time(self, plan: Plan) -> tuple[int, int]:
        """Cycles and bytes of a plan; of several with the same timing the first is computed."""
        spec, array = plan.spec, plan.spec.array
        key = (spec.tiles, array.lanes, array.latency, spec.encoder, spec.activation_words,
               spec.program_depth)
        if key not in self._timed:
            program = self._program(plan)
            cycles = predict_program(plan, program).cycles
            self._timed[key] = cycles, self._bytes(plan, program)
        return self._timed[key]

    def _program(self, plan: Plan) -> Program:
        spec = plan.spec
        key = (spec.array.units, spec.array.lanes, spec.activation_words, spec.program_depth)
        if key not in self._programs:
            self._programs[key] = whole_program(plan) if plan.attention else linear_program(plan)
        return self._programs[key]

    def _bytes(self, plan: Plan, program: Program) -> int:
        if plan.attention:
            beats = stream_beats(plan, stream_items(plan))
        else:
            beats = sum(plan.spec.tiles.beats(ksteps) for layer in plan.layers for ksteps in layer.ksteps)
        return (beats * plan.spec.bus_bits // 8 + DESCRIPTOR_BYTES * len(program.descriptors)
                + sum(tensor.bytes for tensor in (*program.inputs, *program.outputs)))

    def _sizes(self, pool: str | None, bus_bits: int | None, accumulation: str | None,
               tokens: int | None) -> ModelSizes:
        request = PlanRequest(device=self.device.name, tokens=tokens, bus_bits=bus_bits,
                              storage=PoolStorage(pool) if pool else None,
                              accumulation=Accumulation(accumulation) if accumulation else None)
        sizes = ModelSizes(self.bundle, request, None)
        if hasattr(self, "known_plans"):
            sizes.known_plans = self.known_plans  # they depend on R and the pool's slots alone
        return sizes


def dominates(first: Evaluation, second: Evaluation) -> bool:
    """Whether a point is nowhere worse than another, and somewhere better."""
    return first.values != second.values and all(
        a <= b for a, b in zip(first.values, second.values, strict=True))


def pareto_front(evaluations: Iterable[Evaluation]) -> list[Evaluation]:
    """The evaluations that fit and that no other one dominates, by cycles; of equal ones the first point."""
    best: dict[tuple[int, ...], Evaluation] = {}
    fitting = [one for one in evaluations if one.fits]
    for one in sorted(fitting, key=lambda one: (one.values, one.point.plainness)):
        best.setdefault(one.values, one)
    front: list[Evaluation] = []
    for one in best.values():  # in lexicographic order none is dominated by a later one
        if not any(dominates(other, one) for other in front):
            front.append(one)
    return front


def with_share(plan: Plan, share: float) -> Plan:
    """The same plan if each tile had only a share of its K-steps, rounded up: what sparsity would give."""
    layers = tuple(replace(layer, ksteps=tuple(max(1, -int(-ksteps * share // 1)) for ksteps in layer.ksteps))
                   for layer in plan.layers)
    return replace(plan, layers=layers)
