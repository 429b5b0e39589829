"""Every proof holds, and fails on a broken design."""

import importlib.util
import inspect

import pytest

from formal import (
    beat_fifo,
    bursts,
    control_registers,
    load_unit,
    packet_writer,
    paired_sums,
    read_master,
    requantizer,
    result_writer,
    store_unit,
    write_master,
)
from formal.__main__ import MODULES
from formal.prover import ProofError
from rtl_templates.beat_fifo import BeatFifo
from rtl_templates.burst_generator import BurstGenerator
from rtl_templates.control_registers import ControlRegisters
from rtl_templates.load_unit import LoadUnit
from rtl_templates.packet_writer import PacketWriter
from rtl_templates.paired_row import PairedRow
from rtl_templates.paired_sums import PairedSums
from rtl_templates.requantizer import RowRequantizer
from rtl_templates.result_writer import ResultWriter
from rtl_templates.store_unit import StoreUnit
from rtl_templates.stream_reader import StreamReader
from rtl_templates.stream_writer import StreamWriter

BROKEN = [
    (beat_fifo.PROOFS[0], BeatFifo, "move.eq(~self.o.valid | self.o.ready)", "move.eq(self.o.ready)"),
    (beat_fifo.PROOFS[0], BeatFifo, "== self.depth - 1)", "== self.depth)"),
    (beat_fifo.PROOFS[0], BeatFifo, "(leaving != 2)", "(leaving != 3)"),
    (beat_fifo.PROOFS[1], BeatFifo, "move.eq(~self.o.valid | self.o.ready)", "move.eq(self.o.ready)"),
    (beat_fifo.PROOFS[1], BeatFifo, "~move | fetched", "~move"),
    (bursts.PROOFS[0], BurstGenerator, "[left.eq(0), some.eq(0)]",
     "[left.eq(0), some.eq(0), self.o.valid.eq(0)]"),
    (bursts.PROOFS[1], BurstGenerator, "room.eq(full - first)", "room.eq(full)"),
    (control_registers.PROOFS[0], ControlRegisters, "& ~self.bus_bvalid)", ")"),
    (control_registers.PROOFS[0], ControlRegisters, "(stage[2] & ~self.bus_rready)", "0"),
    (paired_sums.PROOFS[0], PairedRow, "operands[0] << LOW_BITS", "operands[0] << LOW_BITS - 4"),
    (paired_sums.PROOFS[1], PairedSums, "Mux(fresh, 0, before)", "before"),
    (paired_sums.PROOFS[1], PairedSums, "Mux(fresh, 0, counted)", "counted"),
    (paired_sums.PROOFS[2], PairedRow, "operands[0] << LOW_BITS", "operands[0] << LOW_BITS - 4"),
    (paired_sums.PROOFS[2], PairedRow, "early + 1 + (slot > 0)", "early + (slot > 0)"),
    (requantizer.PROOFS[0], RowRequantizer, "(value + 1) >> 1", "value >> 1"),
    (packet_writer.PROOFS[0], PacketWriter, "promised < limit", "promised <= limit"),
    (result_writer.PROOFS[0], ResultWriter, "Mux(pass_end, 0, index + 1)", "index + 1"),
    (result_writer.PROOFS[0], ResultWriter, "pass_end & read.data.tile_end", "pass_end"),
    (load_unit.PROOFS[0], LoadUnit, "(part != parts - 1) | ~self.words.valid | self.words.ready", "1"),
    (load_unit.PROOFS[0], LoadUnit, "final.eq(left == 2)", "final.eq(left == 3)"),
    (read_master.PROOFS[0], StreamReader, "self.r.valid & ~self.abort", "self.r.valid"),
    (read_master.PROOFS[0], StreamReader, "self.r.valid & self.r.ready & self.r.p.last",
     "self.r.valid & self.r.ready"),
    (write_master.PROOFS[0], StreamWriter, "final | (place == full - 1)", "final"),
    (write_master.PROOFS[0], StreamWriter, "(self.i.valid | self.abort) & owes", "self.i.valid | self.abort"),
    (write_master.PROOFS[0], StreamWriter, "self.i.valid | self.abort", "self.i.valid"),
    (write_master.PROOFS[0], StreamWriter, "ends & (owed == 1)", "ends"),
    (write_master.PROOFS[0], StreamWriter, "unfinished < OUTSTANDING", "unfinished <= OUTSTANDING"),
    (write_master.PROOFS[0], StreamWriter, "~left.any() & ~unfinished.any()", "~left.any()"),
    (store_unit.PROOFS[0], StoreUnit, "some & room.any()", "some"),
    (store_unit.PROOFS[0], StoreUnit, "word.eq(word >> bus_bits)", "word.eq(word)"),
    (store_unit.PROOFS[0], StoreUnit, "~(countdown.any() | self.abort)", "~countdown.any()"),
    (store_unit.PROOFS[1], StoreUnit, "m.Elif(self.beats.ready)", "m.Else()"),
    (store_unit.PROOFS[1], StoreUnit, "left != 1", "left != 2"),
]


def broken(component, old, new):
    """The component as its source defines it, after one replacement."""
    source = inspect.getsource(inspect.getmodule(component))
    assert source.count(old) == 1, f"{old!r} is there {source.count(old)} times"
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("broken", loader=None))
    exec(compile(source.replace(old, new), "broken", "exec"), module.__dict__)
    return getattr(module, component.__name__)


def cases(rows):
    """Parameters, the slow proofs marked."""
    return [pytest.param(*row, marks=[pytest.mark.nightly] if row[0].slow else []) for row in rows]


@pytest.mark.parametrize("proof", cases([(proof,) for module in MODULES for proof in module.PROOFS]))
def test_proof(proof):
    proof.run()


@pytest.mark.parametrize(("proof", "component", "old", "new"), cases(BROKEN))
def test_proof_fails_on_a_broken_design(proof, component, old, new):
    with pytest.raises(ProofError):
        proof.run(broken(component, old, new))
