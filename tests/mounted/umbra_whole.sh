#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# shellcheck disable=SC1091,SC2154 # what tool_lib.sh sets
# Mappings by large pages, where no device asks for them: direct_unit=2M.
#
#   umbra_whole.sh [CASE...]     prints 'ok umbra_whole/CASE', 'not ok umbra_whole/CASE: why'
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/tool_lib.sh"

program=$UMBRA_BUILD/tests/mounted/umbra_whole

# passes CASE...: of the program, on the mount
passes()
{
	"$program" --fs umbrafs "$mnt" "$@" >"$work/said" 2>&1
	[ "$(grep -c "^ok" "$work/said")" = $# ] || { grep "^skip\|^not ok\|^# .*: " "$work/said"; return 1; }
}

# mounted [UNIT]
mounted()
{
	fresh 512M && works "$umbrafs" -o "direct=rw,direct_unit=${1:-2M}" "$pool" "$mnt"
}

# sound: the mount and its memory are
sound()
{
	down
	works "$bin/fsck.umbrafs" -n "$pool"
}

case_all()
{
	mounted && passes both_ways calls clone cut grown kernel parts sparse && sound
}

# The same where memory cannot be cut elsewhere: and what it refuses is not asked for.
case_refused()
{
	mounted || return 1
	export LD_PRELOAD=$UMBRA_BUILD/tests/mounted/libunits_preload.so UMBRA_UNITS_POOL=$pool UMBRA_UNITS_LOG=$work/refused
	passes both_ways calls clone cut grown kernel parts sparse || return 1
	unset LD_PRELOAD
	[ ! -e "$work/refused" ] || { cat "$work/refused"; return 1; }
	sound
}

# Where the unit is a block the same holds, but for what is cut within 2 MiB.
case_blocks()
{
	mounted 4K && passes calls kernel && sound
}

# quality FILE: what umbractl says of all of it
quality()
{
	"$ctl" map --quality "$mnt/$1" | tail -n 1
}

# How much of files is so that large pages can map it, as it is written.
case_quality()
{
	mounted || return 1
	dd if=/dev/urandom of="$mnt/a" bs=1M count=16 2>/dev/null || return 1
	is a "$(quality a)" '16 MiB of 16 MiB (100 %) can be mapped by large pages: 8 of 8 pieces of 2 MiB' || return 1
	# The first 2 MiB of what comes in small pieces begin where there is a small hole.
	dd if="$mnt/a" of="$mnt/b" bs=4k 2>/dev/null || return 1
	quality b | grep -q '[78] of 8 pieces' || { "$ctl" map -q "$mnt/b"; return 1; }
	works cp --reflink=never "$mnt/a" "$mnt/c" || return 1
	is c "$(quality c)" "$(quality a)" || return 1
	works fallocate -l 16M "$mnt/d" || return 1
	is d "$("$ctl" map -q "$mnt/d" | awk 'NR == 2 { print $2, $3 }')" '0x1000000 unwritten' || return 1
	dd if="$mnt/a" of="$mnt/d" bs=4k conv=notrunc 2>/dev/null || return 1
	is d "$(quality d)" "$(quality a)" || return 1
	# A clone that is stored to, all of it.
	works "$ctl" clone "$mnt/a" "$mnt/e" || return 1
	is e "$(quality e)" "$(quality a)" || return 1
	dd if=/dev/urandom of="$mnt/e" bs=1M count=16 conv=notrunc 2>/dev/null || return 1
	is e "$(quality e)" "$(quality a)" || return 1
	works truncate -s 9M "$mnt/e" && works fallocate -p -o 2M -l 4M "$mnt/e" &&
		works fallocate -p -o 6M -l 64K "$mnt/e" || return 1
	"$ctl" map -q "$mnt/e" | awk 'NR > 1 && NF == 3 { print $1, $2, $3 }' >"$work/got"
	printf '%s\n' '0 0x200000 huge' '0x200000 0x400000 hole' '0x600000 0x200000 holes' '0x800000 0x100000 end' |
		diff - "$work/got" || return 1
	echo small >"$mnt/f"
	is f "$("$ctl" map --json --quality "$mnt/f" | tr -d ' \n')" \
		'{"size":6,"huge_bytes":0,"percent":0,"pieces":1,"huge_pieces":0,"runs":[{"file_off":0,"len":6,"quality":"inline"}]}' ||
		return 1
	: >"$mnt/g"
	is g "$(quality g)" '0 KiB of 0 KiB (0 %) can be mapped by large pages: 0 of 0 pieces of 2 MiB'
}

case_options()
{
	fresh 64M && says 1 'direct_unit=1G: must be 4K or 2M' "$umbrafs" -o direct_unit=1G "$pool" "$mnt"
}

# huge_at UNIT: on a tmpfs that has large pages the mapping is of those
huge_at()
{
	local own=$shm/huge rc
	mkdir -p "$own"
	if ! mount -t tmpfs -o huge=always,size=600M none "$own" 2>"$work/err"; then
		echo "no tmpfs with huge=always: $(tail -n 1 "$work/err")"
		return 77
	fi
	if grep -q '\[deny\]' /sys/kernel/mm/transparent_hugepage/shmem_enabled 2>/dev/null; then
		echo "this machine denies large pages to tmpfs"
		return 77
	fi
	pool=$own/pool
	mounted "$1" || return 1
	UMBRA_HUGE=shmem passes huge
	rc=$?
	down
	unmount "$own"
	return $rc
}

case_huge()
{
	huge_at 2M
}

case_huge_blocks()
{
	huge_at 4K
}

# shellcheck disable=SC2046
[ $# -gt 0 ] || set -- $(case_names)
for name in "$@"; do
	case_run "$name"
done
exit "$status"
