"""The text of an uploaded document. What kind it is, its bytes say, never its name.

UnreadableDocument   ``reason`` is stable, the message is for people and quotes nothing of the document
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["text", "markdown", "html", "pdf", "docx"]

MOST_CHARACTERS = 20_000_000
_MOST_UNPACKED_BYTES = 200 * 1024 * 1024
_MOST_FILES = 5000
_MOST_PAGES = 5000

_HTML = re.compile(
    r"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL
)
_MARKDOWN = re.compile(r"^(#{1,6} \S|```|[-*] \S|\|.+\|$|\[[^\]]+\]\([^)]+\))", re.MULTILINE)
_HEADING_STYLE = re.compile(r"heading ([1-6])$", re.IGNORECASE)


class UnreadableDocument(ValueError):
    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def kind_of(raw: bytes) -> Kind:
    """Raises UnreadableDocument: ``unknown_kind``, ``empty``."""
    if not raw.strip():
        raise UnreadableDocument("empty", "the document is empty")
    if b"%PDF-" in raw[:1024]:
        return "pdf"
    if raw.startswith(b"PK\x03\x04"):
        return _kind_of_archive(raw)
    text = decoded(raw)
    if _HTML.match(text[:4096]):
        return "html"
    return "markdown" if _MARKDOWN.search(text[:65_536]) else "text"


def text_of(raw: bytes, kind: Kind) -> str:
    """All of its text; headings of HTML and DOCX are marked as Markdown marks them. Blocks, and may take long.

    Raises UnreadableDocument: ``damaged``, ``encrypted``, ``too_large``, ``unknown_kind``, ``no_text``.
    """
    match kind:
        case "pdf":
            text = _of_pdf(raw)
        case "docx":
            text = _of_docx(raw)
        case "html":
            from workers.knowledge.html_text import text_of_html

            text = text_of_html(decoded(raw))
        case _:
            text = decoded(raw)
    if len(text) > MOST_CHARACTERS:
        raise UnreadableDocument("too_large", f"its text has over {MOST_CHARACTERS} characters, the limit")
    # Postgres stores no NUL.
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", " ")
    if not text.strip():
        raise UnreadableDocument("no_text", "there is no text in it; a scan has to go through text recognition first")
    return text


def decoded(raw: bytes) -> str:
    """UTF-8, or UTF-16 where it begins with its mark. Raises UnreadableDocument."""
    try:
        text = raw.decode("utf-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
    except UnicodeDecodeError:
        raise UnreadableDocument(
            "unknown_kind", "it is neither PDF nor DOCX, nor text in UTF-8; save it as one of these"
        ) from None
    if "\0" in text[:4096]:
        raise UnreadableDocument("unknown_kind", "it is neither PDF nor DOCX nor text")
    return text


def _kind_of_archive(raw: bytes) -> Kind:
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            if "word/document.xml" in archive.namelist():
                return "docx"
    except (zipfile.BadZipFile, ValueError):
        raise UnreadableDocument("damaged", "it begins as a DOCX does and is cut short or damaged") from None
    raise UnreadableDocument("unknown_kind", "it is an archive that is no DOCX; upload what is in it one by one")


def _of_pdf(raw: bytes) -> str:
    import pypdf
    from pypdf.errors import PyPdfError

    try:
        reader = pypdf.PdfReader(io.BytesIO(raw))
        if reader.is_encrypted and not reader.decrypt(""):
            raise UnreadableDocument("encrypted", "the PDF wants a password; upload it without one")
        if len(reader.pages) > _MOST_PAGES:
            raise UnreadableDocument("too_large", f"the PDF has over {_MOST_PAGES} pages, the limit")
        return "\n\n".join(page.extract_text() for page in reader.pages)
    except UnreadableDocument:
        raise
    except PyPdfError as error:
        raise UnreadableDocument("damaged", f"the PDF cannot be read ({type(error).__name__})") from None
    except Exception as error:
        # What it raises of a broken file is anything at all.
        raise UnreadableDocument("damaged", f"the PDF cannot be read ({type(error).__name__})") from None


def _of_docx(raw: bytes) -> str:
    check_archive(raw)
    import docx

    try:
        document = docx.Document(io.BytesIO(raw))
        return "\n\n".join(_block(each) for each in document.iter_inner_content())
    except Exception as error:
        raise UnreadableDocument("damaged", f"the DOCX cannot be read ({type(error).__name__})") from None


def check_archive(raw: bytes) -> None:
    """Read an archive through without keeping it: what it says of its sizes may be a lie. Raises
    UnreadableDocument."""
    left = _MOST_UNPACKED_BYTES
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            files = archive.infolist()
            if len(files) > _MOST_FILES:
                raise UnreadableDocument("too_large", f"there are over {_MOST_FILES} files in the DOCX")
            for file in files:
                with archive.open(file) as unpacked:
                    while block := unpacked.read(1 << 20):
                        left -= len(block)
                        if left < 0:
                            raise UnreadableDocument(
                                "too_large", f"the DOCX is over {_MOST_UNPACKED_BYTES} bytes when it is unpacked"
                            )
    except UnreadableDocument:
        raise
    except (zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError, RuntimeError):
        raise UnreadableDocument("damaged", "the DOCX is cut short or damaged") from None


def _block(block: object) -> str:
    rows = getattr(block, "rows", None)
    if rows is not None:
        return "\n".join(" | ".join(cell.text.strip() for cell in row.cells) for row in rows)
    text: str = block.text  # type: ignore[attr-defined]
    style = getattr(getattr(block, "style", None), "name", None) or ""
    heading = _HEADING_STYLE.match(style)
    return f"{'#' * int(heading[1])} {text}" if heading and text.strip() else text
