"""What a run records: traces and pictures of the units against the accelerator's own counters, and waves."""

import json
import subprocess
import zlib
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from compressor.bundle import save_bundle
from hwgen.packaging import build
from hwgen.plan_request import PlanRequest
from hwgen.toolchain import find_tool
from rtl_templates.program_format import Opcode
from rtl_templates.sequencer import Sequencer
from sim.activity import BREAKDOWN, TRACKS, cycle_breakdown, read_busy_times
from sim.encoder_run import EncoderBench
from sim.harness import HEADERS, HarnessContext, MemoryTiming, build_harness, run_harness
from sim.open_build import open_build
from sim.recording import Recording
from sim.timeline import WAITS, waits
from tests.bundles import random_activations, random_encoder_bundle
from tests.sim.test_harness import ENGINE, request_of

LENGTHS = np.array([9, 3, 12])


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """Of a small encoder: 5 token groups, several tiles in every product."""
    folder = tmp_path_factory.mktemp("recording")
    bundle = random_encoder_bundle(layers=2, heads=2, hidden=16, ffn=40, max_tokens=20)
    save_bundle(bundle, folder / "pruned.pt")
    build(folder / "pruned.pt", folder / "build", PlanRequest(rows=1, lanes=4, tokens=20, bus_bits=64))
    with EncoderBench(open_build(folder / "build")) as opened:
        yield opened


@pytest.fixture(scope="module", params=[0, 4], ids=["nominal", "stalls"])
def recorded(bench, tmp_path_factory, request):
    """Report, trace and busy times of a run of three sequences."""
    folder = tmp_path_factory.mktemp("run")
    kept = {}

    class Keeping(Recording):
        def write(self, scratch, plan, program, items, sequences=1):
            kept["times"] = read_busy_times(Path(scratch) / "activity", plan, program, items, sequences)
            super().write(scratch, plan, program, items, sequences)

    rng = np.random.default_rng(5)
    x = np.stack([random_activations(20, 16, rng) for _ in LENGTHS])
    recording = Keeping(trace=folder / "trace.json", timeline=folder / "timeline.svg")
    output = bench.run(x, LENGTHS, timing=MemoryTiming(stalls=request.param), recording=recording)
    return output.report, json.loads((folder / "trace.json").read_text()), kept["times"], folder


def test_every_cycle_is_accounted_for(recorded):
    report = recorded[0]
    counters, found = report.counters, cycle_breakdown([report])
    assert list(found) == list(BREAKDOWN)
    assert sum(found.values()) == counters["cycles"]
    assert found["array"] == counters["busy_cycles"] > 0
    assert found["drain"] == counters["drain_wait_cycles"]
    assert found["weights"] + found["tables"] <= counters["weight_wait_cycles"]
    assert min(found[name] for name in ("weights", "keys", "softmax", "layernorm", "load", "store")) > 0


def test_trace_is_what_viewers_take(recorded):
    events = recorded[1]["traceEvents"]
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert set(names.values()) == {"product", *TRACKS}
    slices = [event for event in events if event["ph"] == "X"]
    assert len(slices) + 1 + 2 * len(names) == len(events)
    cycles = recorded[0].counters["cycles"]
    for event in slices:
        assert event["tid"] in names
        assert event["name"]
        assert 0 <= event["ts"] < event["ts"] + event["dur"] <= cycles
    for thread in names:
        spans = sorted((event["ts"], event["ts"] + event["dur"])
                       for event in slices if event["tid"] == thread)
        assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))


def test_trace_equals_the_counters(recorded, bench):
    report, _, times, _ = recorded

    def busy(unit):
        return sum(time.end - time.begin for time in times if time.unit == unit)

    counters = report.counters
    assert busy("array") == counters["busy_cycles"] + counters["drain_wait_cycles"]
    assert busy("array waits") == counters["weight_wait_cycles"]
    assert busy("load") == counters["load_cycles"]
    assert busy("store") == counters["store_cycles"]
    assert busy("weight stream") == len(LENGTHS) * bench.beats
    assert sum(time.unit == "array" for time in times) == counters["tiles"]
    dispatches = [time.begin for time in times if time.unit == "dispatch"]
    assert dispatches[-len(report.profile):] == report.profile
    assert len(dispatches) == len(LENGTHS) * len(report.profile)


def test_slices_are_named_after_their_descriptor(recorded, bench):
    """A unit is busy soon after the dispatch of its descriptor, and never past its next one."""
    times, program = recorded[2], bench.program
    units = {"keys": Opcode.KEYS, "softmax": Opcode.SOFTMAX, "transpose": Opcode.TRANSPOSE,
             "layernorm": Opcode.NORM, "load": Opcode.LOAD, "store": Opcode.STORE}
    busy = Sequencer.DISPATCH_TO_UNIT + 1  # from a dispatch on
    dispatched = {(time.sequence, time.step): time.begin for time in times if time.unit == "dispatch"}
    for unit, opcode in units.items():
        found = [time for time in times if time.unit == unit]
        steps = [step for step, descriptor in zip(program.steps, program.descriptors, strict=True)
                 if descriptor.opcode is opcode]
        assert [time.step for time in found] == steps * len(LENGTHS)
        assert all(time.begin == dispatched[time.sequence, time.step] + busy for time in found)
    tiles = [time for time in times if time.unit == "array"]
    assert all(time.begin > dispatched[time.sequence, time.step] for time in tiles)


