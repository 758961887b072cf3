#!/bin/sh
# Whether a small SLURM can run here; its programs come from Debian's packages where they are absent.
set -eu
PATH=$PATH:/usr/sbin
as_root=$([ "$(id -u)" = 0 ] || echo sudo)
if ! $as_root unshare --mount --pid --fork --mount-proc mount --bind /tmp /mnt; then
	echo "Namespaces of its own are refused here: a small SLURM needs Linux, and root or sudo."
	exit 1
fi
absent=$(for program in munged slurmctld slurmd sbatch; do command -v $program > /dev/null || echo $program; done)
[ -z "$absent" ] && exit 0
echo "Absent: $absent"
if ! command -v apt-get > /dev/null; then
	echo "Install SLURM and munge (Debian, Ubuntu: apt-get install slurm-wlm munge), then run make test-slurm again."
	exit 1
fi
export DEBIAN_FRONTEND=noninteractive
install="$as_root apt-get install --yes --quiet --no-install-recommends slurm-wlm munge"
$install || { $as_root apt-get update --quiet && $install; }
