#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# shellcheck disable=SC1091,SC2154 # what tool_lib.sh sets
# umbra-run: what the kernel does not pass works for programs that know nothing of umbrafs.
#
#   umbra_run.sh [CASE...]     prints 'ok umbra_run/CASE', 'not ok umbra_run/CASE: why'
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/tool_lib.sh"

run=$bin/umbra-run
# A sanitizer's runtime has to come first, which a preloaded library does not let it.
unset LD_PRELOAD

mounted()
{
	fresh 256M && works "$umbrafs" "$pool" "$mnt" && head -c 3000000 /dev/urandom >"$mnt/a"
}

case_calls()
{
	mounted || return 1
	"$run" --ioctl-only python3 "$here/unpassed.py" "$mnt" >"$work/out" 2>&1 || { cat "$work/out"; return 1; }
	is cases "$(grep -c '^ok ' "$work/out")" 6
}

case_coreutils()
{
	mounted || return 1
	works "$run" cp --reflink=always "$mnt/a" "$mnt/b" || return 1
	cmp "$mnt/a" "$mnt/b" || return 1
	"$ctl" map "$mnt/b" | grep -q 'shared' || { echo "b shares nothing"; return 1; }
	# As without: nothing is made up for other file systems.
	cp "$mnt/a" "$shm/a" || return 1
	says 1 'failed to clone' "$run" cp --reflink=always "$shm/a" "$shm/b"
}

case_filefrag()
{
	mounted && cp "$mnt/a" "$mnt/b" || return 1
	"$run" filefrag -v "$mnt/b" >"$work/out" || return 1
	grep -q 'shared' "$work/out" || { cat "$work/out"; return 1; }
}

case_xfs_io()
{
	mounted || return 1
	"$run" xfs_io -f -c "reflink $mnt/a 0 4096 8192" "$mnt/b" >"$work/out" 2>&1 || { cat "$work/out"; return 1; }
	cmp "$mnt/a" "$mnt/b" 0 4096 -n 8192 || return 1
	cp --reflink=never "$mnt/a" "$mnt/c" || return 1
	"$run" xfs_io -c "dedupe $mnt/a 0 0 3000000" "$mnt/c" >"$work/out" 2>&1 || { cat "$work/out"; return 1; }
	grep -q 'deduped 3000000/3000000' "$work/out" || { cat "$work/out"; return 1; }
	"$run" xfs_io -c 'fcollapse 0 4096' -c 'finsert 8192 4096' -c 'funshare 0 16384' "$mnt/c" >"$work/out" 2>&1 &&
		[ ! -s "$work/out" ] || { cat "$work/out"; return 1; }
	is size "$(stat -c %s "$mnt/c")" 3000000
}

# What a program starts has it too.
case_children()
{
	mounted || return 1
	"$run" sh -c "for i in 1 2 3; do cp --reflink=always '$mnt/a' '$mnt/copy'\$i & done; wait" || return 1
	is owners "$("$ctl" map "$mnt/a" | awk 'NR == 2 { print $4 }')" 4
}

case_command_line()
{
	says 125 'no program is given' "$run" || return 1
	says 125 "unknown option '--no'" "$run" --no true || return 1
	says 127 '/nowhere: No such file' "$run" /nowhere || return 1
	says 126 'Permission denied' "$run" /etc/passwd || return 1
	"$run" sh -c 'exit 7'
	is status $? 7 || return 1
	is 'what follows' "$("$run" -- printf %s --help)" --help || return 1
	# Libraries that are there already stay.
	is libraries "$(LD_PRELOAD=libm.so.6 "$run" sh -c 'echo "${LD_PRELOAD##*:}"')" libm.so.6
}

# shellcheck disable=SC2046
[ $# -gt 0 ] || set -- $(case_names)
for name in "$@"; do
	case_run "$name"
done
exit "$status"
