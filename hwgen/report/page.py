"""The context of ``index.html.j2`` and ``summary.md.j2``: every text of a report, made from its data."""

import importlib.metadata
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path

from hwgen.report.charts import meter, patterns, percent, roofline, stacked
from hwgen.report.origin import MEANINGS, Origin
from hwgen.report.parts import (
    Chart,
    Figure,
    Mask,
    MaskGroup,
    Meter,
    Missing,
    Pattern,
    Plot,
    Segment,
    Table,
)
from hwgen.report.pictures import CORNER, corner_picture, layer_picture, png
from hwgen.report.summary import PARTS

COUNTED, MODELLED, SIMULATED = Origin.COUNTED, Origin.MODELLED, Origin.SIMULATED
ROLE_COLORS = {"q": "c1", "k": "c1", "v": "c1", "o": "c3", "ffn1": "c4", "ffn2": "c5"}
"""As in the chart of the cycles: colors of :data:`PARTS`."""

ARRAY_PARTS = {
    "multiplies": ("array",), "results leave": ("drain", "results"),
    "waits for memory": ("weights", "tables"),
    "waits for attention": ("keys", "softmax", "transpose"), "waits for LayerNorm": ("layernorm",),
    "waits for load and store": ("load", "store"), "start, dispatch, end": ("dispatch",)}
