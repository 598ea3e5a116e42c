"""Runs as the report reads them: `runs` finds and checks them, `rows` holds their scores."""
