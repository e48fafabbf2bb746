"""A folder for each kind of script: its arguments, its preparation, and its output."""
