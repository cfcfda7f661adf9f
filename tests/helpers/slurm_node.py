"""A real Slurm cluster on this machine, of a temporary folder, for tests.

Its daemons listen on the loopback only, with a configuration, a key, ports and logs of their
own; nothing outside the folder is read or written. Several nodes share the one machine, and
claim the cores, the memory and the (empty) graphics cards they are told to.

    python tests/slurm_node.py --nodes 2 --cpus 4 -- COMMAND...

runs a command within such a cluster.
"""

import argparse
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

DAEMONS = ("munged", "slurmctld", "slurmd")
CLIENTS = ("sbatch", "srun", "squeue", "sinfo", "scancel", "scontrol", "setpriv")
PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
LONGEST = 75  # characters of a folder's name, so that those of its sockets are below 108
PARTITION = "main"
PENDING = "PENDING"
RUNNING = "RUNNING"
ACTIVE = (PENDING, RUNNING, "CONFIGURING", "COMPLETING", "SUSPENDED", "STOPPED")

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerParameters=sched_interval=1,batch_sched_delay=0
ReturnToService=2
SlurmdParameters=config_overrides
MinJobAge=3600
KillWait=2
GresTypes=gpu
DefMemPerCPU={memory_mb}
{nodes}
PartitionName={partition} Nodes=ALL Default=YES State=UP DefaultTime=10 MaxTime=INFINITE
"""


class SlurmError(Exception):
    """The cluster does not come up, or does not do what it is asked."""


@dataclass(frozen=True)
class Job:
    """A job as squeue shows it, while it waits or runs and long after."""

    id: str
    state: str
    node: str
    reason: str
    name: str
    comment: str


@dataclass(frozen=True)
class Slurm:
    """A running cluster."""

    folder: Path
    nodes: tuple[str, ...]

    @property
    def environment(self) -> dict[str, str]:
        """What a command needs in its environment to use this cluster."""
        return {
            "SLURM_CONF": str(self.folder / "slurm.conf"),
            "PATH": f"{self.folder / 'bin'}{os.pathsep}{PATH}",
        }

    def ask(self, *command: str) -> str:
        """Run a client of Slurm and return what it prints."""
        try:
            done = subprocess.run(
                command,
                env=surroundings() | self.environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=20,
            )
        except subprocess.TimeoutExpired as error:
            raise SlurmError(f"{' '.join(command)}: no answer in {error.timeout:g} s") from None
        if done.returncode:
            raise SlurmError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def drain(self, node: str) -> None:
        """Let the node begin no other job; what it does goes on."""
        self.ask("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")

    def resume(self, node: str) -> None:
        """Let a drained node, or one that was down, work again."""
        self.ask("scontrol", "update", f"nodename={node}", "state=resume")

    def states(self) -> dict[str, str]:
        """What each node does: idle, mixed, allocated, draining, drained, down, ..."""
        return dict(line.split() for line in self.ask("sinfo", "-hN", "-o", "%N %T").splitlines())

    def jobs(self, *states: str) -> list[Job]:
        """The jobs in these states, or all that there have been."""
        lines = self.ask(
            "squeue", "-h", "-S", "i", f"-t{','.join(states) or 'all'}", "-o%i|%T|%N|%r|%j|%k"
        ).splitlines()
        return [Job(*line.split("|", 5)) for line in lines]

    def cancel(self, job: str) -> None:
        """Cancel a job: its processes are told to end and, after two seconds, killed."""
        self.ask("scancel", job)


def surroundings() -> dict[str, str]:
    """This process's environment, without that of a Slurm job it may be part of."""
    prefixes = ("SLURM_", "SBATCH_", "SRUN_", "SQUEUE_", "SINFO_", "SCANCEL_")
    return {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}


def missing() -> str:
    """Why a cluster cannot run here, or nothing if it can."""
    absent = [name for name in DAEMONS + CLIENTS if not shutil.which(name, path=PATH)]
    if absent:
        return f"not installed: {', '.join(absent)}"
    if os.geteuid():
        return "only root may run the daemons of Slurm"
    return ""


@contextmanager
def running(
    folder: Path, nodes: int = 2, cpus: int = 2, memory_mb: int = 4000, gpus: int = 0
) -> Iterator[Slurm]:
    """Run a cluster of nodes that each claim so much; its files go below the folder."""
    if reason := missing():
        raise SlurmError(reason)
    folder = Path(folder).resolve()
    if len(str(folder)) > LONGEST:
        raise SlurmError(f"{folder}: a name of over {LONGEST} characters is too long for sockets")
    folder.mkdir(parents=True, exist_ok=True)
    slurm = Slurm(folder, tuple(f"node{number}" for number in range(1, nodes + 1)))
    configure(slurm, cpus, memory_mb, gpus)
    daemons: dict[str, subprocess.Popen] = {}
    try:
        start(slurm, daemons)
        yield slurm
    finally:
        stop(slurm, daemons)


