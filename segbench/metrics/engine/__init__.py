"""Counts and surface distances of regions, by one of two engines that give the same bits."""
