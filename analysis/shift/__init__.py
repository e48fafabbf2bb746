"""Which token distributions RL moved, and into what: numbers, figures and the report."""
