"""Memory of a process that measures."""

import resource


def peak_of_process() -> float:
    """GiB that this process held at most since its start."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
