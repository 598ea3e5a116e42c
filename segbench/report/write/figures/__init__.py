"""The figures of a report: one file per kind of figure, drawn from an `Analysis`, bytes repeatable."""

from segbench.report.figures.collect import Drawn, draw_figures

__all__ = ["Drawn", "draw_figures"]
