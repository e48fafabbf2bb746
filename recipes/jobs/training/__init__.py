"""The job that trains by GRPO."""
