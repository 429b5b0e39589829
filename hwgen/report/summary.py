"""The data of a report: plain values, each group with its origin. ``summary.json`` is exactly this."""

from collections import Counter

import numpy as np

from compressor.intops.encoder import LINEAR_PATHS
from hwgen.cost import cost_report, predict_program
from hwgen.devices import DEVICES
from hwgen.encoder_program import whole_program
from hwgen.inspection import layer_facts, model_facts, pool_facts
from hwgen.planner import USABLE
from hwgen.report.origin import Origin
from hwgen.resource_model import RAM_OF_FAMILY

SUMMARY_FORMAT = "hwgen-summary"

PARTS = ("q, k, v", "attention", "o", "ffn1", "ffn2", "LayerNorm", "load and store")
"""What the cycles of a run are spent on, by operation."""

RESOURCES = ("luts", "ffs", "dsps", "rams", "urams")

_PART_OF_ROLE = {"q": "q, k, v", "k": "q, k, v", "v": "q, k, v", "o": "o", "ffn1": "ffn1", "ffn2": "ffn2"}
_SYNTHESIZED = {"luts": "lut_sites", "ffs": "ff", "dsps": "dsp", "rams": "bram36", "urams": "uram"}
_ROLE_OF_PATH = {path: role for role, path in LINEAR_PATHS.items()}


def summarize(bundle, plan, results=()):
    """Everything that a report says, as plain values.

    Parameters
    ----------
    bundle : compressor.bundle.Bundle
    plan : hwgen.plan.Plan
    results : sequence of hwgen.results.Result
        What has run on the build.

    Returns
    -------
    dict
        ``build``, ``model``, ``pool``, ``layers``, ``cycles``, ``traffic``, ``roofline``, ``resources``,
        ``scores``, ``proof`` and ``missing``: what has not run, with the command that runs it.
    """
    program = whole_program(plan)
    cost = cost_report(plan, program)
    runs = [one for one in results if one.kind in ("encoder", "layers", "hls")]
    simulated = _simulated(plan, results)
    return {
        "format": SUMMARY_FORMAT, "build": _build(plan), "model": _model(bundle),
        "pool": _pool(bundle), "attention_maps": bundle.attention_maps,
        "layers": _layers(bundle, plan, cost),
        "cycles": {**_cycles(plan, program, cost), "simulated": simulated},
        "traffic": {"origin": Origin.COUNTED, "weight_bytes": cost.weight_bytes,
                    "input_bytes": cost.input_bytes, "output_bytes": cost.output_bytes,
                    "program_bytes": cost.program_bytes},
        "roofline": _roofline(plan, cost), "resources": _resources(plan, results),
        "scores": _scores(bundle, results), "proof": _proof(runs, results),
        "missing": _missing(plan, results, simulated)}


def _build(plan):
    array, device = plan.spec.array, DEVICES.get(plan.device)
    return {"configuration_hash": plan.configuration_hash, "device": plan.device,
            "part": device.part if device else None,
            "assumed_clock_mhz": device.assumed_clock_mhz if device else None,
            "rows": array.units, "lanes": array.lanes, "slots": array.assignment.slots,
            "multipliers": array.multipliers, "pool_storage": str(array.storage),
            "accumulation": str(array.accumulation), "accumulator_bits": array.accumulator_bits,
            "bus_bits": plan.spec.bus_bits, "tokens": plan.tokens,
            "encoder_layers": len(plan.attention), "linear_layers": len(plan.layers)}


def _model(bundle):
    nonzeros = sum(int(np.count_nonzero(layer.weight)) for layer in bundle.layers.values())
    structures = Counter(layer.structure for layer in bundle.layers.values())
    return {"origin": Origin.COUNTED, **model_facts(bundle), "weights": bundle.weights,
            "kept_weights": bundle.kept_weights, "nonzero_weights": nonzeros,
            "structures": dict(sorted(structures.items())), "recipe": bundle.recipe.get("name")}


def _pool(bundle):
    used = np.zeros(bundle.pool.size, np.int64)
    for layer in bundle.layers.values():
        used += np.bincount(layer.pattern_ids[layer.pattern_ids >= 0], minlength=bundle.pool.size)
    return {"origin": Origin.COUNTED, **pool_facts(bundle.pool),
            "masks": bundle.pool.patterns.tolist(), "blocks": used.tolist()}


