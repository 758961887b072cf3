#!/bin/sh
# Whether the report can be opened in a browser here: Debian's Chromium where it is absent, and axe-core below the given folder.
set -eu
axe=axe-core-4.14.1
as_root=$([ "$(id -u)" = 0 ] || echo sudo)
absent=$(for program in chromium chromedriver; do command -v $program > /dev/null || echo $program; done)
if [ -n "$absent" ]; then
	echo "Absent:" $absent
	if ! command -v apt-get > /dev/null; then
		echo "Install Chromium and its driver (Debian: apt-get install chromium chromium-driver), then run make test-browser again."
		exit 1
	fi
	export DEBIAN_FRONTEND=noninteractive
	install="$as_root apt-get install --yes --quiet --no-install-recommends chromium chromium-driver"
	$install || { $as_root apt-get update --quiet && $install; }
fi
[ -f "$1/package/axe.min.js" ] && exit 0
mkdir -p "$1"
if command -v npm > /dev/null && npm pack --silent --pack-destination "$1" axe-core@${axe#axe-core-} > /dev/null; then
	tar -xzf "$1/$axe.tgz" -C "$1"
else
	echo "axe-core is not to be had (npm): its tests are skipped."
fi
