"""What an accelerator takes for each K-step: the file from which ``compress`` chooses densities."""

import json
from collections.abc import Mapping
from typing import Any

from compressor.bundle import Bundle
from compressor.layer_weights import STRUCTURES
from compressor.text_file import StrPath, write_text
from hwgen.cost import array_cycles
from hwgen.memory_image import block_parts
from hwgen.plan_request import PlanRequest
from hwgen.planner import make_plan

FORMAT, SCHEMA_VERSION = "hwgen-costs", 1


def cost_table(bundle: Bundle, request: PlanRequest | None = None) -> dict[str, Any]:
    """Costs on the accelerator that a bundle would get, as plain values.

    Cycles of another bundle of the same sizes are about ``fixed_cycles`` plus, for every tile of 4R rows,
    ``token_groups`` x max(``ksteps`` x columns of blocks that are present, 4 x block rows of the tile).
    ``fixed_cycles`` is the rest of the exact prediction for this bundle: attention, LayerNorm, waits.

    Parameters
    ----------
    bundle : compressor.bundle.Bundle
    request : hwgen.plan_request.PlanRequest, optional

    Returns
    -------
    dict
        ``format``, ``schema_version``, ``configuration_hash``, ``units`` R, ``lanes`` T, ``tokens``,
        ``token_groups``, ``ksteps`` by structure, ``fixed_cycles``, and ``cycles`` of this bundle.

    Raises
    ------
    PlanError
        As :func:`hwgen.planner.make_plan`.
    """
    plan = make_plan(bundle, request)
    array, groups = plan.spec.array, plan.groups(plan.tokens)
    passes = sum(array_cycles(layer, array.units, groups) for layer in plan.layers)
    return {"format": FORMAT, "schema_version": SCHEMA_VERSION, "configuration_hash": plan.configuration_hash,
            "units": array.units, "lanes": array.lanes, "tokens": plan.tokens, "token_groups": groups,
            "ksteps": {kind: block_parts(kind, array.assignment.slots) for kind in STRUCTURES},
            "fixed_cycles": plan.predicted_cycles - passes, "cycles": plan.predicted_cycles}


def write_costs(values: Mapping[str, Any], path: StrPath) -> None:
    """Write a cost table, aside first and then renamed."""
    write_text(path, json.dumps(values, indent=1) + "\n")