def _layers(bundle, plan, cost):
    rows = []
    for facts, one in zip(layer_facts(bundle, plan), cost.layers, strict=True):
        moved = one.weight_bytes + one.input_bytes + one.output_bytes
        rows.append({**facts, "tiles": one.tiles, "ksteps": one.ksteps, "array_cycles": facts.pop("cycles"),
                     "dense_array_cycles": facts.pop("dense_cycles"), "cycles": one.cycles,
                     "utilization": one.utilization, "useful_macs": one.useful_macs,
                     "weight_bytes": one.weight_bytes, "macs_per_byte": one.useful_macs / moved,
                     "macs_per_cycle": one.useful_macs / one.cycles})
    return rows


def _cycles(plan, program, cost):
    prediction = predict_program(plan, program)
    device = DEVICES.get(plan.device)
    ends = [*prediction.dispatches[1:], prediction.cycles]
    layers = {name: dict.fromkeys(PARTS, 0) for name in _owners(plan, program)}
    first = prediction.dispatches[0]
    owner = next(iter(layers))
    layers[owner]["load and store"] += first
    for descriptor, step, begin, end in zip(program.descriptors, program.steps, prediction.dispatches, ends,
                                            strict=True):
        owner, part = _place(descriptor, step, layers, owner)
        layers[owner][part] += end - begin
    busy = {"products": prediction.busy, "results leave": prediction.drain_wait,
            "tiles awaited": prediction.weight_wait}
    busy["nothing to multiply"] = prediction.cycles - sum(busy.values())
    return {"origin": Origin.MODELLED, "total": prediction.cycles, "utilization": cost.utilization,
            "array_cycles": cost.array_cycles, "dense_array_cycles": cost.dense_array_cycles,
            "milliseconds": prediction.cycles / device.assumed_clock_mhz / 1e3 if device else None,
            "array": busy, "parts": [{"name": name, **parts} for name, parts in layers.items()]}


def _owners(plan, program):
    if plan.attention:
        return [attention.name for attention in plan.attention]
    return list(program.layers)


def _place(descriptor, step, layers, owner):
    """Layer and part that a descriptor's time counts for; what has no name belongs to the one before."""
    name = next((name for name in layers if step == name or step.startswith((f"{name}.", f"{name}:"))), owner)
    if step.endswith(" norm"):
        return name, "LayerNorm"
    role = _ROLE_OF_PATH.get(step.removeprefix(f"{name}.")) or next(
        (role for path, role in _ROLE_OF_PATH.items() if step.endswith(f".{path}")), None)
    if role is not None and descriptor.opcode.name == "MATMUL":
        return name, _PART_OF_ROLE[role]
    return name, "attention" if ": head" in step else "load and store"


def _roofline(plan, cost):
    device = DEVICES.get(plan.device)
    moved = cost.weight_bytes + cost.input_bytes + cost.output_bytes + cost.program_bytes
    dram = device.dram_gbytes_per_s * 1e3 / device.assumed_clock_mhz if device else None
    bus = plan.spec.bus_bits / 8
    roof = min(bus, dram) if dram else bus
    return {"origin": Origin.MODELLED, "macs_per_cycle": plan.spec.array.multipliers,
            "bus_bytes_per_cycle": bus, "dram_bytes_per_cycle": dram,
            "ridge_macs_per_byte": plan.spec.array.multipliers / roof,
            "whole": {"macs_per_byte": cost.useful_macs / moved,
                      "macs_per_cycle": cost.useful_macs / cost.cycles}}


def _resources(plan, results):
    device = DEVICES.get(plan.device)
    synthesized = None
    for one in results:
        if one.kind == "synthesis":
            counts = one.result
            synthesized = {"family": one.request["family"],
                           **{key: counts.get(name) for key, name in _SYNTHESIZED.items()}}
    return {"ram": RAM_OF_FAMILY[device.family if device else "xcup"].name,
            "device": {key: getattr(device, key) for key in RESOURCES} if device else None,
            "usable_shares": USABLE,
            "modelled": {key: plan.modelled[key] for key in (*RESOURCES, "memory_bits")},
            "synthesized": synthesized, "placed": _placed(results)}


