"""Other kernels, booted in seconds: QEMU in software emulation with this machine's own files, read-only, as their root.

What stands in this room answers one question: what can Squall do on a kernel that is not this machine's? A guest runs
the very Python, the very Squall and the very tests of the host; what it writes stays in its memory. Nothing is
installed, no file of the host can be changed by a guest, and a guest ends with the process that booted it.

Nothing that injects may enter, and nothing here is needed to inject.
"""

from squall.lab.guest import Guest, boot
from squall.lab.kernels import Kernel
from squall.lab.programs import Programs

__all__ = ["Guest", "Kernel", "Programs", "boot"]
