"""What can go wrong with the local cluster, in words for the person who started it."""


class DevclusterError(Exception):
    """The local cluster or one of its tools cannot be had; the text says what to do."""


class ToolMissing(DevclusterError):
    """A program is neither on this machine nor to be had for its platform."""


class StartFailed(DevclusterError):
    """A part of the cluster ended or did not answer in time; the end of its log is in the text."""
