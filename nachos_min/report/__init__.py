"""What people look at: the result and the progress of a search, the count of a network."""
