"""A real SLURM of one node for as long as a command runs: python one_node.py FOLDER COMMAND...

Root and Linux are needed, and the programs of Debian's slurm-wlm and munge. Everything lives in FOLDER: a mount
namespace of its own puts the configuration at /etc/slurm, where every program of SLURM looks for it, without
touching the machine's; a process namespace of its own ends all daemons with this program, however it ends.
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
INSIDE = "ONE_NODE_SLURM"
CONFIGURATION = """\
ClusterName=one-node
SlurmctldHost={host}
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
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
NodeName={host} CPUs=16 RealMemory=256000 Gres=gpu:2 State=UNKNOWN
PartitionName=cpu Nodes={host} Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes={host} MaxTime=INFINITE State=UP
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
        sys.exit(f"one_node: {', '.join(missing)} not found; install slurm-wlm and munge (Debian) and util-linux")
    if os.geteuid() != 0:
        sys.exit("one_node: only root can start SLURM's daemons and give them a configuration of their own")
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    again = [sys.executable, __file__, str(folder), *command]
    return subprocess.run([*namespaces, *again], env=os.environ | {INSIDE: "1"}, check=False).returncode


def run(folder: Path, command: list[str]) -> int:
    """Configure, start the daemons, run ``command``."""
    for name in ("etc", "state", "spool"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    host = socket.gethostname()
    (folder / "etc/slurm.conf").write_text(CONFIGURATION.format(host=host, folder=folder, ports=free_ports(2)))
    # Stand-ins: without a file of its own a GPU is not counted.
    (folder / "etc/gres.conf").write_text("Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n")
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    Path("/etc/slurm").mkdir(exist_ok=True)
    subprocess.run(["mount", "--bind", str(folder / "etc"), "/etc/slurm"], check=True)
    munge = {"socket": "munge.socket", "key-file": "munge.key", "pid-file": "munged.pid", "log-file": "munged.log"}
    subprocess.run(
        ["munged", "--force", *(f"--{option}={folder / name}" for option, name in munge.items()),
         f"--seed-file={folder / 'munge.seed'}"],
        check=True,
    )  # fmt: skip
    for daemon in (["slurmctld", "-D", "-c"], ["slurmd", "-D", "-N", host]):
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
    """Until the node takes jobs."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        shown = subprocess.run(["sinfo", "--noheader", "--format=%T"], capture_output=True, text=True, check=False)
        if "idle" in shown.stdout:
            return
        time.sleep(0.5)
    logs = "\n".join(path.read_text()[-2000:] for path in folder.glob("*.log"))
    sys.exit(f"one_node: the node did not become idle within {seconds} s\n{logs}")


if __name__ == "__main__":
    sys.exit(main())
