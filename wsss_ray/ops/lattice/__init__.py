"""Filter with Gaussians on the permutohedral lattice, and run the dense CRF on it."""
