"""The context of ``index.html.j2`` and ``summary.md.j2``: every text of a report, made from its data."""

import importlib.metadata
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path

from hwgen.report.charts import meter, patterns, percent, roofline, stacked
from hwgen.report.facts import build_facts, cycle_facts, metric_name, model_facts, pool_facts, tiles
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
from hwgen.report.tables import changed_text, exported_table, layer_table, proof_table

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
    scores: tuple[Meter, ...]
    scores_text: str
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
    evaluated = data["scores"]["evaluated"]
    array_chart, array_note = _array_chart(data)
    return Page(
        title=f"Accelerator {build['configuration_hash'][:8]}", subtitle=_subtitle(data),
        version=importlib.metadata.version("hwgen"), tiles=tiles(data),
        not_run=tuple(Missing(one["what"], one["command"]) for one in data["missing"]),
        model_facts=model_facts(model, data["attention_maps"]), pool_facts=pool_facts(pool),
        patterns=patterns(pool["masks"], pool["blocks"]), cell_places=(2, 12, 22, 32), corner=CORNER,
        masks=_masks(bundle, data["layers"]),
        cycle_facts=cycle_facts(data),
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
        scores=_scores(evaluated), scores_text=_scores_text(evaluated),
        exported=exported_table(data["scores"]["exported"]), proof=proof_table(data["proof"]),
        proof_text=_proof_text(data["proof"]), proof_passed=data["proof"]["passed"],
        layers=layer_table(data["layers"]), build_facts=build_facts(build),
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


def _scores(evaluated):
    if not evaluated:
        return ()
    names = {"float": ("float", Origin.COMPUTED), "fake_quantized": ("fake-quantized", Origin.COMPUTED),
             "golden": ("golden", Origin.COMPUTED), "rtl": ("Verilog", SIMULATED)}
    return tuple(Meter(name, f"{evaluated[key]:.4f} ({origin})", percent(max(0, evaluated[key])), "", origin)
                 for key, (name, origin) in names.items())


def _scores_text(evaluated):
    if not evaluated:
        return ""
    return (f"{metric_name(evaluated)} of the same {evaluated['rows']} rows of "
            f"{Path(evaluated['data']).name} through float PyTorch, fake-quantized PyTorch, the integer "
            "golden model and the generated Verilog: "
            f"{evaluated['prediction_mismatches']} predictions of the Verilog differ from the golden model's."
            + changed_text(evaluated["changed"]))


def _proof_text(proof):
    verdict = "All runs passed" if proof["passed"] else "NOT PROVEN"
    return (f"{verdict}: {proof['words']:,} output words compared with the golden model in "
            f"{_counted(len(proof['runs']), 'run')} of the bench, {proof['mismatches']:,} mismatches.")
