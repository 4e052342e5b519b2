"""What is known of the CUDA kernels without running them: tests/cuda/report.py prints it.

ptxas        registers, shared memory, spills and advisories, from what ptxas says
sass         instructions, from what nvdisasm prints, and the pipe that each occupies
flow         basic blocks, loops, and what the lightest pass of a loop executes
machines     what a multiprocessor has room for, and how fast its pipes are
figures      all of it together, for one kernel
thresholds   which kernel crosses which limit of thresholds.toml
build        the texts that the first two read, of what CMake has built
table        for people
"""
