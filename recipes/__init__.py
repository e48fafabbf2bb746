"""The scripts that are launched, and what they are made of; recipes/README.md lists them."""
