"""Generator: turns a bundle into Verilog, a program, a weight image and reports."""
