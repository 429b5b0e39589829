"""Files for vendors' and open FPGA flows: registers, IP packages, constraints, wrappers."""
