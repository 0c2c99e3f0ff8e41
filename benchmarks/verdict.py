"""What a measurement that went wrong says: no figure is worth anything then."""


class WrongResult(Exception):
    """The service, or a rival, was fast and wrong, or did not finish."""


def require(condition: bool, otherwise: str) -> None:
    """Raise WrongResult unless the condition holds."""
    if not condition:
        raise WrongResult(otherwise)
