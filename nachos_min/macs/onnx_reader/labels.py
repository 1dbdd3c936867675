"""Names from a file as messages and tables show them: one short line, whatever the file says.

Read nothing before this. A name in an ONNX file may hold line breaks, terminal codes or a megabyte of text.
"""

_NAME = 60  # characters of a name: enough for the dotted paths that exporters write
_LINE = 400  # characters of a message: two shapes of 64 axes would be longer


def label(text: str) -> str:
    """Return a name without control characters, cut in the middle if it is long.

    >>> label("block\\n1")
    'block?1'
    """
    if len(text) > _NAME:
        text = f"{text[: _NAME // 2]}...{text[-_NAME // 2 + 3 :]}"
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def quoted(text: str) -> str:
    """Return a name as a message quotes it."""
    return f"'{label(text)}'"


def shortened(message: str) -> str:
    """Return a message, cut if its values make it long."""
    return message if len(message) <= _LINE else f"{message[:_LINE]}..."
