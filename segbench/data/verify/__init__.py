"""What is wrong with a dataset: facts of its files (`gather`), judgements on them, and the report (`api`)."""