def _placed(results):
    """The placement with the most seeds; None without one."""
    found = [one.result for one in results if one.kind == "placement" and one.changed is None]
    if not found:
        return None
    best = max(found, key=lambda result: len(result["fmax_mhz"]))
    return {"origin": Origin.PLACED, **{key: best[key] for key in ("part", "fmax_mhz", "median_mhz", "used",
                                                                  "available")}}


def _simulated(plan, results):
    """The run whose cycles are shown: of the build's own program, with the most sequences."""
    kind = "encoder" if plan.attention else "layers"
    fitting = [one.result for one in results if one.kind == kind and one.changed is None
               and one.result["passed"] and one.result["tokens"] == plan.tokens
               and (plan.attention or len(one.result["layers"]) == len(plan.layers))]
    if not fitting:
        return None
    best = max(fitting, key=lambda result: result["runs"])
    return {"origin": Origin.SIMULATED, "runs": best["runs"], "tokens": best["tokens"],
            "cycles": best["cycles"], "cycles_per_run": best["cycles"] / best["runs"],
            "predicted_cycles": best["predicted_cycles"], "breakdown": best["breakdown"]}


def _scores(bundle, results):
    """The task's own metric on the same rows; and what `compress export` measured, on rows of its own."""
    found = [one for one in results if one.kind == "evaluation"]
    exported = bundle.metrics.get("quantization") or None
    evaluated = None
    if found:
        best = max(found, key=lambda one: one.result["rows"])
        evaluated = {"rows": best.result["rows"], "data": best.request["data"], "changed": best.changed,
                     "metric": best.result["metric"],
                     **{name: best.result["metrics"][name][best.result["metric"]]
                        for name in ("float", "fake_quantized", "golden", "rtl")},
                     "prediction_mismatches": best.result["prediction_mismatches"],
                     "word_mismatches": best.result["word_mismatches"], "words": best.result["words"]}
    return {"evaluated": evaluated, "exported": exported}


def _proof(runs, results):
    rows = [{"kind": one.kind, "bench": one.result.get("bench", "hls"), "data": one.request["data"],
             "seed": one.request["seed"] if one.request["data"] == "random" else None,
             "stalls": one.request["stalls"] or None, "runs": one.result["runs"],
             "tokens": one.result.get("tokens"), "words": one.result["words"],
             "mismatches": one.result["mismatches"], "cycles": one.result.get("cycles"),
             "predicted_cycles": one.result.get("predicted_cycles"), "passed": one.result["passed"],
             "changed": one.changed} for one in runs]
    rows += [{"kind": one.kind, "bench": "harness", "data": one.request["data"], "seed": None, "stalls": None,
              "runs": one.result["rows"], "tokens": one.result["tokens"], "words": one.result["words"],
              "mismatches": one.result["word_mismatches"], "cycles": one.result["cycles"],
              "predicted_cycles": None, "passed": one.result["passed"], "changed": one.changed}
             for one in results if one.kind == "evaluation"]
    return {"origin": Origin.SIMULATED, "runs": rows, "words": sum(row["words"] for row in rows),
            "mismatches": sum(row["mismatches"] for row in rows),
            "passed": bool(rows) and all(row["passed"] for row in rows)}


def _missing(plan, results, simulated):
    kinds = {one.kind for one in results}
    what = "the whole encoder" if plan.attention else "the linear layers"
    missing = []
    if simulated is None:
        missing.append({"key": "simulated", "what": f"{what} not simulated yet",
                        "command": "hwgen sim BUILD"})
    if plan.attention and "evaluation" not in kinds:
        missing.append({"key": "evaluated", "what": "not scored on the task yet",
                        "command": "hwgen eval BUILD --data FILE"})
    if "synthesis" not in kinds:
        missing.append({"key": "synthesized", "what": "not synthesized yet", "command": "hwgen synth BUILD"})
    if "placement" not in kinds:
        missing.append({"key": "placed", "what": "not placed yet (on an ECP5, by nextpnr)",
                        "command": "hwgen synth BUILD --place"})
    return missing
