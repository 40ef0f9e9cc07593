"""Hold parts that several papers share. No module here defines a method."""
