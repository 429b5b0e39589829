"""One program with its memories and golden outputs, as a file that a cocotb bench reads."""

import json
from dataclasses import asdict, dataclass, field

import numpy as np

from compressor.text_file import whole_file

_ARRAYS = ("program", "weights", "input", "pool", "lengths")


@dataclass(frozen=True, kw_only=True, eq=False)
class BenchCase:
    """What a bench runs and expects.

    Parameters
    ----------
    program, weights, input, pool : uint8 arrays
        Descriptors, weight stream, input memory, and words of the pattern memory (empty: ROM).
    weights_beats : int
    lanes : int
        Token lanes T.
    max_cycles : int
        Clock cycles after which a run is given up.
    configuration : int
        Expected value of register ``configuration``.
    outputs : dict of str to (int, int8 array of shape (tokens, rows))
        Byte offset in output memory and golden output of each layer.
    lengths : uint32 array
        Valid lengths, one a sequence; empty without an encoder.
    sequences, input_stride, output_stride : int
        As in :class:`sim.harness.RunRequest`.
    """

    program: np.ndarray
    weights: np.ndarray
    input: np.ndarray
    pool: np.ndarray
    weights_beats: int
    lanes: int
    max_cycles: int
    configuration: int
    outputs: dict[str, tuple[int, np.ndarray]]
    lengths: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint32))
    sequences: int = 1
    input_stride: int = 0
    output_stride: int = 0

    @property
    def output_bytes(self):
        """Size of output memory: up to the end of the last output, in whole 4 KB."""
        ends = [offset + -(-len(y) // self.lanes) * self.lanes * y.shape[1]
                for offset, y in self.outputs.values()]
        return -(-max(ends) // 4096) * 4096

    def save(self, path):
        """Write the case (aside, then renamed)."""
        values = asdict(self)
        arrays = {key: values.pop(key) for key in _ARRAYS}
        outputs = values.pop("outputs")
        values["outputs"] = [(name, offset) for name, (offset, _) in outputs.items()]
        arrays["values"] = np.frombuffer(json.dumps(values).encode(), np.uint8)
        arrays |= {f"output_{index}": y for index, (_, y) in enumerate(outputs.values())}
        with whole_file(path) as aside, aside.open("wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path):
        """Inverse of :meth:`save`."""
        with np.load(path, allow_pickle=False) as file:
            values = json.loads(file["values"].tobytes())
            values["outputs"] = {name: (offset, file[f"output_{index}"])
                                 for index, (name, offset) in enumerate(values["outputs"])}
            return cls(**values, **{key: file[key] for key in _ARRAYS})
