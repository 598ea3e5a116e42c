"""Pictures of an analysis, one module each; `collect.figure_files` draws them."""
