"""What a simulation records besides words and counters: a wave, a trace of the units, a picture of it."""

from dataclasses import dataclass
from pathlib import Path

from compressor.text_file import make_folder
from sim.activity import read_busy_times
from sim.chrome_trace import write_trace
from sim.harness import SimulationError
from sim.timeline import write_timeline

WAVE_CYCLES = (0, 20_000)
"""Cycles in a wave unless told otherwise; every signal of a whole run is gigabytes."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What to record of one run.

    Parameters
    ----------
    wave : Path, optional
        FST file of every signal; the bench must have been built for it, which makes it slower.
    trace : Path, optional
        JSON file of the units' busy times, see :mod:`sim.chrome_trace`.
    timeline : Path, optional
        SVG file.
    cycles : (int, int), optional
        First cycle, and the one behind the last, of wave and timeline. Unless given the wave has
        :data:`WAVE_CYCLES`, and the timeline the first encoder layer.
    """

    wave: Path | None = None
    trace: Path | None = None
    timeline: Path | None = None
    cycles: tuple[int, int] | None = None

    def __post_init__(self):
        if self.cycles is not None and not 0 <= self.cycles[0] < self.cycles[1]:
            raise ValueError(f"Recording.cycles must be a first cycle and a later one, not {self.cycles}")

    def make_folders(self) -> None:
        """Make the folders of what is to be written; WriteError if one cannot be."""
        for path in (self.wave, self.trace, self.timeline):
            if path is not None:
                make_folder(path.parent)

    def arguments(self, scratch):
        """Arguments of :func:`sim.harness.run_harness`; ``scratch`` is a folder."""
        self.make_folders()
        arguments = {}
        if self.trace is not None or self.timeline is not None:
            arguments["activity"] = Path(scratch) / "activity"
        if self.wave is not None:
            first, end = self.cycles or WAVE_CYCLES
            arguments |= {"wave": self.wave, "wave_first": first, "wave_end": end}
        return arguments

    def write(self, scratch, plan, program, items, sequences=1):
        """Write trace and timeline of a run that has ended well.

        Raises
        ------
        SimulationError
            If the units did not do what the program asks for.
        """
        if self.trace is None and self.timeline is None:
            return
        try:
            times = read_busy_times(Path(scratch) / "activity", plan, program, items, sequences)
        except ValueError as error:
            raise SimulationError(str(error)) from error
        if self.trace is not None:
            write_trace(times, self.trace)
        if self.timeline is not None:
            write_timeline(times, self.timeline, cycles=self.cycles)
