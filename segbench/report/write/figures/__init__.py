"""Figure 1 (`models`) and the look of all figures (`style`)."""
