"""The kernel that notebooks run in: this interpreter, whatever goes by its name elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from traitlets import List, Unicode

from companion import processes
from studies.storage import outputs


class KernelManager(AsyncKernelManager):
    """Starts a kernel that holds this process's locks, and notes in `opened` what it opens of
    the files at or below the paths `watched`.
    """

    opened = Unicode().tag(config=True)
    watched = List(Unicode()).tag(config=True)

    @property
    def kernel_spec(self) -> KernelSpec:
        """This interpreter; a kernel of the same name on the user's path may be another."""
        program = [sys.executable, "-P", str(Path(__file__).with_name("watch.py"))]
        command = [*program, self.opened, *self.watched, "--", "-f", "{connection_file}"]
        return KernelSpec(argv=command, display_name="Python 3", language="python")

    async def _async_pre_start_kernel(self, **options: Any) -> tuple[list[str], dict[str, Any]]:
        command, options = await super()._async_pre_start_kernel(**options)
        options["env"] = {**options.get("env", {}), **processes.environment()}
        return command, options | {"pass_fds": outputs.descriptors()}
