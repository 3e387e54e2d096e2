"""A package, because tests/models has files of the same names."""
