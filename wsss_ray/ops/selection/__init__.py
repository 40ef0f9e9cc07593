"""Select hidden units at random, as FickleNet does."""
