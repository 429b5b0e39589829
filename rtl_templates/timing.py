"""The latencies that a run's cycles depend on, collected from the components, and the memory they hold for.

The *nominal memory* accepts addresses and write data at once, sends the first beat of a burst
``read_latency`` cycles after its address was taken (or right behind the burst before) and then one beat a
cycle, and answers a write ``write_latency`` cycles after its last beat. The read latency must stay below
``Timing.read_latency_limit``, beyond which the beats that a master may have under way no longer hide it; the
write latency likewise. :mod:`rtl_templates.prediction` adds everything up.
"""

from dataclasses import dataclass

from rtl_templates.array_spec import AcceleratorSpec
from rtl_templates.axi import OUTSTANDING_BEATS, burst_beats
from rtl_templates.beat_fifo import BeatFifo
from rtl_templates.gelu_table import GeluTable
from rtl_templates.kstep_fetch import KStepFetch
from rtl_templates.load_unit import LoadUnit, word_interval
from rtl_templates.matmul_controller import MatmulController
from rtl_templates.requantizer import RowRequantizer
from rtl_templates.sequencer import Sequencer, program_memory
from rtl_templates.store_unit import StoreUnit
from rtl_templates.stream_reader import StreamReader
from rtl_templates.stream_writer import StreamWriter
from rtl_templates.tile_loader import ENTRY_BITS, TileLoader


@dataclass(frozen=True, kw_only=True)
class NominalMemory:
    """Memory without random waits; latencies in clock cycles, at least 1."""

    read_latency: int = 32
    write_latency: int = 8


@dataclass(frozen=True)
class Timing:
    """Every latency that a run's cycles depend on, in clock cycles, made from the spec.

    >>> Timing.dispatch_interval
    5
    """

    spec: AcceleratorSpec

    address = StreamReader.LATENCY
    """From a read's start to its first address."""
    fetch_to_dispatch = Sequencer.FETCH_TO_DISPATCH
    """From the last beat of the program to the first dispatch."""
    dispatch_interval = Sequencer.DISPATCH_INTERVAL
    """From a dispatch to the next."""
    idle_to_dispatch = Sequencer.IDLE_TO_DISPATCH
    """From a unit's being idle to a dispatch that waited for it."""
    dispatch_to_unit = Sequencer.DISPATCH_TO_UNIT
    """From a dispatch to the start of its unit."""
    end_to_done = Sequencer.END_TO_DONE + 1
    """From the dispatch of END to the value of ``cycles``."""
    load_to_idle = LoadUnit.LAST_BEAT_TO_IDLE
    """From the last beat of a LOAD to its unit's being idle."""
    store_to_beat = Sequencer.DISPATCH_TO_UNIT + StoreUnit.LATENCY
    """From the dispatch of a STORE to its first beat."""
    response_to_idle = StreamWriter.RESPONSE_TO_IDLE
    """From the last response of a STORE to its unit's being idle."""
    loaded_to_take = TileLoader.LOADED
    """From the last beat of a tile to its being taken."""
    dispatch_to_take = Sequencer.DISPATCH_TO_UNIT + MatmulController.DISPATCH
    """From the dispatch of a MATMUL to its first tile's being taken."""
    take_to_issue = MatmulController.TILE
    """From a tile's being taken to its first K-step."""
    accept_next = MatmulController.DISPATCH
    """From the last tile's being taken to the next MATMUL's being dispatched."""
    release_to_load = 1
    """From the last K-step of a tile to its bank's being filled again."""
    drained_to_idle = 1
    """From the last requantized row to the array's being idle."""

    @property
    def word_interval(self):
        """Cycles that LOAD and STORE take for a word."""
        return word_interval(self.spec)

    @property
    def weights_ready(self):
        """From the start to the first beat of weights at the loader, without the memory's latency."""
        return StreamReader.LATENCY + BeatFifo.LATENCY

    @property
    def result_latency(self):
        """From the last K-step of a pass to its first row: fetch, array, requantizer, GELU table."""
        table = 0 if self.spec.encoder is None else GeluTable.LATENCY
        return KStepFetch.LATENCY + self.spec.array.latency + RowRequantizer.LATENCY + table

    def table_cycles(self, packet):
        """From the header of a table to its last entry."""
        return packet.beats * self.spec.bus_bits // ENTRY_BITS[packet.table]

    @property
    def read_latency_limit(self):
        """Latencies from here on are no longer hidden."""
        return OUTSTANDING_BEATS - 2 * burst_beats(self.spec.bus_bits)

    def program_beats(self, descriptors):
        """Beats of a program of so many descriptors."""
        memory = program_memory(self.spec)
        return -(-descriptors * memory.parts // memory.records_per_row)

    def load_cycles(self, descriptor, memory):
        """From the dispatch of a LOAD to its unit's being idle."""
        beats = self.spec.beats_per_word
        last = (self.dispatch_to_unit + self.address + memory.read_latency
                + (descriptor.length - 1) * self.word_interval + beats - 1)
        burst = burst_beats(self.spec.bus_bits)
        place = descriptor.offset * 8 // self.spec.bus_bits % burst
        alone = place == burst - 1 and descriptor.length * beats > 1 and beats > 1
        return last + (StreamReader.INTERVAL - 1) * alone + self.load_to_idle

    def store_cycles(self, descriptor, memory):
        """From the dispatch of a STORE to its unit's being idle."""
        last = (self.store_to_beat + (descriptor.length - 1) * self.word_interval
                + self.spec.beats_per_word - 1)
        return last + memory.write_latency + self.response_to_idle
