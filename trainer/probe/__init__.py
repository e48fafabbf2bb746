"""The probe that compares a policy in training with its base: callback, files, views."""
