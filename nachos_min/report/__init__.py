"""What people look at: `table.py` for the result of a search, `progress.py` while it runs."""
