"""Clock rates, power and temperature, asked of the library that comes with NVIDIA's driver.

By ctypes: it answers in microseconds, so while the device is at work, and needs no package.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

SM, MEMORY = 1, 2  # of nvmlClockType_t
WORDS = 96  # bytes of an answer in words


def load() -> Any:
    return ctypes.CDLL("libnvidia-ml.so.1")


class Clocks:
    """Of one device, by its UUID. Where nobody can be asked, str() says why and all are None."""

    def __init__(self, uuid: str, load: Callable[[], Any] = load) -> None:
        self.why_not, self.driver, self.handle = "", "of unknown version", ctypes.c_void_p()
        try:
            self.nvml = load()
            self.ask("nvmlInit_v2")
            words = ctypes.create_string_buffer(WORDS)
            self.ask("nvmlSystemGetDriverVersion", words, WORDS)
            self.driver = words.value.decode()
            self.ask("nvmlDeviceGetHandleByUUID", uuid.encode(), ctypes.byref(self.handle))
        except (OSError, AttributeError) as error:
            self.why_not = str(error)

    def ask(self, name: str, *arguments: Any) -> None:
        if code := getattr(self.nvml, name)(*arguments):
            raise OSError(f"{name} answers {code}")

    def number(self, name: str, *which: int) -> int | None:
        if self.why_not:
            return None
        found = ctypes.c_uint()
        try:
            self.ask(name, self.handle, *which, ctypes.byref(found))
        except OSError:  # this device does not say
            return None
        return found.value

    def mhz(self) -> int | None:
        """Of the multiprocessors, now."""
        return self.number("nvmlDeviceGetClockInfo", SM)

    def now(self) -> dict[str, int | None]:
        return {
            "sm_mhz": self.mhz(),
            "most_sm_mhz": self.number("nvmlDeviceGetMaxClockInfo", SM),
            "memory_mhz": self.number("nvmlDeviceGetClockInfo", MEMORY),
            "milliwatts": self.number("nvmlDeviceGetPowerUsage"),
            "celsius": self.number("nvmlDeviceGetTemperature", 0),
        }

    def __str__(self) -> str:
        if self.why_not:
            return f"clocks not known ({self.why_not})"
        known = (f"{name} {x}" for name, x in self.now().items() if x is not None)
        return f"before the run: {', '.join(known)}"
