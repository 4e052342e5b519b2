"""First thing in every Python that ctest starts: an editable install puts its own finder before
PYTHONPATH, and would be tested instead of the build."""

import sys

sys.meta_path[:] = [f for f in sys.meta_path if type(f).__name__ != "ScikitBuildRedirectingFinder"]
