"""What tests of several pages need."""

from __future__ import annotations

from html.parser import HTMLParser


class Tags(HTMLParser):
    """Refuses a tag that is closed without having been opened, or left open."""

    void = frozenset({"meta", "br", "link", "img", "hr", "input"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
