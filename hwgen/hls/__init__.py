"""HLS C++ of a plan: the twin of the Verilog, from the same plan, weight image and golden model."""
