"""fanano's threads under the control of threadpoolctl: importing this module registers them there.

    import fanano.threadpoolctl
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):  # every library that threadpoolctl knows, fanano too
        ...
    with threadpool_limits(limits=1, user_api="fanano"):  # fanano alone
        ...

As ``fanano.set_num_threads``, this holds for the whole process. ``import fanano`` does not register
by itself: it would have to import threadpoolctl, or depend on which of the two was imported first.
"""

from __future__ import annotations

import threadpoolctl

from . import __version__, get_num_threads, set_num_threads


class Controller(threadpoolctl.LibController):  # type: ignore[misc]  # it has no types
    """What threadpoolctl asks of a library."""

    user_api = "fanano"
    internal_api = "fanano"
    filename_prefixes = ("_core",)
    check_symbols = ("fanano_thread_pool",)  # many modules are called _core

    def get_num_threads(self) -> int:
        return get_num_threads()

    def set_num_threads(self, num_threads: int) -> None:
        set_num_threads(num_threads)

    def get_version(self) -> str:
        return __version__


threadpoolctl.register(Controller)
