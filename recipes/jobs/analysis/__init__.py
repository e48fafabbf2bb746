"""Jobs that look at trained models: shift, cross-sampling, evaluation."""
