"""What is put before a prompt's question: pages, feeds, texts."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class SourceSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    allow_private: bool = Field(
        default=False, description="pages may have http:// URLs and private addresses; for development only"
    )
    user_agent: str = Field(
        default="Parley/1",
        pattern=r"^[\w.-]+(/[\x20-\x7e]*)?$",
        description="what pages are asked with; robots.txt knows it by what stands before the first slash",
    )
    deadline_s: float = Field(default=20.0, gt=0, description="longest time that all sources of a prompt take")
    page_bytes: int = Field(default=5_000_000, ge=1024, description="largest page, unpacked")
    characters: int = Field(default=12_000, ge=200, description="most of one source that goes into a prompt")
    all_characters: int = Field(
        default=40_000,
        ge=200,
        description="most of all of them; where the pool's context window is known, half of it at most",
    )
    fresh_s: float = Field(default=600.0, ge=0, description="longest time that a page is not asked for again")
