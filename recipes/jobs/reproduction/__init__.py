"""The job that runs every part of a reproduction and sets its numbers beside the publication's."""
