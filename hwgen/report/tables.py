"""Tables of a report: layers, runs against the golden model, metrics of the export."""

from pathlib import Path

from hwgen.report.parts import Table


def exported_table(exported):
    """The metrics that the export measured, of float and integers; None if it measured none."""
    if not exported:
        return None
    names = sorted({*exported.get("float", {}), *exported.get("quantized", {})})
    rows = tuple((name, *(_number(exported.get(kind, {}).get(name)) for kind in ("float", "quantized")))
                 for name in names)
    return Table(f"When the bundle was exported, on {exported.get('rows', '?')} rows (computed)",
                 ("metric", "float", "golden model"), (False, True, True), rows)


def proof_table(proof):
    """Every run that compared words; None if there was none."""
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
            ("passed" if run["passed"] else "FAILED") + changed_text(run["changed"])))
    return Table("Runs of this build against the golden model",
                 ("what", "data", "seed", "waits' seed", "runs", "tokens", "words", "mismatches", "cycles",
                  "predicted", "verdict"), (False, False, *(True,) * 8, False), tuple(rows))


def layer_table(layers):
    """Every linear layer: structure, tiles, cycles, bytes."""
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


def changed_text(changed):
    """A warning where files of the build were changed before a run."""
    return f" (files of the build were changed: {changed})" if changed else ""


def _number(value):
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}"
