"""A whole page inside a notebook's output."""

from dataclasses import dataclass

from markupsafe import Markup


@dataclass(frozen=True)
class EmbeddedPage:
    """A page that a notebook shows in a frame of its own, which can run scripts and save files, and nothing else.

    Attributes:
        page: The page's HTML, which needs no other file.
        name: What the page is.
        height: Height of the frame, pixels.
    """

    page: str
    name: str
    height: int = 800

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.name}>"

    def _repr_html_(self) -> str:
        return str(
            Markup(
                '<iframe title="{}" srcdoc="{}" sandbox="allow-scripts allow-downloads" '
                'style="width:100%;height:{}px;border:0"></iframe>'
            ).format(self.name, self.page, self.height)
        )
