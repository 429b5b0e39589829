"""Figures of a report with their origins: what was built, of what model, and what it reaches."""

from hwgen.report.origin import Origin
from hwgen.report.parts import Figure

COUNTED, MODELLED, SIMULATED = Origin.COUNTED, Origin.MODELLED, Origin.SIMULATED


def tiles(data):
    """The most asked for, in large type at the top."""
    cycles, simulated, model = data["cycles"], data["cycles"]["simulated"], data["model"]
    run, origin = (simulated["cycles_per_run"], SIMULATED) if simulated else (cycles["total"], MODELLED)
    build, proof = data["build"], data["proof"]
    found = [Figure("Cycles a sequence", f"{run:,.0f}", origin, f"{build['tokens']} tokens")]
    if build["device"]:
        clock = build["assumed_clock_mhz"]
        found.append(Figure("Time a sequence", f"{run / clock / 1e3:.3g} ms", Origin.ASSUMED,
                            f"if the clock is {clock:g} MHz"))
    found += [
        Figure("Multipliers at work", f"{100 * cycles['utilization']:.1f} %", MODELLED,
               f"useful products of {build['multipliers']:,} a cycle"),
        Figure("Against dense", f"{cycles['dense_array_cycles'] / cycles['array_cycles']:.2f} x", MODELLED,
               "fewer array cycles than dense layers"),
        Figure("Weights kept", f"{100 * model['kept_weights'] / model['weights']:.1f} %", COUNTED,
               f"of {model['weights']:,}")]
    if proof["runs"]:
        found.append(Figure("Words that differ", f"{proof['mismatches']:,}", SIMULATED,
                            f"of {proof['words']:,} compared"))
    evaluated = data["scores"]["evaluated"]
    if evaluated:
        found.append(Figure(f"{metric_name(evaluated)} of the Verilog", f"{evaluated['rtl']:.4f}", SIMULATED,
                            f"{evaluated['rows']} rows; float {evaluated['float']:.4f}"))
    return tuple(found)


def metric_name(evaluated):
    """The task's own metric as a heading: ``Matthews correlation``."""
    return evaluated["metric"].replace("_", " ").capitalize()


def model_facts(model, maps):
    """What was compressed, and how far."""
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


def pool_facts(pool):
    """The pattern pool, and what it costs a multiplier."""
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


def cycle_facts(data):
    """Predicted cycles, and simulated ones beside them."""
    cycles, simulated = data["cycles"], data["cycles"]["simulated"]
    facts = [Figure("predicted", f"{cycles['total']:,} cycles", MODELLED, "exact with the nominal memory")]
    if simulated:
        equal = simulated["cycles"] == simulated["predicted_cycles"]
        facts.append(Figure("simulated", f"{simulated['cycles']:,} cycles", SIMULATED,
                            f"{simulated['runs']} runs; predicted {simulated['predicted_cycles']:,}: "
                            + ("equal" if equal else "NOT EQUAL")))
    return tuple(facts)


def build_facts(build):
    """Sizes of the accelerator."""
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