def test_tiles_are_computed_after_they_are_loaded(recorded):
    loads = {(time.sequence, time.step, time.detail): time
             for time in recorded[2] if time.unit == "tile loader"}
    tiles = [time for time in recorded[2] if time.unit == "array"]
    for tile in tiles:
        assert loads[tile.sequence, tile.step, tile.detail].end < tile.begin


def test_picture_counts_what_the_bench_counts(recorded):
    report, _, times, _ = recorded
    code = waits(times, 0, report.counters["cycles"])
    found = {name: int((code == index).sum()) for index, name in enumerate(WAITS)}
    breakdown = cycle_breakdown([report])
    assert (code < 0).sum() == breakdown["array"] + breakdown["drain"]
    assert found.pop("other") == breakdown["results"] + breakdown["dispatch"]
    assert found == {name: breakdown[name] for name in found}


def test_picture(recorded):
    root = ElementTree.parse(recorded[3] / "timeline.svg").getroot()
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"array", "weight stream", "softmax", "layernorm", "array waits for"} <= set(texts)
    assert any(text.startswith("encoder.layer.0") for text in texts)
    width = float(root.get("width"))
    for bar in root.iter("{http://www.w3.org/2000/svg}rect"):
        if bar.get("x"):
            assert 0 <= float(bar.get("x")) <= float(bar.get("x")) + float(bar.get("width")) <= width


def test_a_missing_busy_time_is_an_error(bench, tmp_path):
    np.zeros((1, 4), "<u8").tofile(tmp_path / "activity")
    with pytest.raises(ValueError, match="the program asks for"):
        read_busy_times(tmp_path / "activity", bench.plan, bench.program, bench.items)


def test_wave_holds_the_cycles_asked_for(tmp_path):
    executable = build_harness(ENGINE, tmp_path, context=HarnessContext(wave=True))
    wave = tmp_path / "wave.fst"
    report, _ = run_harness(executable, request_of(), wave=wave, wave_first=100, wave_end=300)
    assert report.error is None
    content = wave.read_bytes()
    blocks, place = {}, 0
    while place < len(content):
        size = int.from_bytes(content[place + 1:place + 9], "big")
        blocks.setdefault(content[place], content[place + 9:place + 1 + size])
        place += 1 + size
    assert place == len(content)
    first, last = (int.from_bytes(blocks[0][at:at + 8], "big") for at in (0, 8))
    assert last - first == 2 * 200 - 1
    assert b"m_axi_gmem1_rdata" in content


@pytest.mark.parametrize("size", [0, 1, 14, 15, 269, 270, 65535, 65536, 200_000])
def test_our_compression_headers_make_valid_data(compressor, size):
    """What stands in for zlib and LZ4, read back by zlib and by the definition of LZ4's block format."""
    data = np.random.default_rng(size).integers(0, 256, size, np.uint8).tobytes()
    made = subprocess.run([compressor], input=data, capture_output=True, check=True).stdout
    length = int.from_bytes(made[:8], "little")
    assert zlib.decompress(made[8:8 + length]) == data
    block = made[8 + length:]
    assert block[0] & 15 == 0
    literals, place = block[0] >> 4, 1
    while block[0] >> 4 == 15:
        literals, place = literals + block[place], place + 1
        if block[place - 1] < 255:
            break
    assert block[place:] == data
    assert literals == size


@pytest.fixture(scope="module")
def compressor(tmp_path_factory):
    """Program that writes standard input as a zlib stream, with its size before it, and as an LZ4 block."""
    folder = tmp_path_factory.mktemp("headers")
    (folder / "main.cpp").write_text("""
#include <cstdio>
#include <iterator>
#include <iostream>
#include <string>
#include <vector>
#include "lz4.h"
#include "zlib.h"
int main() {
    const std::string in((std::istreambuf_iterator<char>(std::cin)), {});
    std::vector<unsigned char> out(compressBound(in.size()));
    uLongf size = out.size();
    const auto* bytes = reinterpret_cast<const Bytef*>(in.data());
    if (compress2(out.data(), &size, bytes, in.size(), 9) != Z_OK) return 1;
    const uint64_t written = size;
    std::fwrite(&written, 8, 1, stdout);
    std::fwrite(out.data(), 1, size, stdout);
    std::vector<char> block(LZ4_compressBound(in.size()));
    const int length = LZ4_compress_default(in.data(), block.data(), in.size(), block.size());
    std::fwrite(block.data(), 1, length, stdout);
}
""")
    headers = [path for path in HEADERS if path.parent.name == "fst"]
    subprocess.run([find_tool("g++").path, f"-I{headers[0].parent}", folder / "main.cpp",
                    "-o", folder / "main"], check=True)
    return folder / "main"
