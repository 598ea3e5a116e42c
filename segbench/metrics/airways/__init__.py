"""Airway trees: skeletons, branches, and the scores of AIIB 2023 and ATM 2022."""
