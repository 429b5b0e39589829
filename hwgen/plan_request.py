"""What the user fixes of an accelerator before its sizes are chosen."""

from dataclasses import dataclass

from rtl_templates.array_spec import Accumulation, PoolStorage


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """What the user fixed; None leaves the choice to the planner.

    Parameters
    ----------
    device : str
        One of hwgen.devices.DEVICES.
    rows, lanes : int
        Block units R (4R output rows at a time) and token lanes T.
    storage : PoolStorage
        Where the pattern pool is kept.
    tokens : int
        Longest sequence S.
    bus_bits : int
        Width of the memory ports.
    accumulation : Accumulation
    linear_only : bool
        Leave out the encoder units, even if the bundle has operators.
    """

    device: str | None = None
    rows: int | None = None
    lanes: int | None = None
    storage: PoolStorage | None = None
    tokens: int | None = None
    bus_bits: int | None = None
    accumulation: Accumulation | None = None
    linear_only: bool = False
