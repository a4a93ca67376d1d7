"""The wing that creates tasks, and never pays twice."""
