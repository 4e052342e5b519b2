"""The contenders: fanano, and whichever of the others are installed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ...errors import CommandError, installed, require
from .jax import Jax
from .onnxruntime import OnnxRuntime
from .openvino import OpenVino
from .ours import Fanano, OnJax, OnTorch, Safe
from .peer import CannotRun, Peer, Prepared
from .torch import CuDnn, Deterministic, Efficient, Flash, Math
from .zentorch import Zentorch

__all__ = ["ALL", "CannotRun", "Peer", "Prepared", "chosen", "libraries"]

ALL: tuple[type[Peer], ...] = (
    *(Fanano, Safe, OnTorch, OnJax),
    *(Flash, Deterministic, CuDnn, Efficient, Math),
    *(Zentorch, Jax, OnnxRuntime, OpenVino),
)


def libraries() -> list[str]:
    """What --peers may name."""
    return list(dict.fromkeys(peer.library for peer in ALL if peer.library != "fanano"))


def chosen(asked: Sequence[str] | None, groups: Iterable[str], device: str = "cpu") -> list[Peer]:
    """fanano and the libraries asked for, or all that are installed; those that do the groups on
    the device."""
    for name in asked or ():
        if name not in libraries():
            known = ", ".join(libraries())
            raise CommandError(f"--peers {name}: expected none, or some of {known}", code=2)
    found = []
    for peer in ALL:
        if not set(groups) & set(peer.groups) or device not in peer.devices:
            continue
        if peer.library == "fanano" or (asked is None and all(map(installed, peer.packages))):
            found.append(peer())
        elif asked is not None and peer.library in asked:
            require(f"fanano bench --peers {peer.library}", peer.packages)
            found.append(peer())
    return found
