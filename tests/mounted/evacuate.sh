#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# shellcheck disable=SC1091,SC2154 # what tool_lib.sh sets
# Ranges of a mounted pool are emptied: quietly, under load, with the daemon killed in the middle, without enough space.
#
#   evacuate.sh [CASE...]     prints 'ok evacuate/CASE', 'not ok evacuate/CASE: why'
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/tool_lib.sh"

daemon='' writer=''

mount_up()
{
	"$umbrafs" -f "$pool" "$mnt" >"$work/log" 2>&1 </dev/null &
	daemon=$!
	wait_for mountpoint -q "$mnt"
}

mount_down()
{
	unmount "$mnt" && wait "$daemon"
}

mount_kill()
{
	kill -KILL "$daemon"
	wait "$daemon" 2>/dev/null
	umount -l "$mnt"
}

# Files, a clone of one, a tree of small ones; their sums are in $work/sums.
files()
{
	local i
	head -c 20M /dev/urandom >"$work/random"
	cp "$work/random" "$mnt/file" && cp "$mnt/file" "$mnt/twin" && mkdir "$mnt/dir" || return 1
	for ((i = 0; i < 200; i++)); do
		head -c $((i * 100 + 1)) "$work/random" >"$mnt/dir/$i" || return 1
	done
	(cd "$mnt" && find file twin dir -type f -exec sha1sum {} +) >"$work/sums"
}

same()
{
	(cd "$mnt" && sha1sum --quiet -c "$work/sums" 2>&1) || { echo "files are not what they were"; return 1; }
}

# evacuated RANGE: it ends with nothing left but what has to stay
evacuated()
{
	local range=$1 rc
	"$ctl" evacuate "$range" "$mnt" >"$work/out" 2>"$work/err" </dev/null
	rc=$?
	if { [ "$rc" != 0 ] && [ "$rc" != 3 ]; } || [ -s "$work/err" ]; then
		echo "evacuate $range ended with $rc: $(head -c 300 "$work/err" | tr '\n' '|')"
		return 1
	fi
	if grep 'stays:' "$work/out" | grep -v 'fixed place'; then
		return 1
	fi
	return 0
}

# Nobody else is at work: what has been emptied is empty.
is_empty()
{
	"$ctl" owners --range "$1" "$mnt" | grep '^ *0x.* file ' && { echo "there are files in it still"; return 1; }
	return 0
}

groups()
{
	local agno
	for agno in 0 1 2 3; do
		evacuated "$((agno * 64))M+64M" || return 1
	done
}

case_quiet()
{
	fresh 256M && mount_up && files || return 1
	groups && same && evacuated 64M+64M && is_empty 64M+64M || return 1
	is "what is out of use" "$("$ctl" poison list "$mnt")" "" || return 1
	"$ctl" evacuate 0+16K "$mnt" >"$work/out"
	is "the status where all stays" $? 3 && grep -q '^stays: 0+16384  superblock' "$work/out" || return 1
	"$ctl" evacuate --json --mark-bad 64M+64M "$mnt" >"$work/out"
	is "the status of a group" $? 3 && is "bytes that stay" "$(json_of left_bytes)" $((4 << 20)) || return 1
	is "lines of poison list" "$("$ctl" poison list "$mnt" | grep -c 0x)" 3 && same || return 1
	mount_down && mount_up && same || return 1
	is "lines of poison list" "$("$ctl" poison list "$mnt" | grep -c 0x)" 3 || return 1
	mount_down && works "$bin/fsck.umbrafs" -fn "$pool"
}

# Lanes of the journal move, are used, found again, and shown where they are.
case_journal()
{
	fresh 256M && mount_up && files || return 1
	"$ctl" owners --range 4M+8M "$mnt" | grep -q journal || { echo "the lanes are not where they were thought to be"; return 1; }
	"$ctl" evacuate 4M+8M "$mnt" >"$work/out"
	is "the status where lanes were" $? 0 && is "owners where lanes were" "$("$ctl" owners --range 4M+8M "$mnt" | grep -c journal)" 0 || return 1
	"$ctl" evacuate --json --mark-bad 0+2M "$mnt" >"$work/out"
	is "bytes that stay in the first chunk" "$(json_of left_bytes)" 65536 || return 1
	cp "$work/random" "$mnt/more" && same || return 1
	mount_kill && mount_up && same && mount_down || return 1
	"$bin/umbradump" "$pool" super >"$work/out" && grep -q 'lane 0' "$work/out" || return 1
	grep -q 'lane 0.* 1024[ ,]' "$work/out" && { echo "lane 0 is said to lie where it was"; return 1; }
	works "$bin/fsck.umbrafs" -fn "$pool"
}

