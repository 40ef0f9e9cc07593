"""What is shipped to a cluster and rendered for one. No Ray."""
