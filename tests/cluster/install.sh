#!/bin/sh
# The programs that a SLURM of one node needs, from Debian's packages where they are absent.
set -eu
PATH=$PATH:/usr/sbin
absent=$(for program in munged slurmctld slurmd sbatch; do command -v $program > /dev/null || echo $program; done)
[ -z "$absent" ] && exit 0
echo "Absent: $absent"
if ! command -v apt-get > /dev/null || { [ "$(id -u)" != 0 ] && ! command -v sudo > /dev/null; }; then
	echo "Install SLURM and munge (Debian, Ubuntu: apt-get install slurm-wlm munge), then run make test-slurm again."
	exit 1
fi
as_root=$([ "$(id -u)" = 0 ] || echo sudo)
export DEBIAN_FRONTEND=noninteractive
install="$as_root apt-get install --yes --quiet --no-install-recommends slurm-wlm munge"
$install || { $as_root apt-get update --quiet && $install; }
