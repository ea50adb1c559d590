"""The two ways a run can go wrong that are the user's to mend; each carries one clear sentence."""


class UsageError(ValueError):
    """The command asks for something that cannot be done: the run ends with exit code 2."""


class ClipError(ValueError):
    """One video cannot be used: it is reported by name and the run goes on."""
