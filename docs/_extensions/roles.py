"""Show Sphinx roles in docstrings as plain code: mkdocstrings reads Markdown, where they mean nothing."""

import re

import griffe

_ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|exc|obj):`~?([^`]+)`")
_STANDARD = re.compile(r":(rfc|pep):`(\d+)`")


def plain(text: str) -> str:
    """Return `text` with roles replaced by code marks, and standards by their names."""
    return _STANDARD.sub(lambda found: f"{found[1].upper()} {found[2]}", _ROLE.sub(r"`\1`", text))


class PlainRoles(griffe.Extension):
    """Rewrites every docstring of the package once it is loaded."""

    def on_instance(self, *, obj: griffe.Object, **_: object) -> None:
        """Rewrite one object's docstring."""
        if obj.docstring is not None:
            obj.docstring.value = plain(obj.docstring.value)
