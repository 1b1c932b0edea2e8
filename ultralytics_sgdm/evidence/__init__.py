"""Evaluation tools: paired trainings, benchmarks, robustness to noise, figures of the dynamic weights."""
