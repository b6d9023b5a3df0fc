"""Memory of a training process."""

import resource
import subprocess
import sys


def test_freed_memory_is_taken_again_without_the_kernel() -> None:
    """64 MB, freed and taken again: a page that comes back from the kernel is a fault."""
    script = (
        "import resource, sys, torch; from guidelens.training.device import keep_freed_memory\n"
        "if sys.argv[1] == 'kept': keep_freed_memory()\n"
        "for _ in range(10): torch.ones(1 << 24)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(20): torch.ones(1 << 24)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)"
    )
    faults = {
        how: int(subprocess.run([sys.executable, "-c", script, how], capture_output=True, text=True, check=True).stdout) for how in ("kept", "given back")
    }
    pages = (1 << 26) // resource.getpagesize()
    assert faults["given back"] >= 20 * pages / 512  # pages of 4 kB, or of 2 MB where the kernel gives those
    assert faults["kept"] < faults["given back"] / 10
