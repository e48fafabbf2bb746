"""How a run is kept on disk: files that appear whole, units of work, folders, provenance."""