"""What the array does, from the breakdown of a simulation."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """Variables of the templates."""

    title: str
    subtitle: str
    version: str
    tiles: tuple[Figure, ...]
    not_run: tuple[Missing, ...]
    model_facts: tuple[Figure, ...]
    pool_facts: tuple[Figure, ...]
    patterns: tuple[Pattern, ...]
    cell_places: tuple[int, ...]
    corner: int
    masks: tuple[MaskGroup, ...]
    cycle_facts: tuple[Figure, ...]
    parts_chart: Chart
    array_chart: Chart
    array_note: str
    timeline: str
    timeline_command: str
    roofline: Plot
    roofline_note: str
    roles: tuple[Segment, ...]
    traffic_facts: tuple[Figure, ...]
    resources_text: str
    modelled: tuple[Meter, ...]
    synthesized: tuple[Meter, ...]
    placed: tuple[Meter, ...]
    placed_text: str
    accuracy: tuple[Meter, ...]
    accuracy_text: str
    exported: Table | None
    proof: Table | None
    proof_text: str
    proof_passed: bool
    layers: Table
    build_facts: tuple[Figure, ...]
    origins: tuple[tuple[str, str], ...]


def make_page(data, bundle, timeline=None):
    """The context of a report.

    Parameters
    ----------
    data : dict
        Of :func:`hwgen.report.summary.summarize`.
    bundle : compressor.bundle.Bundle
        For the pictures of its weights.
    timeline : str, optional
        SVG of the units over time.
    """
    build, model, pool = data["build"], data["model"], data["pool"]
    evaluated = data["accuracy"]["evaluated"]
    array_chart, array_note = _array_chart(data)
    return Page(
        title=f"Accelerator {build['configuration_hash'][:8]}", subtitle=_subtitle(data),
        version=importlib.metadata.version("hwgen"), tiles=_tiles(data),
        not_run=tuple(Missing(one["what"], one["command"]) for one in data["missing"]),
        model_facts=_model_facts(model, data["attention_maps"]), pool_facts=_pool_facts(pool),
        patterns=patterns(pool["masks"], pool["blocks"]), cell_places=(2, 12, 22, 32), corner=CORNER,
        masks=_masks(bundle, data["layers"]),
        cycle_facts=_cycle_facts(data),
        parts_chart=stacked([(part["name"].removeprefix("encoder.layer."),
                              {name: part[name] for name in PARTS}) for part in data["cycles"]["parts"]],
                            MODELLED),
        array_chart=array_chart, array_note=array_note,
        timeline=f"data:image/svg+xml;base64,{b64encode(timeline.encode()).decode()}" if timeline else "",
        timeline_command="hwgen sim BUILD" + ("" if build["encoder_layers"] else " --timeline layers.svg"),
        roofline=roofline(data["roofline"], data["layers"], ROLE_COLORS), roofline_note=_roofline_note(data),
        roles=tuple(Segment(name, color, "", "") for name, color in
                    (("q, k, v", "c1"), ("o", "c3"), ("ffn1", "c4"), ("ffn2", "c5"))),
        traffic_facts=tuple(Figure(key.removesuffix("_bytes"), f"{data['traffic'][key]:,} bytes", COUNTED)
                            for key in ("weight_bytes", "input_bytes", "output_bytes", "program_bytes")),
        resources_text=_resources_text(data), modelled=_meters(data, "modelled", MODELLED),
        synthesized=_meters(data, "synthesized", Origin.SYNTHESIZED),
        placed=_placed_meters(data["resources"]["placed"]),
        placed_text=_placed_text(data["resources"]["placed"]),
        accuracy=_accuracy(evaluated), accuracy_text=_accuracy_text(evaluated),
        exported=_exported(data["accuracy"]["exported"]), proof=_proof(data["proof"]),
        proof_text=_proof_text(data["proof"]), proof_passed=data["proof"]["passed"],
        layers=_layers(data["layers"]), build_facts=_build_facts(build),
        origins=tuple((str(origin), text) for origin, text in MEANINGS.items()))


def _counted(number, what):
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _subtitle(data):
    build, model = data["build"], data["model"]
    where = f"for {build['device']} ({build['part']})" if build["device"] else "for no device in particular"
    what = "whole encoder" if build["encoder_layers"] else "linear layers"
    layers = _counted(model["num_hidden_layers"], "layer")
    return (f"{model['architecture']}, {layers} of {model['hidden_size']} channels, task "
            f"{model['task']}: the {what} in integers on {build['multipliers']:,} multipliers, {where}")


def _tiles(data):
    cycles, simulated, model = data["cycles"], data["cycles"]["simulated"], data["model"]
    run, origin = (simulated["cycles_per_run"], SIMULATED) if simulated else (cycles["total"], MODELLED)
    build, proof = data["build"], data["proof"]
    tiles = [Figure("Cycles a sequence", f"{run:,.0f}", origin, f"{build['tokens']} tokens")]
    if build["device"]:
        clock = build["assumed_clock_mhz"]
        tiles.append(Figure("Time a sequence", f"{run / clock / 1e3:.3g} ms", Origin.ASSUMED,
                            f"if the clock is {clock:g} MHz"))
    tiles += [
        Figure("Multipliers at work", f"{100 * cycles['utilization']:.1f} %", MODELLED,
               f"useful products of {build['multipliers']:,} a cycle"),
        Figure("Against dense", f"{cycles['dense_array_cycles'] / cycles['array_cycles']:.2f} x", MODELLED,
               "fewer array cycles than dense layers"),
        Figure("Weights kept", f"{100 * model['kept_weights'] / model['weights']:.1f} %", COUNTED,
               f"of {model['weights']:,}")]
    if proof["runs"]:
        tiles.append(Figure("Words that differ", f"{proof['mismatches']:,}", SIMULATED,
                            f"of {proof['words']:,} compared"))
    evaluated = data["accuracy"]["evaluated"]
    if evaluated:
        tiles.append(Figure("Accuracy of the Verilog", f"{100 * evaluated['rtl']:.2f} %", SIMULATED,
                            f"{evaluated['rows']} rows; float {100 * evaluated['float']:.2f} %"))
    return tuple(tiles)


def _model_facts(model, maps):
    facts = [Figure("architecture", model["architecture"], COUNTED),
             Figure("task", f"{model['task']} ({', '.join(model['labels']) or 'no labels'})", COUNTED),
             Figure("weights of linear layers", f"{model['weights']:,}", COUNTED),
             Figure("kept by the structure", f"{model['kept_weights']:,}", COUNTED,
                    f"{100 * model['kept_weights'] / model['weights']:.1f} %"),
             Figure("not zero in int8", f"{model['nonzero_weights']:,}", COUNTED,
                    f"{100 * model['nonzero_weights'] / model['weights']:.1f} %"),
             Figure("structures", ", ".join(f"{name} in {count} layers"
                                            for name, count in model["structures"].items()), COUNTED)]
    if model["recipe"]:
        facts.append(Figure("recipe", str(model["recipe"]), COUNTED))
    facts.append(Figure("attention maps", f"{maps['patterns']} patterns in {maps['layers']} layers" if maps
                        else "not pruned", COUNTED))
    return tuple(facts)


def _pool_facts(pool):
    luts = pool["mux_luts"] + pool["routing_luts"]
    facts = [Figure("patterns", f"{pool['patterns']}", COUNTED),
             Figure("kept by each", f"{pool['keep']} of 16", COUNTED,
                    f"at most {pool['most_in_a_row']} in a row"),
             Figure("rows", "balanced: no routing of products" if not pool["routed"]
                    else "not balanced: products change rows", COUNTED),
             Figure("slots a row", f"n = {pool['slots']}", COUNTED),
             Figure("LUTs a multiplier", f"{luts:.1f}", MODELLED,
                    f"{pool['mux_luts']:.1f} multiplexer, {pool['routing_luts']:.1f} routing")]
    if pool["routed"] and pool["balanced_mux_luts"] is not None:
        facts.append(Figure("a balanced pool of this size", f"{pool['balanced_mux_luts']:.1f}", MODELLED,
                            "LUTs a multiplier"))
    return tuple(facts)


def _masks(bundle, layers):
    groups = {}
    for facts in layers:
        layer = bundle.layers[facts["name"]]
        group = ".".join(facts["name"].split(".")[:3])
        whole, (rows, inner) = layer_picture(layer), facts["shape"]
        shown = 100 * facts["present_blocks"] / facts["blocks"]
        text = f"{rows} x {inner}, {facts['structure']}, {shown:.0f} % of blocks present"
        groups.setdefault(group, []).append(Mask(
            facts["role"], text, png(whole), png(corner_picture(layer, bundle.pool)), whole.shape[1],
            whole.shape[0], whole.shape[1] > whole.shape[0], f"{facts['name']}, {text}"))
    return tuple(MaskGroup(name, tuple(masks)) for name, masks in groups.items())


def _cycle_facts(data):
    cycles, simulated = data["cycles"], data["cycles"]["simulated"]
    facts = [Figure("predicted", f"{cycles['total']:,} cycles", MODELLED, "exact with the nominal memory")]
    if simulated:
        equal = simulated["cycles"] == simulated["predicted_cycles"]
        facts.append(Figure("simulated", f"{simulated['cycles']:,} cycles", SIMULATED,
                            f"{simulated['runs']} runs; predicted {simulated['predicted_cycles']:,}: "
                            + ("equal" if equal else "NOT EQUAL")))
    return tuple(facts)


def _array_chart(data):
    simulated = data["cycles"]["simulated"]
    if not simulated:
        parts = {"multiplies": "products", "results leave": "results leave",
                 "waits for tiles": "tiles awaited", "nothing to multiply": "nothing to multiply"}
        chart = stacked([("whole run", {name: data["cycles"]["array"][key] for name, key in parts.items()})],
                        MODELLED)
        return chart, ("Which unit it waits for is observed in simulation: not simulated yet, run "
                       "hwgen sim BUILD.")
    found = simulated["breakdown"]
    parts = {name: sum(found[key] for key in keys) for name, keys in ARRAY_PARTS.items()}
    return stacked([(f"{simulated['runs']} runs", parts)], SIMULATED), ""


def _roofline_note(data):
    roof, device = data["roofline"], data["build"]["device"]
    bus = ("A mark above the roof had its weights read ahead, during the step before. The bus moves "
           f"{roof['bus_bytes_per_cycle']:g} bytes a cycle")
    if not device:
        return f"{bus}; no device is chosen, so the memory behind it has no roof here."
    return (f"{bus}; the memory of {device} {roof['dram_bytes_per_cycle']:.3g} at the assumed "
            f"{data['build']['assumed_clock_mhz']:g} MHz.")


def _resources_text(data):
    build = data["build"]
    if not build["device"]:
        return "No device is chosen, so amounts stand alone; build with --device to compare them with one."
    return (f"Of {build['device']}, {build['part']}. The line across is the share that a plan may take; "
            "placers need the rest.")


def _meters(data, kind, origin):
    found, resources = data["resources"][kind], data["resources"]
    names = {"luts": "LUT", "ffs": "flip-flops", "dsps": "DSP", "rams": resources["ram"], "urams": "URAM288"}
    device = resources["device"] or {}
    return tuple(meter(name, found[key], device.get(key), resources["usable_shares"][key], origin)
                 for key, name in names.items() if found and found.get(key) is not None
                 and (found[key] or key != "urams"))


def _placed_meters(placed):
    if not placed:
        return ()
    return tuple(meter(name, used, placed["available"][name], 1, Origin.PLACED)
                 for name, used in placed["used"].items())


def _placed_text(placed):
    if not placed:
        return ""
    clocks = ", ".join(f"{mhz:.1f}" for mhz in placed["fmax_mhz"].values())
    return (f"{placed['median_mhz']:.1f} MHz on {placed['part']}, the median of {len(placed['fmax_mhz'])} "
            f"placements by nextpnr ({clocks} MHz); amounts are those of the median's.")


def _accuracy(evaluated):
    if not evaluated:
        return ()
    names = {"float": ("float", Origin.COMPUTED), "fake_quantized": ("fake-quantized", Origin.COMPUTED),
             "golden": ("golden", Origin.COMPUTED), "rtl": ("Verilog", SIMULATED)}
    return tuple(Meter(name, f"{100 * evaluated[key]:.2f} % ({origin})", percent(evaluated[key]), "", origin)
                 for key, (name, origin) in names.items())


def _accuracy_text(evaluated):
    if not evaluated:
        return ""
    return (f"The same {evaluated['rows']} rows of {Path(evaluated['data']).name} through float "
            "PyTorch, fake-quantized PyTorch, the integer golden model and the generated Verilog: "
            f"{evaluated['prediction_mismatches']} predictions of the Verilog differ from the golden model's."
            + _changed(evaluated["changed"]))


def _exported(exported):
    if not exported:
        return None
    names = sorted({*exported.get("float", {}), *exported.get("quantized", {})})
    rows = tuple((name, *(_number(exported.get(kind, {}).get(name)) for kind in ("float", "quantized")))
                 for name in names)
    return Table(f"When the bundle was exported, on {exported.get('rows', '?')} rows (computed)",
                 ("metric", "float", "golden model"), (False, True, True), rows)


def _proof(proof):
    if not proof["runs"]:
        return None
    kinds = {"encoder": "whole encoder", "layers": "linear layers", "hls": "C simulation",
             "evaluation": "task rows"}
    rows = []
    for run in proof["runs"]:
        rows.append((
            f"{kinds[run['kind']]}, {run['bench']}", Path(run["data"]).name,
            _number(run["seed"]), _number(run["stalls"]), str(run["runs"]),
            _number(run["tokens"]), f"{run['words']:,}", f"{run['mismatches']:,}",
            _number(run["cycles"]), _number(run["predicted_cycles"]),
            ("passed" if run["passed"] else "FAILED") + _changed(run["changed"])))
    return Table("Runs of this build against the golden model",
                 ("what", "data", "seed", "waits' seed", "runs", "tokens", "words", "mismatches", "cycles",
                  "predicted", "verdict"), (False, False, *(True,) * 8, False), tuple(rows))


def _proof_text(proof):
    verdict = "All runs passed" if proof["passed"] else "NOT PROVEN"
    return (f"{verdict}: {proof['words']:,} output words compared with the golden model in "
            f"{_counted(len(proof['runs']), 'run')} of the bench, {proof['mismatches']:,} mismatches.")


def _layers(layers):
    rows = tuple((
        layer["name"], layer["structure"], f"{layer['shape'][0]} x {layer['shape'][1]}",
        f"{100 * layer['kept'] / layer['weights']:.1f} %", str(layer["patterns_used"]),
        "-" if layer["pattern_luts"] is None else f"{layer['pattern_luts']:.1f}", f"{layer['tiles']}",
        f"{layer['ksteps']:,}", f"{layer['cycles']:,}", f"{layer['array_cycles']:,}",
        f"{layer['dense_array_cycles']:,}", f"{100 * layer['utilization']:.1f} %",
        f"{layer['weight_bytes']:,}", f"{layer['macs_per_byte']:.1f}") for layer in layers)
    return Table("Linear layers: cycles are exact with the nominal memory; LUT: multiplexers and routing a "
                 "multiplier, of the layer's patterns alone",
                 ("layer", "structure", "shape", "kept", "patterns", "LUT", "tiles", "K-steps", "cycles",
                  "array cycles", "dense", "utilization", "weight bytes", "MACs/byte"),
                 (False, False, *(True,) * 12), rows)


def _build_facts(build):
    return (
        Figure("configuration", build["configuration_hash"], COUNTED),
        Figure("array", f"R = {build['rows']} block units x T = {build['lanes']} lanes x 4 rows x "
               f"n = {build['slots']} slots", COUNTED, f"{build['multipliers']:,} products a cycle"),
        Figure("pattern pool", f"in {build['pool_storage']}", COUNTED),
        Figure("accumulators", f"{build['accumulator_bits']} bits, sums in {build['accumulation']}", COUNTED),
        Figure("bus", f"{build['bus_bits']} bits", COUNTED),
        Figure("longest sequence", f"{build['tokens']} tokens", COUNTED),
        Figure("device", build["device"] or "none", Origin.ASSUMED,
               f"{build['part']} at {build['assumed_clock_mhz']:g} MHz" if build["device"] else ""))


def _changed(changed):
    return f" (files of the build were changed: {changed})" if changed else ""


def _number(value):
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}"
