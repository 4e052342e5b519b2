"""From a text to sentences, and from sentences to padded batches of tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .errors import CommandError

Array = np.ndarray[Any, Any]

# Markdown that holds no sentences: fenced code, comments. The cells of a table are paragraphs.
_NOT_PROSE = re.compile(r"^(```|~~~).*?^\1|<!--.*?-->", re.DOTALL | re.MULTILINE)
_TABLE_ROW = re.compile(r"^\s*\|.*$", re.MULTILINE)
_WORD = re.compile(r"[^\W\d_]{2,}")
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
# A paragraph ends at an empty line, a heading or the next item of a list.
_PARAGRAPH_END = re.compile(r"\n\s*\n|\n(?=\s*(?:[-*+]|\d+\.)\s)|(?<=\n)#+\s|\n(?=#+\s)")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]*[A-Z0-9`])")


def readme() -> str:
    """The project's README, as the installed package carries it in its metadata."""
    try:
        text = metadata("fanano").get_payload()  # type: ignore[attr-defined]
    except PackageNotFoundError:
        text = None
    if not isinstance(text, str) or not text.strip():
        raise CommandError("this installation carries no README; name a text with --text FILE")
    return text


def read_text(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise CommandError(f"--text {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CommandError(f"--text {file}: not a text in UTF-8") from None


def sentences(text: str) -> list[str]:
    """The sentences of four words or more of a plain or Markdown text, in order, each once."""
    text = _LINK.sub(r"\1", _NOT_PROSE.sub("\n\n", text))
    text = _TABLE_ROW.sub(lambda row: row[0].replace("|", "\n\n"), text)
    found: dict[str, None] = {}
    for paragraph in _PARAGRAPH_END.split(text):
        flat = " ".join(re.sub(r"^\s*([-*+>#]+|\d+\.)\s+", "", paragraph).split())
        for sentence in _SENTENCE_END.split(flat):
            if len(_WORD.findall(sentence)) >= 4:
                found[sentence] = None
    return list(found)


class Batch(NamedTuple):
    indices: Array  # (batch,) which of the sentences these are
    tokens: Array  # (batch, longest) int64, padded on the right
    lengths: Array  # (batch,) int64


class Tokenizer:
    """The model's own WordPiece tokenizer, by the `tokenizers` package."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer as Reader

        limits = json.loads((folder / "sentence_bert_config.json").read_text(encoding="utf-8"))
        self.reader = Reader.from_file(str(folder / "tokenizer.json"))
        self.reader.enable_truncation(max_length=limits["max_seq_length"])
        self.reader.no_padding()

    def batches(self, texts: Sequence[str], size: int = 32) -> Iterator[Batch]:
        """Batches of at most `size` texts of similar length: little of a batch is padding."""
        encoded = [encoding.ids for encoding in self.reader.encode_batch(list(texts))]
        order = sorted(range(len(encoded)), key=lambda index: len(encoded[index]))
        for start in range(0, len(order), size):
            indices = order[start : start + size]
            lengths = [len(encoded[index]) for index in indices]
            tokens = np.zeros((len(indices), max(lengths)), dtype=np.int64)
            for row, index in enumerate(indices):
                tokens[row, : lengths[row]] = encoded[index]
            yield Batch(np.array(indices), tokens, np.array(lengths))
