"""Hardware templates: one Amaranth component per file, each with the spec that makes it and its twin."""
