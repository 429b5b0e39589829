"""Proofs by SAT: small harnesses around components, one file per proof, run by Yosys."""
