"""Chooses the sizes of an accelerator for a bundle, or refuses with the numbers that make it impossible."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from compressor.bundle import Bundle
from hwgen.devices import DEVICES, Device
from hwgen.model_sizes import CANDIDATE_LANES, ModelSizes, device_resources
from hwgen.plan import Plan, PlanError
from hwgen.plan_request import PlanRequest
from rtl_templates.array_spec import AcceleratorSpec

DEFAULT_ROWS, DEFAULT_LANES = 4, 8
"""Sizes without a device: 256 multipliers with a pool that keeps 8 of 16."""

CANDIDATE_ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)

USABLE = {"luts": 0.75, "ffs": 0.75, "dsps": 0.95, "rams": 0.9, "urams": 0.9}
"""Share of a device that a plan may take; placers need the rest."""

CYCLES_TOLERANCE = 1.10
"""How much slower than the fastest a plan may be if it is smaller: past the point where the weight
stream sets the pace, three times the multipliers can buy 6 %."""

NAMES = {"luts": "LUTs", "ffs": "flip-flops", "dsps": "DSPs", "rams": "RAM blocks",
         "urams": "UltraRAM blocks"}


@dataclass(frozen=True, order=True)
class _Refusal:
    excess: float  # needed / usable of the scarcest resource; infinite if the sizes contradict each other
    message: str
    by_memory: bool


def make_plan(bundle: Bundle, request: PlanRequest | None = None, *,
              layers: Sequence[str] | None = None) -> Plan:
    """Plan an accelerator.

    Parameters
    ----------
    bundle : compressor.bundle.Bundle
    request : PlanRequest, optional
    layers : sequence of str, optional
        Names of the layers to plan for; all unless given.

    Returns
    -------
    Plan

    Raises
    ------
    PlanError
        If no accelerator can meet the request; the line has the numbers and what to change.
    """
    request = request or PlanRequest()
    model = ModelSizes(bundle, request, layers)
    if request.device is None:
        units = DEFAULT_ROWS if request.rows is None else request.rows
        lanes = DEFAULT_LANES if request.lanes is None else request.lanes
        return model.plan(units, lanes, model.tokens, None)
    if request.device not in DEVICES:
        raise PlanError(f"unknown device {request.device!r}; known are {', '.join(DEVICES)}")
    return _fit(model, DEVICES[request.device], request)


def _fit(model: ModelSizes, device: Device, request: PlanRequest) -> Plan:
    """Of the plans that fit a device and are about as fast as any, the one with the least LUTs x cycles."""
    sizes = [(units, lanes) for units in (CANDIDATE_ROWS if request.rows is None else [request.rows])
             for lanes in (CANDIDATE_LANES if request.lanes is None else [request.lanes])]
    tokens = model.tokens
    while True:
        fitting, refusals = _candidates(model, device, sizes, tokens)
        if fitting:
            break
        least = min(refusals)
        if request.tokens is not None or tokens == 1 or not least.by_memory:
            raise PlanError(least.message)
        tokens = -(-tokens // 2)
    fastest = min(plan.predicted_cycles for plan in fitting)
    return min((plan for plan in fitting if plan.predicted_cycles <= CYCLES_TOLERANCE * fastest),
               key=lambda plan: plan.modelled["luts"] * plan.predicted_cycles)


def _candidates(model: ModelSizes, device: Device, sizes: Sequence[tuple[int, int]],
                tokens: int) -> tuple[list[Plan], list[_Refusal]]:
    """Plans that fit and are not much slower than others, and a refusal for each size that does not fit."""
    fitting, refusals, fastest = [], [], math.inf
    for units, lanes in sorted(sizes, key=math.prod, reverse=True):
        for overlap in (True, False):
            try:
                spec = model.spec(units, lanes, tokens, device, overlap=overlap)
            except PlanError as error:
                refusals.append(_Refusal(math.inf, str(error), False))
                break
            refused = refusal(spec, device, tokens)
            if refused is None:
                if model.least_cycles(units, lanes, tokens) <= CYCLES_TOLERANCE * fastest:
                    fitting.append(model.plan(units, lanes, tokens, device, overlap=overlap))
                    fastest = min(fastest, fitting[-1].predicted_cycles)
                break
            refusals.append(refused)
    return fitting, refusals


def refusal(spec: AcceleratorSpec, device: Device, tokens: int) -> _Refusal | None:
    """Why a spec does not fit a device; None if it does."""
    needs = device_resources(spec, device)
    excess = {key: needs[key] / (share * getattr(device, key)) if needs[key] else 0
              for key, share in USABLE.items()}
    worst = max(excess, key=lambda key: excess[key])
    if excess[worst] <= 1:
        return None
    has, by_memory = getattr(device, worst), worst in ("rams", "urams")
    return _Refusal(
        excess[worst],
        f"{device.name} is too small: R = {spec.array.units}, T = {spec.array.lanes} and {tokens} tokens "
        f"need {needs[worst]:,} {NAMES[worst]}; of its {has:,}, {int(USABLE[worst] * has):,} are usable; "
        f"use fewer {'--tokens' if by_memory else '--rows'}, fewer --lanes or a larger device", by_memory)
