"""Weights that others have released: their files and their names of parameters."""
