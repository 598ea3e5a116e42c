"""Fixtures of the launchers' tests."""

from launch_matrix import launch_data, reference

__all__ = ["launch_data", "reference"]
