"""Pure functions of tensors and arrays: no files, no state, no Ray."""
