"""Numbers that are not finite: refused in a config, and stopped before an update puts them into the parameters."""
