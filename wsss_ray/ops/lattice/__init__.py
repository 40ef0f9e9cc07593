"""The permutohedral lattice, and the dense CRF on it."""
