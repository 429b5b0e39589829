"""Generator: turns a bundle into Verilog, a program, a weight image and reports.

What a user calls from Python is here; names load when they are used, so that ``import hwgen`` is light.
"""

from typing import TYPE_CHECKING

from compressor.lazy_names import lazy_names

if TYPE_CHECKING:
    from hwgen.api import build, cost_table, inspect, place, pools, synthesize
    from hwgen.build_directory import BuildError, load_plan, verify_build
    from hwgen.devices import DEVICES
    from hwgen.doctor import examine
    from hwgen.plan import PlanError
    from hwgen.report.refresh import refresh_report
    from hwgen.search_api import explore, explore_variants, fit
    from hwgen.toolchain import ToolError

__all__ = [
    "DEVICES",
    "BuildError",
    "PlanError",
    "ToolError",
    "build",
    "cost_table",
    "examine",
    "explore",
    "explore_variants",
    "fit",
    "inspect",
    "load_plan",
    "place",
    "pools",
    "refresh_report",
    "synthesize",
    "verify_build",
]

__getattr__, __dir__ = lazy_names(__name__, {
    **dict.fromkeys(("build", "cost_table", "inspect", "place", "pools", "synthesize"), "hwgen.api"),
    **dict.fromkeys(("explore", "explore_variants", "fit"), "hwgen.search_api"),
    **dict.fromkeys(("BuildError", "load_plan", "verify_build"), "hwgen.build_directory"),
    "DEVICES": "hwgen.devices",
    "examine": "hwgen.doctor",
    "PlanError": "hwgen.plan",
    "refresh_report": "hwgen.report.refresh",
    "ToolError": "hwgen.toolchain",
})
