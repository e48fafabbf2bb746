"""Looking at a policy in training without leaving a trace: its responses, its held-out score."""
