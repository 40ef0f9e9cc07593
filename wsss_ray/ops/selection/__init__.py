"""FickleNet's stochastic selection."""
