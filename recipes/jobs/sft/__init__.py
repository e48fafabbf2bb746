"""The job that trains the SFT control."""
