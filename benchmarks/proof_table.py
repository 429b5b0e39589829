"""One table: HLS C++, Verilog in two benches and PyTorch, each against the golden model on the same inputs.

Random weights in MiniLM's layer shapes and in a small test model, in every kind of sparsity. Linear layers
run each on an input of its own, encoders as a whole. Run: ``python -m benchmarks.proof_table`` (a quarter of
an hour on one core); ``--out docs/proof.md`` writes the page, ``--models test`` leaves MiniLM out.
"""

import argparse
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from compressor.bundle import save_bundle
from compressor.fake_encoder import FakeEncoder
from compressor.fake_quantization import FakeLinear
from compressor.text_file import write_text
from hwgen.packaging import build
from hwgen.plan_request import PlanRequest
from hwgen.program import linear_program
from rtl_templates.word_format import pack_words
from sim import harness, hls_bench
from sim.cocotb_bench import run_cocotb
from sim.encoder_case import compare_in_cocotb
from sim.encoder_run import EncoderBench, EncoderRequest, encoder_inputs, simulate_encoder
from sim.harness import SimulationError
from sim.hls_run import simulate_hls_encoder, simulate_hls_layers
from sim.open_build import open_build, stream_file
from sim.runner import SIM_DIRECTORY, SimulationRequest, bench_case, simulate_layers
from sim.vectors import Comparison, compare_words, pack_inputs, random_vectors
from tests.bundles import random_encoder_bundle

COLUMNS = ("HLS C++ (g++)", "Verilog (cocotb)", "Verilog (C++ bench)", "PyTorch twin")

PAGE = """\
# Proof: four implementations, one table

Every cell is *output words compared / words that differ* from the integer golden model
(`compressor/intops`), on the same random inputs. A word is 4 channels x T tokens. `python -m
benchmarks.proof_table --out docs/proof.md` wrote this page; `tests/sim/test_proof_table.py` runs a small
slice of it, and the same with wrong weights.

* **HLS C++**: the generated C++ in C simulation with g++; C/RTL co-simulation needs the vendor's tool, and
  was not run.
* **Verilog (cocotb)**: the generated Verilog in Verilator behind cocotb's AXI models; the test model under
  random waits on every AXI channel, MiniLM's layer without.
* **Verilog (C++ bench)**: the same Verilog in the C++ bench, with the nominal memory.
* **PyTorch twin**: the quantized torch modules (`FakeLinear`, `FakeEncoder`) that training and `hwgen eval`
  use.

Weights are random. Linear layers run each on an input of its own; of encoders the last hidden states are
compared.
"""

STRUCTURES = {
    "pattern, 8 of 16": {"structure": "pattern"},
    "2:4": {"structure": "nm"},
    "blocks, half of them absent": {"structure": "dense", "absent_blocks": 0.5},
    "dense": {"structure": "dense"},
    "pattern, attention maps too": {"structure": "pattern", "map_pruning": True},
}


@dataclass(frozen=True, kw_only=True)
class Model:
    """Shapes of a model, and how it runs.

    Parameters
    ----------
    text : str
    shapes : dict
        Arguments of :func:`tests.bundles.random_encoder_bundle`.
    request : PlanRequest
    structures : tuple of str
        Some of :data:`STRUCTURES`.
    sequences : int
        Sequences of the encoder's run, of random lengths; the first is of full length.
    stalls : int
        Seed of random waits on every AXI channel in cocotb; 0 is none.
    """

    text: str
    shapes: dict
    request: PlanRequest
    structures: tuple[str, ...] = tuple(STRUCTURES)
    sequences: int = 1
    stalls: int = 0


MODELS = {
    "test": Model(text="test model: 2 layers, H = 32, A = 4, F = 64, S = 11, 3 sequences",
                  shapes={"hidden": 32, "layers": 2, "heads": 4, "ffn": 64},
                  request=PlanRequest(rows=2, lanes=4, bus_bits=64, tokens=11), sequences=3, stalls=1),
    "minilm": Model(text="MiniLM's layer: H = 384, A = 12, F = 1536, S = 16",
                    shapes={"hidden": 384, "layers": 1, "heads": 12, "ffn": 1536},
                    request=PlanRequest(rows=4, lanes=8, tokens=16)),
}


@dataclass(frozen=True)
class Row:
    """One line of the table: what ran, and per column words compared and words that differ."""

    model: str
    structure: str
    what: str
    cells: tuple[tuple[int, int], ...]

    @property
    def passed(self):
        """Every column compared the same number of words, more than none, and none differs."""
        return len(set(self.cells)) == 1 and self.cells[0][0] > 0 and self.cells[0][1] == 0


def build_case(model, structure, directory):
    """A build of Verilog and HLS C++ with random weights, opened."""
    bundle = random_encoder_bundle(**model.shapes, **STRUCTURES[structure], max_tokens=16)
    save_bundle(bundle, directory / "pruned.pt")
    build(directory / "pruned.pt", directory / "build", model.request, emit=("verilog", "hls"))
    return open_build(directory / "build")


