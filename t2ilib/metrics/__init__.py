"""Measuring text-to-image systems: one metric per file, every result with its protocol."""
