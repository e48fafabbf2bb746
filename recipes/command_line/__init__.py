"""From a command line to a run: parser, entry, output folder, console, W&B."""