def compare_linear_layers(opened, *, stalls=0):
    """Words and mismatches of all linear layers, by column of :data:`COLUMNS`."""
    request = SimulationRequest()
    hls, harness = simulate_hls_layers(opened, request), simulate_layers(opened, request)
    program = linear_program(opened.plan, [layer.name for layer in opened.plan.layers])
    vectors = random_vectors(opened.bundle, program, seed=request.seed)
    with tempfile.TemporaryDirectory() as scratch:
        case = bench_case(opened, program, vectors, weights=stream_file(opened, program, Path(scratch)),
                          memory=pack_inputs(program, vectors, opened.lanes).tobytes())
        outcome = run_cocotb(opened.verilog, case, opened.directory / SIM_DIRECTORY / "cocotb",
                             tests="program_is_bit_exact", stalls=(stalls,))
    if not outcome.reports:
        raise SimulationError(f"cocotb: {'; '.join(outcome.messages.values()) or 'no run was reported'}")
    cocotb = [Comparison(**found) for found in outcome.reports[0]["layers"].values()]
    twin = []
    for name in program.layers:
        one = FakeLinear.of(opened.bundle.layers[name].linear)
        found = one.compute(torch.tensor(vectors[name].x, dtype=torch.float32))
        twin.append(compare(name, found, vectors[name].y, opened.lanes))
    return cells(hls.layers, cocotb, harness.layers, twin)


def compare_encoder(opened, *, sequences=1, stalls=0):
    """Words and mismatches of the last hidden states, by column of :data:`COLUMNS`."""
    request = EncoderRequest(limit=sequences, sequences=sequences)
    hls, harness = simulate_hls_encoder(opened, request), simulate_encoder(opened, request)
    x, lengths = encoder_inputs(opened, request, opened.plan.tokens)
    with EncoderBench(opened) as bench:
        cocotb, _ = compare_in_cocotb(bench, x, lengths, stalls=stalls)
    golden = opened.bundle.encoder.compute(x, lengths)
    with torch.no_grad():
        found = FakeEncoder.of(opened.bundle.encoder).trace(torch.tensor(x, dtype=torch.float32),
                                                            torch.tensor(lengths))[-1]["output"]
    twin = [compare("encoder", one, expected, opened.lanes)
            for one, expected in zip(found, golden, strict=True)]
    return cells(hls.layers, cocotb, [harness], twin)


def compare(name, found, expected, lanes):
    """Comparison of a torch tensor of integers with golden values, in the accelerator's words."""
    values = found.numpy().astype(np.int8)
    return compare_words(name, pack_words(values, lanes).ravel(), expected, lanes)


def cells(*columns):
    """Sums of words and mismatches, a pair a column."""
    return tuple((sum(one.words for one in column), sum(one.mismatches for one in column))
                 for column in columns)


def rows(model):
    """Run everything of a model; yields two Rows a structure."""
    for structure in model.structures:
        with tempfile.TemporaryDirectory() as folder:
            opened = build_case(model, structure, Path(folder))
            for what, found in (
                    (f"{len(opened.plan.layers)} linear layers",
                     partial(compare_linear_layers, opened, stalls=model.stalls)),
                    ("whole encoder", partial(compare_encoder, opened, sequences=model.sequences,
                                              stalls=model.stalls))):
                yield Row(model.text, structure, what, found())


def line(row):
    """A Row as a line of Markdown."""
    found = [f"{words:,} / {wrong:,}" for words, wrong in row.cells]
    return f"| {' | '.join((row.structure, row.what, *found))} |"


def page(found):
    """The whole page, in Markdown."""
    words = sum(words for row in found for words, _ in row.cells)
    wrong = sum(wrong for row in found for _, wrong in row.cells)
    lines = PAGE.splitlines()
    for text in dict.fromkeys(row.model for row in found):
        lines += ["", f"## {text[:1].upper()}{text[1:]}", "",
                  f"| structure | what ran | {' | '.join(COLUMNS)} |", f"|---|---|{'--:|' * len(COLUMNS)}"]
        lines += [line(row) for row in found if row.model == text]
    lines += ["", f"All columns together: {words:,} words compared, {wrong:,} mismatches.", ""]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join(MODELS), help="Some of %(default)s.")
    parser.add_argument("--out", type=Path, help="File to write, in Markdown.")
    options = parser.parse_args()
    harness.OPTIMIZE = hls_bench.OPTIMIZE = "-O0"  # compiling takes longer than running
    found = []
    for name in options.models.split(","):
        for row in rows(MODELS[name]):
            found.append(row)
            print(line(row), flush=True)
    text = page(found)
    if options.out:
        write_text(options.out, text)
    print(text.splitlines()[-1])
    return int(not all(row.passed for row in found))


if __name__ == "__main__":
    raise SystemExit(main())
