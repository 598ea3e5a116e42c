"""From label maps to rows: one path, used by the evaluate stage of a run and by `segbench evaluate`."""
