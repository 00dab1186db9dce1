#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# shellcheck disable=SC2034 # used by those who read this
# What the scripts that test programs share: sourced by cli.sh and damage.sh, which define functions case_NAME and end with
# case_run for each.
#
# Environment: UMBRA_BUILD (the build folder), TMPDIR. Needs root, or the right to mount. A case prints why it fails, and returns 1,
# or 77 when what it needs cannot be had.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
suite=$(basename "$0" .sh)
bin=${UMBRA_BUILD:?}/tools
mkfs=$bin/mkfs.umbrafs umbrafs=$bin/umbrafs helper=$bin/mount.umbrafs ctl=$bin/umbractl
work=$(mktemp -d "${TMPDIR:-/tmp}/$suite.XXXXXX") || exit 1
chmod 755 "$work"
shm=$(mktemp -d /dev/shm/umbrafs-$suite.XXXXXX 2>/dev/null) || shm=$work
chmod 755 "$shm"
mnt=$work/mnt
status=0

# unmount PLACE: as soon as nobody is there any more. What has just ended, or is being looked at in /proc, may hold it for a moment.
unmount()
{
	wait_for umount "$1"
}

down()
{
	mountpoint -q "$mnt" 2>/dev/null && unmount "$mnt"
	wait_for eval '! pgrep -f "$umbrafs.* $shm/"' >/dev/null
}

cleanup()
{
	local left
	for left in $(awk -v a="$work/" -v b="$shm/" 'index($5, a) == 1 || index($5, b) == 1 { print $5 }' \
		/proc/self/mountinfo | tac); do
		umount -l "$left"
	done
	rm -rf --one-file-system "$work"
	rm -rf --one-file-system "$shm"
}
trap cleanup EXIT

# ---- what the cases are made of: each prints why it fails, and returns 1 ----

# says STATUS PATTERN COMMAND...: exit status, and one line on standard error that matches (extended expression)
says()
{
	local want=$1 pattern=$2 rc
	shift 2
	"$@" >"$work/out" 2>"$work/err" </dev/null
	rc=$?
	if [ $rc != "$want" ]; then
		echo "'${*##*/}' ended with $rc, not $want: $(head -c 300 "$work/err" | tr '\n' '|')"
		return 1
	fi
	if [ "$(wc -l <"$work/err")" != 1 ] || ! grep -qE -- "$pattern" "$work/err"; then
		echo "'${*##*/}' said '$(head -c 300 "$work/err" | tr '\n' '|')', not one line like '$pattern'"
		return 1
	fi
}

# works COMMAND...: status 0, nothing on standard error
works()
{
	local rc
	"$@" >"$work/out" 2>"$work/err" </dev/null
	rc=$?
	if [ $rc != 0 ] || [ -s "$work/err" ]; then
		echo "'${*##*/}' ended with $rc: $(head -c 300 "$work/err" | tr '\n' '|')"
		return 1
	fi
}

# is WHAT GOT WANTED
is()
{
	[ "$2" = "$3" ] && return 0
	echo "$1 is '$2', not '$3'"
	return 1
}

pool=$shm/pool

fresh()
{
	down
	rm -f "$pool"
	works "$mkfs" --size "${1:-64M}" "$pool"
}

# Overwrites count bytes at byte off with 0xff: damage OFF COUNT
damage()
{
	tr '\0' '\377' </dev/zero | dd of="$pool" bs=1 seek="$1" count="$2" conv=notrunc status=none
}

# A number of the last output in JSON: json_of KEY
json_of()
{
	sed -n "s/.*\"$1\": *\([0-9]*\).*/\1/p" "$work/out"
}

# Until it is so, or longer than any machine takes: wait_for COMMAND...
wait_for()
{
	local end=$((SECONDS + ${wait_max_s:-60}))
	until "$@" 2>/dev/null; do
		[ "$SECONDS" -lt "$end" ] || { echo "waited in vain: $*"; return 1; }
		sleep 0.02
	done
}

# Has the process ended, with all of its threads? (Nobody may have waited for it yet.)
has_ended()
{
	! cat "/proc/$1"/task/*/stat | sed 's/.*) //' | grep -q '^[^ZX]'
}

# ---- run ----

# case_run NAME: prints its result, and ends what it left
case_run()
{
	local why
	why=$("case_$1" 2>&1)
	case $? in
	0) echo "ok $suite/$1" ;;
	77) echo "skip $suite/$1: cannot be had here" ;;
	*)
		echo "not ok $suite/$1: $(printf '%s' "${why:-failed}" | head -c 600 | tr '\n' '|')"
		status=1
		;;
	esac
	down
	umount -l "$mnt" 2>/dev/null
}

case_names()
{
	declare -F | sed -n 's/^declare -f case_//p' | grep -vx -e names -e run
}

mkdir -p "$mnt"
