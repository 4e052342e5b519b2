"""The README's examples run, in the order in which a reader meets them."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


def test_examples_run(capsys):
    pytest.importorskip("numpy", reason="the first example uses NumPy")
    pytest.importorskip("torch", reason="the second example uses torch")
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)
    names: dict = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    assert len(blocks) == 3
    assert names["query"].shape == names["out"].shape
    assert "tensor(0., dtype=torch.bfloat16)" in capsys.readouterr().out
    assert names["state"].l == pytest.approx(4.95344, abs=1e-5)
