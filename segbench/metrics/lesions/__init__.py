"""Lesion-wise scores beside those of BraTS 2023: matched one to one, and HD95 over surface area."""
