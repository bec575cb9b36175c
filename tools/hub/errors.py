"""What goes wrong when the Hub is started."""


class HubError(RuntimeError):
    """A Hub that cannot be had; the text says what to do."""
