"""Tells what a run will need, computed from configs before anything is loaded: memory by part and phase."""
