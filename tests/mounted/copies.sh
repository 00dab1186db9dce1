#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# shellcheck disable=SC1091,SC2154 # what tool_lib.sh sets
# Memory of the pool is never given to the kernel to copy: bad memory found there may stop the host (copies_preload.c looks).
#
#   copies.sh [CASE...]     prints 'ok copies/CASE', 'not ok copies/CASE: why'
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/tool_lib.sh"

preload=$UMBRA_BUILD/tests/mounted/libcopies_preload.so
daemon=''

# Runs a program under observation: watched COMMAND...
watched()
{
	LD_PRELOAD=$preload UMBRA_COPIES_LOG=$work/copies UMBRA_COPIES_POOL=$pool "$@"
}

# It has looked, and found nothing: clean LEAST-CALLS
clean()
{
	local calls
	grep 'is given' "$work/copies" | sort | uniq -c | head -5 | grep . && return 1
	calls=$(sed -n 's/^seen \([0-9]*\) calls, [1-9].*/\1/p' "$work/copies" | tail -n 1)
	[ "${calls:-0}" -ge "$1" ] && return 0
	echo "looked at ${calls:-no} calls, not $1 or more: $(tail -n 1 "$work/copies")"
	return 1
}

# Everything that has a request of its own.
tour()
{
	local i
	mkdir "$mnt/dir" && head -c 3000000 /dev/urandom >"$mnt/dir/file" && head -c 100 /dev/urandom >"$mnt/small" || return 1
	for ((i = 0; i < 400; i++)); do : >"$mnt/dir/name-that-is-a-little-longer-$i"; done
	cp "$mnt/dir/file" "$mnt/clone" && dd if="$mnt/small" of="$mnt/clone" bs=100 seek=77 conv=notrunc status=none || return 1
	dd if=/dev/urandom of="$mnt/bulk" bs=2M count=4 oflag=direct status=none && sync || return 1
	ln -s "$(printf '%03000d' 7)" "$mnt/link" && ln "$mnt/small" "$mnt/dir/again" && mkfifo "$mnt/fifo" || return 1
	setfattr -n user.large -v "$(printf '%020000d' 5)" "$mnt/small" && setfattr -n user.small -v 1 "$mnt/small" &&
		setfacl -m u:7:r "$mnt/small" || return 1
	echo 3 >/proc/sys/vm/drop_caches
	cat "$mnt/dir/file" "$mnt/small" "$mnt/clone" "$mnt/bulk" >/dev/null && dd if="$mnt/bulk" of=/dev/null bs=1M iflag=direct status=none || return 1
	ls -lR "$mnt" >/dev/null && readlink "$mnt/link" >/dev/null && getfattr --absolute-names -d "$mnt/small" >/dev/null && getfacl "$mnt/small" >/dev/null 2>&1 || return 1
	fallocate -z -o 4096 -l 8192 "$mnt/bulk" && fallocate -p -o 65536 -l 10000 "$mnt/bulk" && truncate -s 1000001 "$mnt/bulk" || return 1
	mv "$mnt/dir/name-that-is-a-little-longer-3" "$mnt/x" && rm "$mnt/dir/name-that-is-a-little-longer-4" && df "$mnt" >/dev/null || return 1
	"$ctl" map "$mnt/clone" >/dev/null && "$ctl" owners --range 0+64M "$mnt" >/dev/null && "$ctl" clone -r "$mnt/dir" "$mnt/dir2" &&
		"$ctl" stats "$mnt" >/dev/null && "$ctl" losses "$mnt" && "$ctl" events "$mnt" >/dev/null && "$ctl" scrub start --wait "$mnt" >/dev/null || return 1
}

# Over /dev/fuse: what goes over io_uring goes by no call, out of buffers that are made for it.
daemon_up()
{
	LD_PRELOAD=$preload UMBRA_COPIES_LOG=$work/copies UMBRA_COPIES_POOL=$pool "$umbrafs" -f -o transport=dev "$pool" "$mnt" </dev/null >"$work/log" 2>&1 &
	daemon=$!
	wait_for mountpoint -q "$mnt"
}

case_daemon()
{
	fresh 256M && daemon_up && tour && unmount "$mnt" && wait "$daemon" && clean 1000 || return 1
	# The journal is replayed.
	daemon_up && echo more >"$mnt/more" && kill -9 "$daemon" || return 1
	wait "$daemon" 2>/dev/null
	unmount "$mnt"
	daemon_up && cat "$mnt/more" >/dev/null && unmount "$mnt" && wait "$daemon" && clean 10
}

case_tools()
{
	fresh 64M && "$umbrafs" "$pool" "$mnt" >/dev/null && cp -r "$here" "$mnt/tests" && unmount "$mnt" || return 1
	watched "$bin/fsck.umbrafs" -fn "$pool" >"$work/out" && clean 0 || return 1
	damage 2101248 3000
	watched "$bin/fsck.umbrafs" -fy "$pool" >"$work/out" 2>&1
	clean 0 && watched "$bin/umbradump" "$pool" inode 1 >/dev/null && watched "$bin/umbradump" --save "$work/image" "$pool" >/dev/null &&
		clean 0 && watched "$bin/mkfs.umbrafs" -f --size 64M "$pool" >/dev/null && clean 0
}

[ -e "$preload" ] || { echo "skip copies/all: no $preload"; exit 0; }
# shellcheck disable=SC2046
[ $# -gt 0 ] || set -- $(case_names)
for name in "$@"; do
	case_run "$name"
done
exit "$status"
