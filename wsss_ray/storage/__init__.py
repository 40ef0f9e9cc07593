"""Files of the store, and nothing of what is in them."""
