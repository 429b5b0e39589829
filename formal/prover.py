"""Runs Yosys' SAT solver on a harness: an Amaranth component with assertions and assumptions."""

import re
import tempfile
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from amaranth.back import rtlil

from hwgen.toolchain import ToolError, run_tool

PREPARE = ("read_rtlil top.il; hierarchy -top top; proc; flatten; opt_clean; memory -nordff; opt; "
           "async2sync; chformal -lower; opt")


class ProofError(AssertionError):
    """An assertion can fail, or the induction is too short; ends with the last lines of Yosys."""


class Method(StrEnum):
    """For how long a proof holds."""

    INDUCTION = "induction"
    """For any time: nothing fails in the first ``cycles`` cycles, nor after as many without a failure."""
    BOUND = "bound"
    """In the first ``cycles`` cycles."""


@dataclass(frozen=True, kw_only=True)
class Proof:
    """One proof.

    Parameters
    ----------
    claim : str
        What is proven, as one line of a table.
    harness : callable
        Makes the harness: a component whose inputs are free but for its assumptions. Its argument, if
        any, is the component under proof, by default the one of :mod:`rtl_templates`.
    method : Method
    cycles : int
        Length of the induction, or the bound; from the initial values on, without reset.
    slow : bool
        Takes more than a few seconds.
    """

    claim: str
    harness: type
    method: Method
    cycles: int
    slow: bool = False

    def run(self, *component):
        """Prove it, or raise.

        Raises
        ------
        ProofError
            If an assertion can fail, or the induction needs more cycles.
        ToolError
            If Yosys is missing or fails.
        """
        mode = f"-tempinduct -maxsteps {self.cycles}"
        if self.method is Method.BOUND:
            mode += " -tempinduct-baseonly"
        with tempfile.TemporaryDirectory() as directory:
            text = rtlil.convert(self.harness(*component), name="top", emit_src=False)
            Path(directory, "top.il").write_text(text)
            reset = "-set rst 0" if re.search(r"^\s*wire .*\binput \d+\s+\\rst$", text, re.MULTILINE) else ""
            solve = f"sat {mode} -prove-asserts -set-assumes {reset} -verify"
            try:
                run_tool("yosys", ["-q", "-p", f"{PREPARE}; {solve}"], cwd=directory)
            except ToolError as error:
                if "proof did fail" in str(error):
                    raise ProofError(f"{self.claim}: {error}") from None
                raise
