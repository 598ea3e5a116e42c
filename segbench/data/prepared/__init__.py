"""Prepared cases: the recipe, the work on one case and on all, the cache on disk and its removal."""
