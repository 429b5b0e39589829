"""Which pattern pool: what it keeps of a model's weights against the logic that it needs."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from compressor.blocks import POSITIONS, to_blocks
from compressor.patterns import BALANCES, candidate_patterns, retained_energy
from compressor.pools import PoolError, build_pool
from compressor.text_file import StrPath
from hwgen.model_sizes import pool_assignment
from hwgen.resource_model import mux_luts, routing_luts

SIZES = (16, 32, 64, 128)
EVALUATION_BLOCKS = 50_000
"""Blocks on which retained energy is measured; its standard error is then below 0.001."""


@dataclass(frozen=True, kw_only=True)
class PoolChoice:
    """One pool, and what speaks for and against it.

    Parameters
    ----------
    build, balance : str
    size, keep : int
        As in a recipe's ``pool``.
    retained_energy : float
        Share of the squared weights that survives when every block keeps its best pattern, 0 to 1.
    luts : float
        Modelled LUTs a multiplier, multiplexers and routing, with the pool in logic.
    id_bits : int
        Bits of a pattern id, one for every block in the weight stream.
    on_front : bool
        No other choice keeps as much for fewer LUTs and bits, or more for as many.
    """

    build: str
    balance: str
    size: int
    keep: int
    retained_energy: float
    luts: float
    id_bits: int
    on_front: bool = False

    @property
    def recipe_line(self) -> str:
        """The section of a recipe that makes this pool."""
        return f"pool: {{build: {self.build}, size: {self.size}, keep: {self.keep}, balance: {self.balance}}}"


def model_blocks(name: StrPath) -> npt.NDArray[np.float32]:
    """The 4x4 blocks of a model's encoder: float32 array, shape (n, 16).

    Parameters
    ----------
    name : str or path
        A model directory, or a name on the hub.

    Raises
    ------
    PoolError
        If it cannot be loaded, or is no encoder that the compressor knows; one line.
    """
    from transformers import AutoModel

    from compressor.reload import quiet_loading
    from compressor.targets import target_layers

    quiet_loading()
    try:
        layers = target_layers(AutoModel.from_pretrained(name))
    except (OSError, ValueError, RuntimeError) as error:
        raise PoolError(f"{name}: {' '.join(str(error).split())[:300]}") from error
    return np.concatenate([to_blocks(layer.module.weight.detach().float()).numpy()
                           for layer in layers.values()])


def pool_choices(blocks: npt.ArrayLike, *, sizes: Iterable[int] = SIZES, keep: int = 8,
                 balances: Iterable[str] = BALANCES, seed: int = 0,
                 progress: Callable[[str], None] | None = None) -> list[PoolChoice]:
    """Pools of every balance and size, with what each keeps of a model and what it costs.

    Parameters
    ----------
    blocks : float array, shape (n, 16)
        Blocks of the model's weights, see :func:`compressor.blocks.to_blocks`.
    sizes : iterable of int
        Numbers of patterns; those that a balance does not have are left out.
    keep : int
        Kept positions of 16.
    balances : iterable of str
    seed : int
        Of the blocks on which energy is measured, and of the pool builders.
    progress : callable(str), optional
        Called with the pool that is next.

    Returns
    -------
    list of PoolChoice
        By balance and size.

    Raises
    ------
    PoolError
        If no such pool exists, or there are no blocks.
    """
    blocks, sizes, balances = np.asarray(blocks), sorted(set(sizes)), list(balances)
    if blocks.ndim != 2 or blocks.shape[1] != POSITIONS or not len(blocks):
        raise PoolError(f"blocks must have shape (n, {POSITIONS}), not {blocks.shape}")
    sample = blocks[np.sort(np.random.default_rng(seed).permutation(len(blocks))[:EVALUATION_BLOCKS])]
    build = "reed_muller" if keep == POSITIONS // 2 else "greedy"
    found, problem = [], f"no balance of {', '.join(balances)}"
    for balance in balances:
        for size in sizes:
            try:
                if size > len(candidate_patterns(keep, balance)):
                    continue
                if progress:
                    progress(f"{size} patterns, balance {balance}")
                pool = build_pool(build, blocks, size=size, keep=keep, balance=balance, seed=seed)
            except ValueError as error:
                problem = str(error)
                continue
            assignment = pool_assignment(pool)
            found.append(PoolChoice(
                build=build, balance=balance, size=size, keep=keep,
                retained_energy=retained_energy(pool.patterns, sample),
                luts=(mux_luts(assignment) + routing_luts(assignment)) / assignment.multipliers,
                id_bits=max(1, (size - 1).bit_length())))
    if not found:
        raise PoolError(f"no pool of {', '.join(map(str, sizes))} patterns: {problem}")
    return [replace(choice, on_front=not any(_dominates(other, choice) for other in found))
            for choice in found]


def _dominates(other: PoolChoice, choice: PoolChoice) -> bool:
    better = (other.retained_energy - choice.retained_energy, choice.luts - other.luts,
              choice.id_bits - other.id_bits)
    return min(better) >= 0 and max(better) > 0


def choice_lines(choices: Iterable[PoolChoice]) -> Iterator[str]:
    """The choices as text, line by line."""
    yield f"{'balance':8s} {'patterns':>8s} {'kept':>8s} {'LUT':>6s} {'id bits':>8s}   in a recipe"
    for choice in choices:
        mark = "*" if choice.on_front else " "
        yield (f"{choice.balance:8s} {choice.size:8d} {100 * choice.retained_energy:6.2f} % "
               f"{choice.luts:6.1f} {choice.id_bits:8d} {mark} {choice.recipe_line}")
    yield ""
    yield ("kept: share of the squared weights (counted); LUT: multiplexers and routing a multiplier, pool "
           "in logic (modelled)")
    yield "*: no other pool keeps as much for fewer LUTs and bits, or more for as many"
