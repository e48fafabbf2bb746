"""The errors that stop a training."""


class NonFiniteUpdateError(ValueError):
    """An update would have put numbers into the parameters that are not finite."""


class LostProcessError(RuntimeError):
    """Another process of the run has ended, or does not answer; the message is one line."""
