"""The kernel that notebooks run in: this interpreter, whatever goes by its name elsewhere."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning import LocalProvisioner
from traitlets import List, Unicode

from companion import processes
from studies.storage import outputs

_PROGRAM = [sys.executable, "-P", str(Path(__file__).with_name("watch.py"))]
SERVER = "PPP_KERNELS"
"""In the environment: the socket of the process that forks kernels, if there is one."""


@contextlib.contextmanager
def warm(folder: Path, environment: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Let a process load what kernels need, and fork those of this command's descendants.

    It ends with the thread that calls this: the main one.

    Parameters
    ----------
    folder : Path
        Where that process runs.
    environment : mapping of str to str
        Of that process, on top of this one's.

    Yields
    ------
    dict of str to str
        What a child finds that process by. Nothing but on Linux: elsewhere, and where that process
        has failed, each kernel starts by itself.
    """
    if sys.platform != "linux":
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="ppp-") as sockets:
        address = f"{sockets}/kernels"
        command = [*_PROGRAM, "--serve", address, str(os.getpid())]
        server = processes.start(command, environment, cwd=folder)
        try:
            yield {SERVER: address}
        finally:
            processes.end_children(of=server.pid)
            server.wait()


class Forked(psutil.Process):
    """A kernel that another process has forked, as a provisioner sees one of its own."""

    stdin = stdout = stderr = None

    @classmethod
    def asked(cls, *request: Any) -> Forked | None:
        """Ask for a kernel, with arguments, environment and folder; nothing if there is none."""
        with contextlib.suppress(KeyError, OSError, ValueError, psutil.Error):
            address = os.environ[SERVER]
            with socket.socket(socket.AF_UNIX) as server:
                server.connect(address)
                server.sendall(f"{json.dumps(request)}\n".encode())
                return cls(int(server.makefile().readline()))
        return None

    def poll(self) -> int | None:
        return None if self.is_running() else 1

    def send_signal(self, number: int) -> None:
        with contextlib.suppress(psutil.Error):  # it has ended
            super().send_signal(number)


class Provisioner(LocalProvisioner):
    """Takes a forked kernel where there is one, else starts one."""

    async def launch_kernel(self, cmd: list[str], **options: Any) -> Any:
        kernel = Forked.asked(cmd[len(_PROGRAM) :], options["env"], os.getcwd())
        if kernel is None:
            return await super().launch_kernel(cmd, **options)
        self.process, self.pid, self.pgid = kernel, kernel.pid, kernel.pid
        return self.connection_info


class KernelManager(AsyncKernelManager):
    """Starts a kernel that holds this process's locks, and notes in `opened` what it opens of
    the files at or below the paths `watched`.
    """

    opened = Unicode().tag(config=True)
    watched = List(Unicode()).tag(config=True)

    @property
    def kernel_spec(self) -> KernelSpec:
        """This interpreter; a kernel of the same name on the user's path may be another."""
        command = [*_PROGRAM, self.opened, *self.watched, "--", "-f", "{connection_file}"]
        return KernelSpec(argv=command, display_name="Python 3", language="python")

    async def _async_pre_start_kernel(self, **options: Any) -> tuple[list[str], dict[str, Any]]:
        self.kernel_id = self.kernel_id or str(uuid.uuid4())
        self.provisioner = self.provisioner or Provisioner(
            kernel_id=self.kernel_id, kernel_spec=self.kernel_spec, parent=self
        )
        command, options = await super()._async_pre_start_kernel(**options)
        options["env"] = {**options.get("env", {}), **processes.environment()}
        return command, options | {"pass_fds": outputs.descriptors()}
