"""Models, tables and launched processes that several tests share."""
