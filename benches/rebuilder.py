"""One `parley rebuild`, timed from within: `python -m benches.rebuilder`, so that loading Python is not in it."""

from __future__ import annotations

import asyncio
import sys
import time

from pydantic import BaseModel, ConfigDict, Field

from backplane.settings import Settings
from benches.processes import peak_rss
from cli import rebuilding


class RebuildOrder(BaseModel):
    model_config = ConfigDict(frozen=True)

    model: str = Field(description="a read model, or `all`")
    check: bool

    @property
    def name(self) -> str:
        return f"{self.model} --check" if self.check else self.model


class Rebuilding(BaseModel):
    """Said last; what the command prints comes before it."""

    model_config = ConfigDict(frozen=True)

    seconds: float
    exit_code: int
    peak_rss: int = Field(description="bytes, the most of this process")


def main() -> None:
    order = RebuildOrder.model_validate_json(sys.stdin.readline())
    settings = Settings()
    began = time.monotonic()
    exit_code = asyncio.run(rebuilding.run(settings, order.model, check=order.check))
    said = Rebuilding(seconds=time.monotonic() - began, exit_code=exit_code, peak_rss=peak_rss())
    print(said.model_dump_json(), flush=True)


if __name__ == "__main__":
    main()
