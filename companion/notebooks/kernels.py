"""The kernel that notebooks run in: this interpreter, whatever goes by its name elsewhere."""

from __future__ import annotations

import sys
from typing import Any

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager

from companion import processes
from studies.storage import outputs


class KernelManager(AsyncKernelManager):
    """Starts a kernel that holds this process's locks for as long as it lives."""

    @property
    def kernel_spec(self) -> KernelSpec:
        """This interpreter; a kernel of the same name on the user's path may be another."""
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=command, display_name="Python 3", language="python")

    async def _async_pre_start_kernel(self, **options: Any) -> tuple[list[str], dict[str, Any]]:
        command, options = await super()._async_pre_start_kernel(**options)
        options["env"] = {**options.get("env", {}), **processes.environment()}
        return command, options | {"pass_fds": outputs.descriptors()}
