"""Training patches: which are drawn, how they are read from the cache, and how they are augmented."""
