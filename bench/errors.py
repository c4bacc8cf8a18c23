"""What a user can mend: errors the command line prints as one line, without a traceback."""


class BenchError(ValueError):
    """A problem the user can mend; its message says what is wrong and what to do, in one or two lines."""


class MissingData(BenchError):
    """A dataset, split file or prompt file is not where it is looked for; cells that need it are blocked."""


class MissingWeights(BenchError):
    """The backbone's weights are not on this machine; the message names the command that gets them."""


class UnsuitableImage(BenchError):
    """An image that is whole and cannot be used as it is: too large, or of values without a known white."""


class UnreadableImage(BenchError):
    """An image of a dataset is absent, damaged or no image. ``path``: as the dataset lists it."""

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.path = path
