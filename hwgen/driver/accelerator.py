"""Runs bundles on an accelerator: sentences in, labels out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from compressor.text_file import StrPath
from hwgen.build_directory import BuildError, load_plan, read_manifest
from hwgen.driver.control import Control
from hwgen.driver.device import PORTS, Buffer, Device
from hwgen.driver.errors import DriverError, InputTooLongError
from hwgen.driver.run_image import RunImage
from rtl_templates.register_map import LENGTHS

if TYPE_CHECKING:  # torch and transformers
    from hwgen.driver.sentences import SentenceHost

ALIGNMENT = 4096
"""Bytes. What buffers must be aligned to."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """What a classifier says about sentences.

    Parameters
    ----------
    logits : float64 array, shape (sentences, labels)
    names : tuple of str
        Of the labels; empty if the bundle names none.
    """

    logits: npt.NDArray[np.float64]
    names: tuple[str, ...] = ()

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Index of the largest logit, int64 array, shape (sentences,)."""
        return np.asarray(self.logits.argmax(axis=1), np.int64)

    @property
    def label_names(self) -> list[str]:
        """Name of each sentence's label, or its index as a string."""
        return [self.names[label] if self.names else str(label) for label in self.labels.tolist()]


class Accelerator:
    """An accelerator on a device; use it as a context manager, or close it.

    Parameters
    ----------
    build : path
        The directory that ``hwgen build`` wrote, or a bitstream inside of it: ``.bit`` opens a
        :class:`hwgen.driver.pynq_device.PynqDevice`, ``.xclbin`` a
        :class:`hwgen.driver.xrt_device.XrtDevice`.
    device : hwgen.driver.device.Device, optional
        Where the accelerator is; taken from the bitstream unless given. Closed with the accelerator.
    batch : int
        Most sequences of a run, 1 to 1024; input and output buffers are that large.
    timeout_s : float
        For one run, in seconds (of simulated time on a simulated device).

    Raises
    ------
    BuildError, PlanError
        If ``build`` is no build.
    WrongBitstreamError
        If the device has no accelerator, or another one than the build's.

    Examples
    --------
    ::

        with Accelerator("build/sst2/accelerator.bit") as accelerator:
            accelerator.load("pruned.pt")
            print(accelerator.predict(["a gem of a film"]).label_names)
    """

    def __init__(self, build: StrPath, device: Device | None = None, *, batch: int = 8,
                 timeout_s: float = 10.0) -> None:
        if not 1 <= batch <= LENGTHS:
            raise ValueError(f"batch must be 1 to {LENGTHS} sequences, not {batch}")
        if not timeout_s > 0:
            raise ValueError(f"timeout_s must be more than 0 s, not {timeout_s}")
        self._build, self._batch, self._timeout_s = find_build(build), batch, timeout_s
        configuration = load_plan(self._build).spec.configuration
        self._image: RunImage | None = None
        self._sentences: SentenceHost | None = None
        self._buffers: dict[str, Buffer] = {}
        self._device = device or _open_device(Path(build))
        try:
            self._control = Control(self._device)
            self._control.check_configuration(configuration, f"build {self._build}")
        except Exception:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def tokens(self) -> int:
        """Most tokens of a sequence of the bundle that is loaded."""
        return self._loaded.tokens

    def load(self, model: StrPath | None = None) -> Self:
        """Load program, weights and patterns of a bundle; what was loaded before is replaced.

        Parameters
        ----------
        model : path, optional
            A bundle, ``pruned.pt``, or a build made for this accelerator (``hwgen build --for``), which needs
            no torch; the build's own bundle unless given.

        Returns
        -------
        Accelerator
            Itself.

        Raises
        ------
        BundleError, BuildError, PlanError
            If the file or directory cannot be read, or the bundle does not fit the accelerator.
        WrongBitstreamError
            If it is a build for another accelerator.
        DriverError
            If a run is still under way.
        """
        source = self._build if model is None else Path(model)
        image = RunImage.of_build(source) if source.is_dir() else RunImage.of_bundle(source, self._build)
        self._control.check_configuration(image.configuration, str(source))
        self._control.check_idle()
        self._free()
        self._image = self._sentences = None
        contents = {"program": np.frombuffer(image.program.pack(), np.uint8), "weights": image.weights}
        sizes = {**{port: content.size for port, content in contents.items()},
                 "input": self._batch * image.strides[0], "output": self._batch * image.strides[1]}
        for port, size in sizes.items():
            self._buffers[port] = self._allocate(size, port)
        for port, content in contents.items():
            self._buffers[port].array[:content.size] = content
            self._buffers[port].flush()
        self._control.set_pool(image.pool)
        self._image = image
        return self

    def predict(self, sentences: Sequence[str] | Sequence[tuple[str, str]], *,
                truncate: bool = False) -> Predictions:
        """Classify sentences.

        Parameters
        ----------
        sentences : list of str, or of (str, str)
        truncate : bool
            Cut sentences that are too long, as in training, instead of refusing them.

        Returns
        -------
        Predictions
            Equal to those of the golden model.

        Raises
        ------
        InputTooLongError
            If a sentence has more tokens than :attr:`tokens`.
        DeviceError, RunTimeoutError
            If a run fails.
        """
        image = self._loaded
        if isinstance(sentences, str) or not len(sentences):
            raise ValueError("sentences must be a list of one or more sentences")
        if self._sentences is None:
            from hwgen.driver.sentences import SentenceHost  # torch and transformers, only now

            self._sentences = SentenceHost.of_file(image.bundle)
        x, lengths = self._sentences.inputs(sentences, image.tokens, truncate=truncate)
        hidden = self.hidden_states(x, lengths)
        return Predictions(logits=self._sentences.host.classify(hidden), names=self._sentences.labels)

    def hidden_states(self, x: npt.ArrayLike, lengths: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Run the encoder.

        Parameters
        ----------
        x : int array, shape (sequences, tokens, hidden)
            Embeddings, -127 to 127.
        lengths : int array, shape (sequences,)
            Valid tokens of each, 1 to ``tokens``.

        Returns
        -------
        int64 array, shape (sequences, tokens, hidden)
            The last hidden states; those of padding mean nothing.

        Raises
        ------
        InputTooLongError, ValueError
            If there are more tokens than :attr:`tokens`, or shapes or values are not as above.
        DeviceError, RunTimeoutError
            If a run fails.
        """
        image, x, lengths = self._loaded, np.asarray(x), np.asarray(lengths)
        _check_input(image, x, lengths)
        parts = [self._run(x[start:start + self._batch], lengths[start:start + self._batch])
                 for start in range(0, len(x), self._batch)]
        return np.concatenate(parts)[:, :x.shape[1]]

    def counters(self) -> dict[str, int]:
        """What the last run counted (cycles, busy_cycles, saturations, ...): dict of int."""
        return self._control.counters()

    def close(self) -> None:
        """Free the buffers and give the device back."""
        self._free()
        self._image = None
        self._device.close()

    @property
    def _loaded(self) -> RunImage:
        if self._image is None:
            raise DriverError("no bundle is loaded; call load() first")
        return self._image

    def _run(self, x: npt.NDArray[Any], lengths: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        image, buffers = self._loaded, self._buffers
        memory = image.pack(x)
        buffers["input"].array[:memory.size] = memory.ravel()
        buffers["input"].flush()
        self._control.set_lengths(lengths)
        self._control.run(pointers={port: buffers[port].address for port in PORTS},
                          numbers={**image.numbers, "sequences": len(x)}, timeout_s=self._timeout_s)
        buffers["output"].invalidate()
        size = len(x) * image.strides[1]
        return image.unpack(np.asarray(buffers["output"].array[:size]).reshape(len(x), -1))

    def _allocate(self, size: int, port: str) -> Buffer:
        buffer = self._device.allocate(size, port)
        if buffer.address % ALIGNMENT:
            raise DriverError(f"the device's memory for {port} is at {buffer.address:#x}; the accelerator "
                              f"needs a multiple of {ALIGNMENT} bytes")
        return buffer

    def _free(self) -> None:
        for buffer in self._buffers.values():
            buffer.free()
        self._buffers = {}


def find_build(path: StrPath) -> Path:
    """Directory of the build that ``path`` is, or lies in.

    Raises
    ------
    BuildError
        If there is none.
    """
    path = Path(path)
    for directory in (path, *path.resolve().parents):
        if read_manifest(directory) is not None:
            return directory
        if path.is_dir():
            break
    raise BuildError(f"{path} is not a build and lies in none; give the directory that `hwgen build` wrote, "
                     "or a bitstream inside of it")


def _open_device(path: Path) -> Device:
    if path.suffix == ".bit":
        from hwgen.driver.pynq_device import PynqDevice

        return PynqDevice(path)
    if path.suffix == ".xclbin":
        from hwgen.driver.xrt_device import XrtDevice

        return XrtDevice(path)
    raise ValueError(f"{path} is no bitstream (.bit, .xclbin); give one, or a device")


def _check_input(image: RunImage, x: npt.NDArray[Any], lengths: npt.NDArray[Any]) -> None:
    if x.ndim != 3 or x.shape[2] != image.hidden or not len(x) or not x.shape[1]:
        raise ValueError(f"x has shape {list(x.shape)}; (sequences, tokens, {image.hidden}) is required")
    if x.shape[1] > image.tokens:
        raise InputTooLongError(f"x has {x.shape[1]} tokens; the program on this accelerator takes "
                                f"{image.tokens}: shorten it, or build with --tokens {x.shape[1]}")
    if lengths.shape != x.shape[:1] or lengths.min() < 1 or lengths.max() > x.shape[1]:
        raise ValueError(f"lengths must be {len(x)} numbers of 1 to {x.shape[1]} tokens, not {lengths}")
    if x.dtype.kind not in "iu" or x.min() < -127 or x.max() > 127:
        raise ValueError("x must hold integers of -127 to 127")
