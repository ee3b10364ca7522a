"""Text for a terminal."""


def printable(text: str, keep: str = "") -> str:
    """Return a text whose control characters, line ends and lone surrogates are escapes, as in `\\n`.

    Names of files may hold any of them, and a terminal would obey. Characters of `keep` stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() or one in keep else one.encode("unicode_escape").decode("ascii")
        for one in text
    )
