"""`segbench doctor`: what is here, and proofs that it works."""
