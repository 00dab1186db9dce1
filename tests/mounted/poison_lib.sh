#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# shellcheck disable=SC2034,SC2154 # what tool_lib.sh sets, and what is for those who read this
# Bad memory for programs that map a pool (poison_preload.c): sourced after tool_lib.sh.

preload=$UMBRA_BUILD/tests/mounted/libpoison_preload.so
daemon=''
daemon_opts=()

daemon_up()
{
	rm -f "$work/pipe" "$work/answers"
	mkfifo "$work/pipe" && : >"$work/answers" || return 1
	LD_PRELOAD="$(poison_asan)$preload" UMBRA_POISON_PIPE=$work/pipe UMBRA_POISON_ANSWERS=$work/answers UMBRA_POISON_POOL=$pool \
		"$umbrafs" -f "${daemon_opts[@]}" "$pool" "$mnt" >"$work/log" 2>&1 </dev/null &
	daemon=$!
	wait_for mountpoint -q "$mnt"
}

# A sanitizer's library has to come first.
poison_asan()
{
	ldd "$umbrafs" | awk '/lib(a|t)san/ { print $3 ":" }'
}

daemon_down()
{
	unmount "$mnt" && wait "$daemon"
	daemon=''
}

is_longer()
{
	[ "$(wc -l <"$work/answers")" -gt "$1" ]
}

# The page at that offset of the pool: page bad|good OFFSET
page()
{
	local before
	before=$(wc -l <"$work/answers")
	if grep -q cannot "$work/answers"; then
		echo "bad memory cannot be made here (userfaultfd with UFFD_FEATURE_POISON)"
		return 77
	fi
	timeout 60 bash -c 'echo "$1" >"$2"' _ "$1 $2" "$work/pipe" || { echo "nobody reads the commands"; return 1; }
	wait_for is_longer "$before" || return 1
	is "the answer" "$(tail -n 1 "$work/answers")" "done"
}

# Where a block of a file lies: place FILE OFFSET
place()
{
	"$ctl" map --json "$1" | python3 -c '
import json, sys
off = int(sys.argv[1])
for e in json.load(sys.stdin):
    if e["file_off"] <= off < e["file_off"] + e["len"]:
        print(e["dev_off"] + off - e["file_off"])
' "$2"
}

# reads FILE OFFSET LENGTH data|error [direct]
reads()
{
	python3 - "$@" <<-'END'
		import errno, mmap, os, sys
		name, off, length, want = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
		direct = len(sys.argv) > 5
		fd = os.open(name, os.O_RDONLY | (os.O_DIRECT if direct else 0))
		buf = mmap.mmap(-1, (length + 4095) & ~4095)
		try:
		    n = os.preadv(fd, [memoryview(buf)[:length]], off)
		    got = 'data' if n == length else f'{n} bytes'
		except OSError as error:
		    got = 'error' if error.errno == errno.EIO else os.strerror(error.errno)
		if got != want:
		    sys.exit(f'{name} at {off}, {length} bytes: {got}, not {want}')
	END
}

# A file with blocks that are all different: blocks FILE COUNT
blocks()
{
	python3 -c 'import sys; sys.stdout.buffer.write(b"".join(b"%015d\n" % i for i in range(256 * int(sys.argv[1]))))' "$2" >"$1"
}

[ -e "$preload" ] || { echo "skip $suite/all: no $preload"; exit 0; }
