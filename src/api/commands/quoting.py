"""Text of others, shown so that it steers no terminal."""


def harmless(line: str) -> str:
    """Give a line without what a terminal would take for more than text."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line.expandtabs())


def indented(text: str, margin: int) -> str:
    """Give the lines of a text, each harmless, with a margin of so many spaces."""
    return "\n".join(f"{' ' * margin}{harmless(line)}" for line in text.splitlines())