case_refused()
{
	fresh 256M && mount_up && files || return 1
	says 2 'must be START' "$ctl" evacuate x "$mnt" || return 1
	says 1 'past the end' "$ctl" evacuate 1T "$mnt" || return 1
	says 1 'not enough space elsewhere, nothing was done: about .* needed .*, .* free' "$ctl" evacuate 0+1T "$mnt" || return 1
	fallocate -l 150M "$mnt/filler" || return 1
	says 1 'not enough space elsewhere' "$ctl" evacuate 0+200M "$mnt" && same || return 1
	rm "$mnt/filler" && mount_down && works "$bin/fsck.umbrafs" -fn "$pool"
}

# Until $work/stop is there: stores to files of its own, clones, removes, and looks at what it stored.
load_start()
{
	rm -f "$work/stop"
	python3 - "$mnt" "$work/stop" "$ctl" >"$work/load" 2>&1 <<-'END' &
		import os, random, shutil, subprocess, sys
		mnt, stop, ctl = sys.argv[1:]
		rounds = 0
		while not os.path.exists(stop):
		    name = f'{mnt}/load{rounds % 5}'
		    data = random.randbytes(random.randrange(1, 3000000))
		    with open(name, 'wb') as f:
		        f.write(data)
		    subprocess.run([ctl, 'clone', name, f'{mnt}/clone{rounds}'], check=True)
		    with open(name, 'r+b') as f:
		        f.seek(len(data) // 2)
		        f.write(b'x' * 5000)
		    if open(f'{mnt}/clone{rounds}', 'rb').read() != data:
		        sys.exit(f'clone {rounds} is not what it was')
		    want = data[:len(data) // 2] + b'x' * 5000 + data[len(data) // 2 + 5000:]
		    if open(name, 'rb').read() != want:
		        sys.exit(f'file {rounds} is not what was stored')
		    if rounds > 3:
		        os.unlink(f'{mnt}/clone{rounds - 3}')
		    rounds += 1
		print('rounds', rounds)
	END
	writer=$!
	# A name that stays: its clones are removed after a few rounds, sooner than this may look.
	wait_for test -e "$mnt/load3" || { echo "the load: $(tail -n 1 "$work/load")"; return 1; }
}

case_load()
{
	local round rc=0
	fresh 256M && mount_up && files && load_start || return 1
	for round in 1 2; do
		groups || rc=1
	done
	: >"$work/stop"
	wait "$writer" || { echo "the load: $(tail -n 1 "$work/load")"; return 1; }
	[ $rc = 0 ] && same && mount_down && works "$bin/fsck.umbrafs" -fn "$pool"
}

# Nothing in a range has to stay, and what others have stored there since it was emptied has not stayed.
case_reopened()
{
	local round rc=0
	fresh 256M && mount_up && files || return 1
	rm -f "$work/stop"
	python3 - "$mnt/large" "$work/stop" >"$work/load" 2>&1 <<-'END' &
		import os, sys
		name, stop = sys.argv[1:]
		while not os.path.exists(stop):
		    fd = os.open(name, os.O_CREAT | os.O_RDWR)
		    os.posix_fallocate(fd, 0, 140 << 20)
		    os.ftruncate(fd, 0)
		    os.close(fd)
	END
	writer=$!
	for ((round = 0; round < 60; round++)); do
		"$ctl" evacuate "$((round % 6 * 8 + 8))M+8M" "$mnt" >"$work/out" 2>&1 || { rc=$?; break; }
	done
	: >"$work/stop"
	wait "$writer" || { echo "the load: $(tail -n 1 "$work/load")"; return 1; }
	[ $rc = 0 ] || { echo "round $round ended with $rc: $(head -n 1 "$work/out")"; return 1; }
	same && mount_down && works "$bin/fsck.umbrafs" -fn "$pool"
}

# Killed in the middle, mounted, the same again.
case_kill()
{
	local round tool
	fresh 256M && mount_up && files || return 1
	cp "$work/random" "$mnt/more" && sha1sum "$work/random" | sed 's, .*,  more,' >>"$work/sums" || return 1
	for round in 1 2 3; do
		"$ctl" evacuate "$((round % 2 * 128))M+128M" "$mnt" >"$work/out" 2>&1 &
		tool=$!
		if [ "$round" -lt 3 ]; then
			wait_for moved_some || return 1
			mount_kill
		else
			kill -TERM "$tool" # perhaps it has come to its end
			wait "$tool"
			mount_down || return 1
		fi
		wait "$tool"
		mount_up && same && evacuated "$((round % 2 * 128))M+128M" || return 1
		is_empty "$((round % 2 * 128))M+128M" && same || return 1
	done
	mount_down && works "$bin/fsck.umbrafs" -fn "$pool"
}

# The tool is at it, or has been.
moved_some()
{
	[ -s "$work/out" ] || [ "$("$ctl" stats --json "$mnt" | sed -n 's/.*"commits": *\([0-9]*\).*/\1/p')" -gt 300 ]
}

# shellcheck disable=SC2046
[ $# -gt 0 ] || set -- $(case_names)
for name in "$@"; do
	case_run "$name"
done
exit "$status"
