"""The errors that stop a training."""


class NonFiniteUpdateError(ValueError):
    """An update would have put numbers into the parameters that are not finite."""
