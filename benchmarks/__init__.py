"""Benchmarks: one file a primitive, with the peers that people use today in the same run."""
