"""Numbers as bars of text."""

VERSION = "1.0"


def draw(numbers: dict[str, float]) -> str:
    """One line for each number, as long as the number is large."""
    return "\n".join(f"{name} {'#' * round(10 * number)} {number:.2f}" for name, number in numbers.items())
