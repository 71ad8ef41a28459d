"""The file of a batch, read as it comes: JSON Lines, each as OpenAI's batches have them. Does no I/O."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from command_api.message_body import Text
from event_schemas.batches import BatchLineContent

ENDPOINT = "/v1/chat/completions"
_MOST_PROBLEMS = 10


class UnusableFile(ValueError):
    """``problems`` are the first few: the line, from 1, and what is wrong with it; line 0 is the file as a whole."""

    def __init__(self, problems: list[tuple[int, str]]) -> None:
        super().__init__(f"{len(problems)} problems")
        self.problems = problems


class FileLine(NamedTuple):
    number: int
    content: BatchLineContent


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid")

    custom_id: Annotated[Text, Field(min_length=1, max_length=512)]
    method: Literal["POST"]
    url: Literal["/v1/chat/completions"]
    body: dict[str, Any]


class BatchFile:
    """Gives lines as long as there is nothing wrong; then it looks for more that is, until it has some."""

    def __init__(self, most_lines: int, most_line_bytes: int) -> None:
        self._most_lines = most_lines
        self._most_line_bytes = most_line_bytes
        self._rest = b""
        self._number = 0
        self._custom_ids: dict[str, int] = {}
        self._problems: list[tuple[int, str]] = []

    @property
    def total(self) -> int:
        return len(self._custom_ids)

    def feed(self, chunk: bytes) -> list[FileLine]:
        """Those that are whole now. Raises UnusableFile."""
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        found = [line for raw in whole for line in self._read(raw)]
        if len(self._rest) > self._most_line_bytes:
            self._number += 1
            self._wrong(self._too_long())
            raise UnusableFile(self._problems)
        return [] if self._problems else found

    def end(self) -> list[FileLine]:
        """What is left when nothing more comes. Raises UnusableFile."""
        found = list(self._read(self._rest))
        if not self._custom_ids and not self._problems:
            self._problems.append((0, "The file has no line."))
        if self._problems:
            raise UnusableFile(self._problems)
        return found

    def _read(self, raw: bytes) -> Iterator[FileLine]:
        self._number += 1
        if not raw.strip():
            return
        if len(raw) > self._most_line_bytes:
            return self._wrong(self._too_long())
        try:
            line = _Line.model_validate(orjson.loads(raw))
        except orjson.JSONDecodeError as error:
            return self._wrong(f"is not JSON: {error.msg} at character {error.pos}")
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "the line"
            return self._wrong(f"{where}: {first['msg'].removeprefix('Value error, ')}")
        if line.custom_id in self._custom_ids:
            return self._wrong(f"custom_id: is that of line {self._custom_ids[line.custom_id]}, too")
        if len(self._custom_ids) == self._most_lines:
            self._problems.append((0, f"The file has over {self._most_lines} lines, which is the limit."))
            raise UnusableFile(self._problems)
        self._custom_ids[line.custom_id] = self._number
        content = BatchLineContent(custom_id=line.custom_id, body=orjson.dumps(line.body).decode())
        yield FileLine(self._number, content)

    def _wrong(self, what: str) -> None:
        self._problems.append((self._number, what))
        if len(self._problems) == _MOST_PROBLEMS:
            raise UnusableFile(self._problems)

    def _too_long(self) -> str:
        return f"has over {self._most_line_bytes} bytes, which is the limit"
