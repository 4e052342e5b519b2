"""A plugin of pytest, for the day with a GPU (benchmarks/gpu_day.sh): a failure is told when it
happens, for after a kernel that hangs nobody can; and that day's SIGINT ends the run, with all that
is known."""

import signal

import pytest


@pytest.hookimpl(trylast=True)
def pytest_configure(config):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs behind others ignores it
    config.pluginmanager.register(AtOnce(config.get_terminal_writer()))


class AtOnce:
    def __init__(self, terminal):
        self.terminal = terminal

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.terminal.line(f"\n{report.nodeid}, {report.when}:\n{report.longreprtext}")
            self.terminal.flush()
