"""The devices that can be measured."""

from __future__ import annotations

from .cpu import CPU, Cpu
from .cuda import Cuda
from .device import Device, Sample

__all__ = ["BY_NAME", "CPU", "Cpu", "Cuda", "Device", "Sample"]

BY_NAME: dict[str, type[Device]] = {"cpu": Cpu, "cuda": Cuda}
