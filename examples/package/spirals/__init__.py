"""Two spirals, told apart by a small network."""
