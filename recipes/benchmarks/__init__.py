"""The parts of the benchmark: the functions that each of them times."""