def configure(slurm: Slurm, cpus: int, memory_mb: int, gpus: int) -> None:
    """Write the files that the daemons read."""
    folder = slurm.folder
    for name in ("state", "bin", *slurm.nodes):
        (folder / name).mkdir(exist_ok=True)
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    for number in range(gpus):
        (folder / f"gpu{number}").symlink_to("/dev/null")  # some device
    cards = f"Name=gpu Flags=nvidia_gpu_env File={folder}/gpu[0-{gpus - 1}]\n" if gpus else ""
    (folder / "gres.conf").write_text(cards)
    host = socket.gethostname().split(".")[0]
    port, *ports = free_ports(1 + len(slurm.nodes))
    each = f"CPUs={cpus} RealMemory={memory_mb}" + (f" Gres=gpu:{gpus}" if gpus else "")
    lines = [
        f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={number} {each}"
        for node, number in zip(slurm.nodes, ports)
    ]
    text = CONFIGURATION.format(
        host=host,
        port=port,
        folder=folder,
        memory_mb=memory_mb // cpus,
        nodes="\n".join(lines),
        partition=PARTITION,
    )
    (folder / "slurm.conf").write_text(text)
    write_srun(folder)


def write_srun(folder: Path) -> None:
    """An srun that knows its cluster, for those who clear SLURM_CONF, as Snakemake's jobs do."""
    script = folder / "bin" / "srun"
    real = shutil.which("srun", path=PATH)
    script.write_text(f"#!/bin/sh\nexport SLURM_CONF='{folder}/slurm.conf'\nexec {real} \"$@\"\n")
    script.chmod(0o755)


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nothing listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


# -------------------------------------------------------------------------------- its daemons


def start(slurm: Slurm, daemons: dict[str, subprocess.Popen]) -> None:
    """Start the daemons and wait until the nodes can take jobs."""
    folder = slurm.folder
    munge = {"socket": "munge.socket"} | {
        f"{name}-file": f"munge.{name}" for name in ("key", "pid", "log", "seed")
    }
    options = [f"--{name}={folder / file}" for name, file in munge.items()]
    daemons["munged"] = daemon(slurm, "munged", "munged", "--force", "--foreground", *options)
    wait(slurm, daemons, (folder / "munge.socket").exists, 10)
    daemons["slurmctld"] = daemon(slurm, "slurmctld", "slurmctld", "-D")
    for node in slurm.nodes:
        daemons[node] = daemon(slurm, node, "slurmd", "-D", "-N", node)
    wait(slurm, daemons, lambda: idle(slurm), 30)


def daemon(slurm: Slurm, name: str, *command: str) -> subprocess.Popen:
    """Start a daemon that ends with this process, and that Ctrl-C does not reach."""
    with (slurm.folder / f"{name}.out").open("wb") as out:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *command],
            env=surroundings() | slurm.environment,
            cwd=slurm.folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def idle(slurm: Slurm) -> bool:
    """Whether all nodes wait for a job."""
    try:
        return list(slurm.states().values()) == ["idle"] * len(slurm.nodes)
    except SlurmError:
        return False


def wait(slurm: Slurm, daemons: dict[str, subprocess.Popen], true, seconds: float) -> None:
    """Wait until it is true; say what the daemons have written if it does not become so."""
    deadline = time.monotonic() + seconds
    while not true():
        ended = [name for name, process in daemons.items() if process.poll() is not None]
        if ended:
            raise SlurmError(f"{ended[0]} ended.\n{tail(slurm, ended)}")
        if time.monotonic() > deadline:
            reason = f"not ready after {seconds:g} s"
            raise SlurmError(f"{', '.join(daemons)}: {reason}.\n{tail(slurm, daemons)}")
        time.sleep(0.05)


def tail(slurm: Slurm, names, lines: int = 15) -> str:
    """The last lines of what these daemons wrote."""
    files = [slurm.folder / f"{name}.out" for name in names]
    texts = [(path.name, path.read_text(errors="replace").splitlines()[-lines:]) for path in files]
    return "\n".join(f"--- {name}\n" + "\n".join(text) for name, text in texts)


def stop(slurm: Slurm, daemons: dict[str, subprocess.Popen]) -> None:
    """End all jobs, then the daemons, the last first, then whatever process is left."""
    with suppress(SlurmError):
        if daemons.get("slurmctld", SimpleNamespace(poll=bool)).poll() is None:
            slurm.ask("scancel", "--quiet", *ids(slurm))
            deadline = time.monotonic() + 10
            while ids(slurm) and time.monotonic() < deadline:
                time.sleep(0.1)
    for process in reversed(daemons.values()):
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for number in left(slurm):
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


def ids(slurm: Slurm) -> list[str]:
    """The numbers of the jobs that wait, run or end."""
    return [job.id for job in slurm.jobs(*ACTIVE)]


def left(slurm: Slurm) -> list[int]:
    """The processes of this cluster, by their environment, but for this one and its parents."""
    mark = f"SLURM_CONF={slurm.folder / 'slurm.conf'}".encode()
    mine, found = {os.getpid(), os.getppid()}, []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark in path.read_bytes().split(b"\0") and int(path.parent.name) not in mine:
                found.append(int(path.parent.name))
    return found


# --------------------------------------------------------------------------------- as a script


def main(arguments: list[str]) -> int:
    """Run a command within a cluster; return its exit status."""
    parser = argparse.ArgumentParser(description="Run a command within a Slurm cluster.")
    for name, default in {"nodes": 2, "cpus": 2, "memory-mb": 4000, "gpus": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("command", nargs="+")
    asked = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    each = {"cpus": asked.cpus, "memory_mb": asked.memory_mb, "gpus": asked.gpus}
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as name:
        try:
            with running(Path(name), asked.nodes, **each) as slurm:
                print(slurm.ask("sinfo", "-N"), end="", flush=True)
                signal.signal(signal.SIGINT, lambda *_: None)  # for the command to answer
                return subprocess.call(asked.command, env=surroundings() | slurm.environment)
        except (SlurmError, OSError) as error:
            print(error, file=sys.stderr)
            return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
