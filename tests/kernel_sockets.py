"""A plugin for the pytest that runs the notebooks: their kernels are spoken to through files, not through ports.

The ports of a kernel are chosen before it binds them; where other tests open sockets all the time, one of them is
sometimes taken in between, and the kernel dies before it has said a word.
"""

import tempfile
from functools import partial
from pathlib import Path

import nbval.kernel
from jupyter_client.manager import KernelManager

# Not below the folder of the test: the name of a socket has a hundred letters at most.
_folder = tempfile.TemporaryDirectory(prefix="kernel-", ignore_cleanup_errors=True)
nbval.kernel.KernelManager = partial(KernelManager, transport="ipc", ip=str(Path(_folder.name) / "kernel"))


def pytest_unconfigure() -> None:
    _folder.cleanup()
