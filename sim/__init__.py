"""Simulation of generated accelerators against the golden model, word for word.

What a user calls from Python is here; names load when they are used, so that ``import sim`` is light.
"""

from typing import TYPE_CHECKING

from compressor.lazy_names import lazy_names

if TYPE_CHECKING:
    from sim.api import confirm, evaluate, simulate, simulate_hls
    from sim.evaluation import EvaluationResult
    from sim.harness import SimulationError
    from sim.hls_run import HlsResult
    from sim.results import SimulationResult
    from sim.simulated_device import SimulatedDevice

__all__ = [
    "EvaluationResult",
    "HlsResult",
    "SimulatedDevice",
    "SimulationError",
    "SimulationResult",
    "confirm",
    "evaluate",
    "simulate",
    "simulate_hls",
]

__getattr__, __dir__ = lazy_names(__name__, {
    **dict.fromkeys(("confirm", "evaluate", "simulate", "simulate_hls"), "sim.api"),
    "EvaluationResult": "sim.evaluation",
    "SimulationError": "sim.harness",
    "HlsResult": "sim.hls_run",
    "SimulationResult": "sim.results",
    "SimulatedDevice": "sim.simulated_device",
})
