"""``fanano demo``: a real sentence encoder on fanano, then long sequences."""

from __future__ import annotations

import argparse
from typing import Any

from . import errors

QUERY = "How does flash attention use so little memory?"


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "demo",
        help="search a text with a real transformer whose attention is fanano's",
        description="Embeds the sentences of a text with all-MiniLM-L6-v2 in NumPy, every "
        "attention done by fanano, and ranks them against a query. Then: time and memory of "
        "materialised and of flash attention for sequences of 1k, 4k and 16k tokens.",
        epilog="examples:\n"
        '  fanano demo --text article.txt --query "What did they measure?"\n'
        "  fanano demo --plot demo.png",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--text", metavar="FILE", help="text to search (default: fanano's README)")
    parser.add_argument("--query", default=QUERY, help="default: %(default)r")
    parser.add_argument("--top", type=int, default=5, metavar="N", help="hits to show (default: 5)")
    parser.add_argument("--plot", metavar="FILE", help="draw the second half (.png, .svg, .pdf)")
    parser.add_argument("--quick", action="store_true", help="short sequences: 256 to 1024 tokens")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if arguments.top < 1:
        raise errors.CommandError(f"--top is {arguments.top}; expected 1 or more", code=2)
    if not arguments.query.strip():
        raise errors.CommandError("--query is empty; expected some words", code=2)
    needed = ["numpy", "rich", "safetensors", "tokenizers"]
    errors.require("fanano demo", needed + ["matplotlib"] * bool(arguments.plot))
    if arguments.plot:
        errors.check_file("--plot", arguments.plot, errors.PICTURES)

    # Only now: what these import may not be there.
    from rich.console import Console

    from . import long_sequences, search, text

    console = Console(highlight=False, markup=False, emoji=False)  # texts are shown as they are
    content = text.readme() if arguments.text is None else text.read_text(arguments.text)
    sentences = text.sentences(content)
    if not sentences:
        raise errors.CommandError(f"--text {arguments.text}: found no sentences in it")
    folder = search.model_folder()
    if folder is None:
        line = f"No search: it needs the model. Install it with: {search.INSTALL_MODEL}"
        console.print(line, soft_wrap=True)
    else:
        search.run(console, folder, sentences, arguments.query, arguments.top)
    lengths = (256, 512, 1024) if arguments.quick else (1024, 4096, 16384)
    rows = long_sequences.run(console, lengths)
    if arguments.plot:
        from .plot import plot

        plot(rows, arguments.plot)
        console.print(f"plot: {arguments.plot}", soft_wrap=True)
    return 0
