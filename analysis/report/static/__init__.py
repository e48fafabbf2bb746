"""The template, the stylesheet and the script of the HTML report, read with `importlib.resources`."""
