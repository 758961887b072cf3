"""A real SLURM of two nodes, both this machine, for as long as a command runs: python small_slurm.py FOLDER COMMAND...

Root and Linux are needed, and the programs of Debian's slurm-wlm and munge. Everything lives in FOLDER: a mount
namespace of its own puts the configuration at /etc/slurm, where every program of SLURM looks for it, and the names
of the nodes into /etc/hosts, without touching the machine's; a process namespace of its own ends all daemons with this program, however it ends.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "unshare")
INSIDE = "SMALL_SLURM"
NODES = ("n1", "n2")
CONFIGURATION = """\
ClusterName=small
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SwitchType=switch/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=2,batch_sched_delay=0
PreemptType=preempt/none
MinJobAge=3600
KillWait=30
ReturnToService=2
GresTypes=gpu
SlurmdParameters=config_overrides
# More than the machine has: jobs are counted against it, and the tests start only a few at a time.
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=16 RealMemory=256000 Gres=gpu:2 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=16 RealMemory=256000 Gres=gpu:2 State=UNKNOWN
PartitionName=cpu Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes=n1,n2 MaxTime=INFINITE State=UP
"""


def main() -> int:
    """Start the cluster in namespaces of its own, run the command, and give its exit code."""
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    folder, command = Path(sys.argv[1]).resolve(), sys.argv[2:]
    if os.environ.get(INSIDE):
        return run(folder, command)
    os.environ["PATH"] += ":/usr/sbin"
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        sys.exit(f"small_slurm: {', '.join(missing)} not found; install slurm-wlm and munge (Debian) and util-linux")
    if os.geteuid() != 0:
        sys.exit("small_slurm: only root can start SLURM's daemons and give them a configuration of their own")
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    again = [sys.executable, __file__, str(folder), *command]
    return subprocess.run([*namespaces, *again], env=os.environ | {INSIDE: "1"}, check=False).returncode


def run(folder: Path, command: list[str]) -> int:
    """Configure, start the daemons, run ``command``."""
    for name in ("etc", "state"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    host = socket.gethostname()
    (folder / "etc/slurm.conf").write_text(CONFIGURATION.format(host=host, folder=folder, ports=free_ports(3)))
    # Stand-ins: without a file of its own a GPU is not counted.
    (folder / "etc/gres.conf").write_text("Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n")
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    Path("/etc/slurm").mkdir(exist_ok=True)
    known = Path("/etc/hosts").read_text()
    (folder / "hosts").write_text(known + "".join(f"127.0.0.1 {node}\n" for node in (*NODES, host)))
    for source, target in (("etc", "/etc/slurm"), ("hosts", "/etc/hosts")):
        subprocess.run(["mount", "--bind", str(folder / source), target], check=True)
    munge = {"socket": "munge.socket", "key-file": "munge.key", "pid-file": "munged.pid", "log-file": "munged.log"}
    subprocess.run(
        ["munged", "--force", *(f"--{option}={folder / name}" for option, name in munge.items()),
         f"--seed-file={folder / 'munge.seed'}"],
        check=True,
    )  # fmt: skip
    for daemon in (["slurmctld", "-D", "-c"], *(["slurmd", "-D", "-N", node] for node in NODES)):
        subprocess.Popen(daemon, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until_idle(folder)
    return subprocess.run(command, check=False).returncode


def free_ports(count: int) -> list[int]:
    """Ports on which nothing listens."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def wait_until_idle(folder: Path, seconds: int = 60) -> None:
    """Until the nodes take jobs."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        shown = subprocess.run(
            ["sinfo", "--noheader", "--partition=cpu", "--format=%D %T"], capture_output=True, text=True, check=False
        )
        if f"{len(NODES)} idle" in shown.stdout:
            return
        time.sleep(0.5)
    logs = "\n".join(path.read_text()[-2000:] for path in folder.glob("*.log"))
    sys.exit(f"small_slurm: the nodes did not become idle within {seconds} s\n{logs}")


if __name__ == "__main__":
    sys.exit(main())
