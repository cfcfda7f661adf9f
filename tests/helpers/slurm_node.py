"""A real Slurm cluster on this machine, of a temporary folder, for tests.

Its daemons listen on the loopback only, with a configuration, a key, ports and logs of their
own; nothing outside the folder is read or written. Several nodes share the one machine, and
claim the cores, the memory and the (empty) graphics cards they are told to.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
CLIENTS = ("sbatch", "srun", "squeue", "sinfo", "scancel", "scontrol", "setpriv")
PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
LONGEST = 75  # characters of a folder's name, so that those of its sockets are below 108
PARTITION = "main"

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
    comment: str


@dataclass(frozen=True)
class Slurm:
    """A running cluster."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """What a command needs in its environment to use this cluster, and no other."""
        others = ("SLURM_", "SBATCH_", "SRUN_", "SQUEUE_", "SINFO_", "SCANCEL_")
        own = {name: value for name, value in os.environ.items() if not name.startswith(others)}
        path = f"{self.folder / 'bin'}{os.pathsep}{PATH}"
        return own | {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": path}

    def ask(self, *command: str) -> str:
        """Run a client of Slurm and return what it prints."""
        options = {"env": self.environment, "stdin": subprocess.DEVNULL, "text": True}
        done = subprocess.run(command, capture_output=True, timeout=20, **options)
        if done.returncode:
            raise SlurmError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def drain(self, node: str) -> None:
        """Let the node begin no other job; what it does goes on."""
        self.ask("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")

    def resume(self, node: str) -> None:
        """Let a drained node work again."""
        self.ask("scontrol", "update", f"nodename={node}", "state=resume")

    def idle(self) -> bool:
        """Whether all nodes wait for a job."""
        with suppress(SlurmError, subprocess.TimeoutExpired):
            return set(self.ask("sinfo", "-hN", "-o", "%T").split()) == {"idle"}
        return False

    def jobs(self, states: str = "all") -> list[Job]:
        """The jobs in these states."""
        lines = self.ask("squeue", "-h", "-S", "i", "-t", states, "-o%i|%T|%N|%k").splitlines()
        return [Job(*line.split("|", 3)) for line in lines]

    def cancel(self, job: str) -> None:
        """Cancel a job: its processes are told to end and, after two seconds, killed."""
        self.ask("scancel", job)


def missing() -> str:
    """Why a cluster cannot run here, or nothing if it can."""
    if absent := [name for name in DAEMONS + CLIENTS if not shutil.which(name, path=PATH)]:
        return f"not installed: {', '.join(absent)}"
    return "only root may run the daemons of Slurm" if os.geteuid() else ""


@contextmanager
def running(
    folder: Path, nodes: int = 2, cpus: int = 2, memory_mb: int = 4000, gpus: int = 1
) -> Iterator[Slurm]:
    """Run a cluster of nodes that each claim so much; its files go below the folder."""
    folder = Path(folder).resolve()
    if reason := missing():
        raise SlurmError(reason)
    assert len(str(folder)) < LONGEST, "too long for the names of sockets"
    names = [f"node{number}" for number in range(1, nodes + 1)]
    configure(folder, names, cpus, memory_mb, gpus)
    slurm = Slurm(folder)
    munge = {"socket": "munge.socket"}
    munge |= {f"{name}-file": f"munge.{name}" for name in ("key", "pid", "log", "seed")}
    options = [f"--{name}={folder / file}" for name, file in munge.items()]
    try:
        with ExitStack() as stack:
            stack.enter_context(daemon(slurm, "munged", "--force", "--foreground", *options))
            wait_for(slurm, (folder / "munge.socket").exists)
            stack.enter_context(daemon(slurm, "slurmctld", "-D"))
            for name in names:
                stack.enter_context(daemon(slurm, "slurmd", "-D", "-N", name))
            wait_for(slurm, slurm.idle)
            try:
                yield slurm
            finally:
                end_jobs(slurm)
    finally:
        for number in left(slurm):
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)


def configure(folder: Path, names: list[str], cpus: int, memory_mb: int, gpus: int) -> None:
    """Write the files that the daemons read."""
    for name in ("state", "bin", *names):
        (folder / name).mkdir(parents=True)
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    for number in range(gpus):
        (folder / f"gpu{number}").symlink_to("/dev/null")  # some device
    cards = f"Name=gpu Flags=nvidia_gpu_env File={folder}/gpu[0-{gpus - 1}]\n"
    (folder / "gres.conf").write_text(cards)
    host = socket.gethostname().split(".")[0]
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(1 + len(names))]
    port, *ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    about = f"CPUs={cpus} RealMemory={memory_mb} Gres=gpu:{gpus}"
    where = f"NodeHostname={host} NodeAddr=127.0.0.1"
    nodes = [f"NodeName={name} {where} Port={one} {about}" for name, one in zip(names, ports)]
    text = CONFIGURATION.format(
        host=host,
        port=port,
        folder=folder,
        memory_mb=memory_mb // cpus,
        nodes="\n".join(nodes),
        partition=PARTITION,
    )
    (folder / "slurm.conf").write_text(text)
    # An srun that knows its cluster, for those who clear SLURM_CONF, as Snakemake's jobs do.
    script, real = folder / "bin" / "srun", shutil.which("srun", path=PATH)
    script.write_text(f"#!/bin/sh\nexport SLURM_CONF='{folder}/slurm.conf'\nexec {real} \"$@\"\n")
    script.chmod(0o755)


@contextmanager
def daemon(slurm: Slurm, *command: str) -> Iterator[None]:
    """Run a daemon that ends with this process, and that Ctrl-C does not reach."""
    with (slurm.folder / "daemons.log").open("ab") as out:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *command],
            env=slurm.environment,
            cwd=slurm.folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(slurm: Slurm, condition, seconds: float = 60) -> None:
    """Wait until it is so; say what the daemons have written if it does not become so."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            lines = (slurm.folder / "daemons.log").read_text(errors="replace").splitlines()
            raise SlurmError("\n".join([f"not ready after {seconds:g} s", *lines[-30:]]))
        time.sleep(0.05)


def end_jobs(slurm: Slurm) -> None:
    """End the jobs that wait, run or end."""

    def ids() -> list[str]:
        active = "PENDING,RUNNING,CONFIGURING,COMPLETING,SUSPENDED,STOPPED"
        return [job.id for job in slurm.jobs(active)]

    with suppress(SlurmError, subprocess.TimeoutExpired):
        if numbers := ids():
            slurm.ask("scancel", "--quiet", *numbers)
            wait_for(slurm, lambda: not ids(), 10)


def left(slurm: Slurm) -> list[int]:
    """The processes of this cluster, by their environment, but for this one and its parents."""
    mark = f"SLURM_CONF={slurm.folder / 'slurm.conf'}".encode()
    mine, numbers = {os.getpid(), os.getppid()}, []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark in path.read_bytes().split(b"\0") and int(path.parent.name) not in mine:
                numbers.append(int(path.parent.name))
    return numbers
