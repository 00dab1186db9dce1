#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# shellcheck disable=SC1091,SC2154 # what tool_lib.sh sets
# Bad memory under a mounted file system: pages of the pool raise SIGBUS in the daemon (poison_preload.c).
#
#   poison.sh [CASE...]     prints 'ok poison/CASE', 'not ok poison/CASE: why', 'skip poison/CASE: why'
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/tool_lib.sh"

preload=$UMBRA_BUILD/tests/mounted/libpoison_preload.so
daemon=''

daemon_up()
{
	rm -f "$work/pipe" "$work/answers"
	mkfifo "$work/pipe" && : >"$work/answers" || return 1
	LD_PRELOAD="$(poison_asan)$preload" UMBRA_POISON_PIPE=$work/pipe UMBRA_POISON_ANSWERS=$work/answers UMBRA_POISON_POOL=$pool \
		"$umbrafs" -f "$pool" "$mnt" >"$work/log" 2>&1 </dev/null &
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
	umount "$mnt" && wait "$daemon"
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
	if ! timeout 10 bash -c 'echo "$1" >"$2"' _ "$1 $2" "$work/pipe"; then
		echo "bad memory cannot be made here (userfaultfd with UFFD_FEATURE_POISON)"
		return 77
	fi
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

# What one owner, his clones and the tools see, before and after a remount; then he heals.
case_file()
{
	local off round
	fresh && daemon_up || return 1
	blocks "$mnt/file" 64 && cp "$mnt/file" "$work/want" && mkdir "$mnt/dir" && cp "$mnt/file" "$mnt/dir/twin" || return 1
	off=$(place "$mnt/file" 40960)
	exec 5<"$mnt/file"
	page bad "$off" || return
	reads "$mnt/file" 40960 4096 error direct || return 1
	for round in 1 2; do
		reads "$mnt/file" 40960 10 error && reads "$mnt/dir/twin" 41000 1 error || return 1
		reads "$mnt/file" 36864 4096 data && reads "$mnt/dir/twin" 45056 4096 data direct || return 1
		cmp -n 40960 "$mnt/file" "$work/want" && cmp -i 45056 "$mnt/dir/twin" "$work/want" || return 1
		"$ctl" losses "$mnt" >"$work/out"
		is "the status of losses" $? 3 && is "the lines of losses" "$(grep -c '40960  *45056.*/\(file\|dir/twin\) ' "$work/out")" 2 || return 1
		is "poison list" "$("$ctl" poison list "$mnt" | tail -n +2 | tr -s ' ')" " $(printf '%#x' "$off") 4096" || return 1
		if [ $round = 1 ]; then
			"$ctl" events --json "$mnt" >"$work/out" || return 1
			is "the events" "$(grep -c '"kind":"lost".*"path":"/\(file\|dir/twin\)"' "$work/out")" 2 || return 1
			wait_for grep -q 'bad memory at .*: /dir/twin .* has lost 4096 bytes between 40960 and 45056' "$work/log" || return 1
			exec 5<&-
			daemon_down && daemon_up || return 1
		fi
	done
	# A part of a lost line cannot be written, all of it can.
	python3 - "$mnt/file" <<-'END' || return 1
		import errno, os, sys
		fd = os.open(sys.argv[1], os.O_WRONLY)
		try:
		    os.pwrite(fd, b'x' * 10, 40960)
		    sys.exit('a part of a lost line was written')
		except OSError as error:
		    if error.errno != errno.EIO:
		        raise
	END
	dd if="$work/want" of="$mnt/file" bs=4096 skip=10 seek=10 count=1 conv=notrunc status=none || return 1
	cmp "$mnt/file" "$work/want" && reads "$mnt/dir/twin" 40960 1 error || return 1
	"$ctl" losses "$mnt" >"$work/out"
	is "the lines of losses" "$(grep -c twin "$work/out")" 1 && ! grep -q /file "$work/out" || return 1
	truncate -s 40960 "$mnt/dir/twin" && works "$ctl" losses "$mnt" || return 1
	daemon_down && works "$bin/fsck.umbrafs" -fn "$pool"
}

# Pages of the cache do not hide a loss, nor does a mapping; who maps the file is not killed elsewhere.
case_cached()
{
	local off
	fresh && daemon_up || return 1
	blocks "$mnt/file" 16 && cat "$mnt/file" >"$work/want" || return 1
	off=$(place "$mnt/file" 8192)
	python3 - "$mnt/file" "$work/go" "$work/seen" <<-'END' &
		import mmap, os, signal, sys, time
		fd = os.open(sys.argv[1], os.O_RDONLY)
		map = mmap.mmap(fd, 0, prot=mmap.PROT_READ, flags=mmap.MAP_SHARED)
		sum(map[::4096])
		open(sys.argv[3], 'w').write('mapped\n')
		while not os.path.exists(sys.argv[2]):
		    time.sleep(0.01)
		ok = map[4096:8192] == os.pread(fd, 4096, 4096) and map[12288:16384] == os.pread(fd, 4096, 12288)
		child = os.fork()
		if child == 0:
		    map[8192]
		    os._exit(0)
		status = os.waitpid(child, 0)[1]
		killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGBUS
		open(sys.argv[3], 'w').write('right\n' if ok and killed else f'wrong: {ok} {status}\n')
	END
	wait_for grep -q mapped "$work/seen" && page bad "$off" || return
	reads "$mnt/file" 8192 1 error direct && wait_for grep -q 'has lost' "$work/log" && : >"$work/go" || return 1
	wait_for grep -q 'right\|wrong' "$work/seen" && is "what the mapping shows" "$(cat "$work/seen")" right || return 1
	wait $! && reads "$mnt/file" 8192 4096 error && daemon_down
}

# Put back from a backup, for all sharers; the backup of something else is refused.
case_repair()
{
	local off
	fresh && daemon_up || return 1
	blocks "$mnt/file" 20 && cp "$mnt/file" "$work/want" && cp "$work/want" "$work/whole" && cp "$mnt/file" "$mnt/twin" || return 1
	truncate -s 80000 "$mnt/file" "$work/want" && cp "$mnt/file" "$mnt/third" || return 1
	page bad "$(place "$mnt/file" 77824)" && page bad "$(place "$mnt/file" 4096)" || return
	reads "$mnt/file" 77824 1 error direct && reads "$mnt/file" 4096 1 error direct || return 1
	says 1 'has another size' "$ctl" repair --from "$bin/umbrafs" "$mnt/file" || return 1
	tr 0 1 <"$work/want" >"$work/another"
	"$ctl" repair --from "$work/another" "$mnt/file" >"$work/out" 2>"$work/err"
	is "the status of a wrong backup" $? 1 && is "the lines about it" "$(grep -c 'differs from the backup' "$work/err")" 2 || return 1
	says 2 'BACKUP is missing' "$ctl" repair "$mnt/file" || return 1
	works "$ctl" repair --from "$work/want" "$mnt/file" || return 1
	cmp "$mnt/file" "$work/want" && cmp "$mnt/third" "$work/want" && cmp -n 80000 "$mnt/twin" "$work/want" || return 1
	# The twin is longer: what the backup does not have of it is still lost.
	"$ctl" losses "$mnt" >"$work/out"
	is "the lines of losses" "$(grep -c ' 80000  *81920 .*/twin ' "$work/out")" 1 && is "all of them" "$(wc -l <"$work/out")" 2 || return 1
	works "$ctl" repair --from "$work/whole" "$mnt/twin" && works "$ctl" losses "$mnt" && cmp "$mnt/twin" "$work/whole" || return 1
	daemon_down && works "$bin/fsck.umbrafs" -fn "$pool"
}

# Taken out of use by hand: what was there moves, nothing is lost; a block of nobody and one of metadata too.
case_by_hand()
{
	local off
	fresh && daemon_up || return 1
	blocks "$mnt/file" 16 && cp "$mnt/file" "$work/want" || return 1
	off=$(place "$mnt/file" 4096)
	works "$ctl" poison add "$off+8K" "$mnt" && works "$ctl" losses "$mnt" || return 1
	cmp "$mnt/file" "$work/want" && [ "$(place "$mnt/file" 4096)" != "$off" ] || return 1
	is "poison list" "$("$ctl" poison list "$mnt" | tail -n +2 | tr -s ' ')" " $(printf '%#x' "$off") 8192" || return 1
	is "the events" "$("$ctl" events "$mnt" | grep -c ' moved .*/file ')" 2 || return 1
	works "$ctl" poison add 40M "$mnt" || return 1
	is "the ranges" "$("$ctl" poison list "$mnt" | grep -c 0x)" 2 || return 1
	says 2 'whole blocks' "$ctl" poison add 100 "$mnt" && says 1 'leaves the device' "$ctl" poison add 1T "$mnt" || return 1
	daemon_down && works "$bin/fsck.umbrafs" -fn "$pool"
}

[ -e "$preload" ] || { echo "skip poison/all: no $preload"; exit 0; }
# shellcheck disable=SC2046
[ $# -gt 0 ] || set -- $(case_names)
for name in "$@"; do
	case_run "$name"
done
exit "$status"
