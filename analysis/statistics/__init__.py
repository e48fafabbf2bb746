"""Statistics in numpy: bootstrap by problem, pooled means, paired and crossed comparisons."""
