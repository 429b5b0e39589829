"""What a simulation found: per layer and in total, as plain frozen values."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sim.activity import BREAKDOWN

Progress = Callable[[str, int, int], None]
"""Called with what is going on, how much of it is done, and how much there is to do."""


@dataclass(frozen=True)
class Result:
    """What a command reports: a frozen dataclass that knows what is wrong with it."""

    def problems(self) -> list[str]:
        """What is wrong, one line each; empty if nothing is."""
        raise NotImplementedError

    @property
    def passed(self) -> bool:
        """Nothing is wrong."""
        return not self.problems()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"passed": self.passed, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class LayerResult:
    """One linear layer, summed over runs.

    Parameters
    ----------
    name : str
    words, mismatches : int
        Output words compared, and words with a wrong value.
    padding_values : int
        Values in lanes past the last token, not compared.
    cycles, predicted_cycles : int
        From the dispatch of the layer's product to that of the next one, or to the end of the run; simulated
        and predicted, both with the nominal memory.
    utilization : float
        macs / (multipliers x cycles).
    macs : int
        Useful products: weights that the layer keeps, times tokens.
    first_mismatch : str or None
    """

    name: str
    words: int
    mismatches: int
    padding_values: int
    cycles: int
    predicted_cycles: int
    utilization: float
    macs: int
    first_mismatch: str | None


@dataclass(frozen=True, kw_only=True)
class SimulationResult(Result):
    """A simulation of one or more runs; totals are over everything from start to done.

    Parameters
    ----------
    bench : str
        ``harness`` or ``cocotb``.
    whole_encoder : bool
        Whole encoders ran, else linear layers by themselves.
    data : str
        Where the inputs came from.
    runs, tokens : int
        Sequences, and tokens in each.
    read_latency, write_latency : int
        Of the nominal memory, in cycles.
    stalls : int
        Seed of the random waits under which words were compared (0: none).
    stalled_cycles : int or None
        Cycles of the runs with random waits, or in the cocotb bench.
    words, mismatches, padding_values, cycles, predicted_cycles, utilization, macs
        As in :class:`LayerResult`. Cycles are those of runs with the nominal memory, always. The MACs of
        whole encoders include attention, for all tokens, padding included.
    first_mismatch : str or None
    breakdown : dict of str to int
        Where the cycles went, see :data:`sim.activity.BREAKDOWN`; its sum is ``cycles``.
    prediction_mismatches : int
        Descriptors that were not dispatched in the predicted cycle, and counters (busy, waiting, loading,
        storing) that differ from the prediction.
    saturations : int
        Output values that the accelerator clipped, by its own count.
    expected_saturations : int or None
        Output values that the golden model clips; not counted for whole encoders.
    wall_seconds, cpu_seconds : float
        Time that the C++ bench ran, and that it had a processor.
    sequences_per_second : float
        Speed of the C++ bench.
    layers : tuple of LayerResult
        Linear layers; none for whole encoders.
    """

    bench: str
    whole_encoder: bool
    data: str
    runs: int
    tokens: int
    read_latency: int
    write_latency: int
    stalls: int
    stalled_cycles: int | None
    words: int
    mismatches: int
    padding_values: int
    cycles: int
    predicted_cycles: int
    utilization: float
    macs: int
    first_mismatch: str | None
    breakdown: dict[str, int]
    prediction_mismatches: int
    saturations: int
    expected_saturations: int | None
    wall_seconds: float
    cpu_seconds: float
    sequences_per_second: float
    layers: tuple[LayerResult, ...] = ()

    def problems(self) -> list[str]:
        """What is wrong, one line each; empty if the simulation passed.

        The first mismatch of each layer is named, at most ten of them.
        """
        lines = []
        if not self.words:
            lines.append("no output word was compared")
        if self.mismatches:
            lines.append(f"{self.mismatches:,} of {self.words:,} output words differ from the golden model")
            wrong = [layer.first_mismatch for layer in self.layers if layer.first_mismatch]
            wrong = wrong or [str(self.first_mismatch)]
            lines += wrong[:10] + ([f"and {len(wrong) - 10} more layers"] if len(wrong) > 10 else [])
        if self.cycles != self.predicted_cycles:
            lines.append(f"{self.cycles:,} cycles were simulated, {self.predicted_cycles:,} predicted")
        seen = sum(self.breakdown.values())
        if self.cycles != seen:
            lines.append(f"{self.cycles:,} cycles were counted by the accelerator, "
                         f"{seen:,} seen by the bench")
        if self.expected_saturations not in (None, self.saturations):
            lines.append(f"{self.saturations:,} clipped values were counted; the golden model clips "
                         f"{self.expected_saturations:,}")
        if self.prediction_mismatches:
            lines.append(f"{self.prediction_mismatches:,} times and counters differ from the prediction")
        return lines


def breakdown_text(breakdown: Mapping[str, int]) -> list[str]:
    """Lines that say where the cycles went; what took none is left out."""
    total = sum(breakdown.values())
    return ["where the cycles went:"] + [
        f"  {cycles:>15,}  {100 * cycles / total:5.1f} %  {BREAKDOWN[name]}"
        for name, cycles in breakdown.items() if cycles]
