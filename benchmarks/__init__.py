"""Benchmarks: one file a primitive, what people use today beside it in the same run."""
