"""The one name of FastAPI that a custom authentication imports, with what it looks at."""

from dataclasses import dataclass


@dataclass
class URL:
    path: str


@dataclass
class Request:
    method: str
    url: URL
    content: bytes

    async def body(self) -> bytes:
        return self.content
