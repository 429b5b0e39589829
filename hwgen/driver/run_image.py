"""What memory holds to run a bundle on an accelerator, and where inputs and outputs lie in it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from compressor.text_file import StrPath
from hwgen.build_directory import BuildError, digest, load_plan, read_manifest, verify_build
from hwgen.encoder_memory import input_memory, output_states, strides
from hwgen.encoder_program import EncoderProgram, encoder_program
from hwgen.plan import Plan


@dataclass(frozen=True, kw_only=True, eq=False)
class RunImage:
    """Program, weight stream and patterns of a bundle for one accelerator.

    Parameters
    ----------
    configuration : int
        Of the accelerator: what register ``configuration`` reads there.
    program : hwgen.encoder_program.EncoderProgram
    lanes, bus_bits : int
        Of the accelerator.
    weights : uint8 array
        The weight stream.
    pool : uint32 array
        Words of the pattern memory; empty if the patterns are in the logic.
    bundle : Path
        The bundle that it was made from.
    """

    configuration: int
    program: EncoderProgram
    lanes: int
    bus_bits: int
    weights: npt.NDArray[np.uint8]
    pool: npt.NDArray[np.uint32]
    bundle: Path

    @classmethod
    def of_build(cls, directory: StrPath) -> Self:
        """What a build holds, checked against its manifest.

        Raises
        ------
        BuildError, PlanError
            If the directory is no build, is damaged, or runs linear layers alone.
        """
        directory = Path(directory)
        verify_build(directory)
        plan = load_plan(directory)
        stored = directory / "weights" / "pool.bin"
        return cls._of(plan, np.memmap(directory / "weights" / "weights.bin", np.uint8, mode="r"),
                       np.fromfile(stored, "<u4") if stored.exists() else np.zeros(0, np.uint32),
                       directory / "bundle.pt")

    @classmethod
    def of_bundle(cls, bundle: StrPath, directory: StrPath) -> Self:
        """What a bundle needs on the accelerator of a build: the build's own files if it is its bundle.

        Otherwise program and weight stream are made here, which needs torch.

        Raises
        ------
        BundleError, BuildError, PlanError
            If one of the two cannot be read, or the bundle does not fit the accelerator.
        """
        bundle, directory = Path(bundle), Path(directory)
        manifest = read_manifest(directory)
        if manifest is not None and bundle.is_file() and manifest["files"]["bundle.pt"] == digest(bundle):
            return cls.of_build(directory)
        from compressor.bundle import load_bundle
        from hwgen.encoder_stream import encoder_packets
        from hwgen.fitting import fit_plan
        from hwgen.memory_image import pattern_memory
        from rtl_templates.array_spec import PoolStorage

        built, loaded = load_plan(directory), load_bundle(bundle)
        plan = fit_plan(loaded, built)
        weights = np.concatenate([packet for _, packet in encoder_packets(loaded, plan)])
        in_memory = plan.spec.array.storage is PoolStorage.RAM
        pool = pattern_memory(plan.spec.array) if in_memory else np.zeros(0, np.uint32)
        return cls._of(plan, weights, pool, bundle)

    @classmethod
    def _of(cls, plan: Plan, weights: npt.NDArray[np.uint8], pool: npt.NDArray[np.uint32],
            bundle: Path) -> Self:
        if weights.size * 8 % plan.spec.bus_bits:
            raise BuildError(f"the weight stream has {weights.size} bytes, no whole beats of "
                             f"{plan.spec.bus_bits} bits: build again")
        return cls(configuration=plan.spec.configuration, program=encoder_program(plan),
                   lanes=plan.spec.array.lanes, bus_bits=plan.spec.bus_bits, weights=weights, pool=pool,
                   bundle=bundle)

    @property
    def tokens(self) -> int:
        """Tokens of a sequence; shorter ones are padded and have a shorter valid length."""
        return self.program.tokens

    @property
    def hidden(self) -> int:
        """Channels of the hidden states."""
        return self.program.inputs[0].channels

    @property
    def strides(self) -> tuple[int, int]:
        """Bytes from a sequence's input to the next one's, and from a sequence's output to the next one's."""
        return strides(self.program)

    @property
    def numbers(self) -> dict[str, int]:
        """Values of the registers that are equal in every run: dict of int by name."""
        return {"program_length": len(self.program.descriptors),
                "weights_beats": self.weights.size * 8 // self.bus_bits,
                "input_stride": self.strides[0], "output_stride": self.strides[1]}

    def pack(self, x: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Input memory of sequences, see :func:`hwgen.encoder_memory.input_memory`."""
        return input_memory(self.program, x, self.lanes)

    def unpack(self, memory: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        """Hidden states in output memory, see :func:`hwgen.encoder_memory.output_states`."""
        return output_states(self.program, memory, self.lanes)
