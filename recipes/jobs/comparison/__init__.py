"""The job that trains and judges variants over seeds."""
