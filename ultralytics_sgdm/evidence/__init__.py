"""Instruments that measure what a module brings and costs: paired trainings, benchmarks, robustness, pictures."""
