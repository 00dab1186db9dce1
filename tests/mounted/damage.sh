#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# shellcheck disable=SC1091,SC2154 # what tool_lib.sh sets
# Damaged pools and dead daemons: what is met is mended or named, and nothing that was acknowledged is lost.
#
#   damage.sh [CASE...]     prints 'ok damage/CASE', 'not ok damage/CASE: why', 'skip damage/CASE: why'
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/tool_lib.sh"

case_truncated()
{
	fresh || return 1
	truncate -s 32M "$pool"
	says 32 "$pool" "$umbrafs" "$pool" "$mnt"
}

case_one_superblock()
{
	local size
	fresh || return 1
	size=$(stat -c %s "$pool")
	damage 100 1000
	"$umbrafs" "$pool" "$mnt" >"$work/out" 2>"$work/err" || {
		echo "does not mount by the second superblock: $(cat "$work/err")"
		return 1
	}
	grep -qi 'superblock' "$work/err" || {
		echo "does not say that a superblock is damaged: $(cat "$work/err")"
		return 1
	}
	echo kept >"$mnt/file"
	down
	damage $((size - 4000)) 1000
	"$umbrafs" "$pool" "$mnt" >"$work/out" 2>"$work/err" || {
		echo "does not mount by the first superblock: $(cat "$work/err")"
		return 1
	}
	is "the file" "$(cat "$mnt/file")" kept || return 1
	down
	damage 100 1000
	damage $((size - 4000)) 1000
	"$umbrafs" "$pool" "$mnt" >"$work/out" 2>"$work/err"
	is "the status without any superblock" $? 32 && grep -q "$pool" "$work/err"
}

# Both copies of the root directory's inode. Whoever waits for the mount hears why it fails.
case_damaged_root()
{
	local way
	fresh || return 1
	damage $((2 << 20)) 4096
	damage $((60 << 20)) 4096
	for way in --foreground -v; do
		timeout 60 "$umbrafs" $way "$pool" "$mnt" >"$work/out" 2>"$work/err"
		is "the status with $way" $? 32 && grep -q "$pool: .*damaged metadata" "$work/err" || {
			echo "with $way it said '$(tr '\n' '|' <"$work/err")'"
			return 1
		}
	done
}

daemon_kill()
{
	local pid
	pid=$(pgrep -f "$umbrafs $pool $mnt") && kill -KILL "$pid" && wait_for has_ended "$pid"
}

# Killed, then mounted read-only: made whole first.
case_readonly_after_kill()
{
	fresh || return 1
	works "$umbrafs" "$pool" "$mnt" || return 1
	echo kept >"$mnt/file"
	daemon_kill || return 1
	"$umbrafs" -o ro "$pool" "$mnt" >"$work/out" 2>"$work/err" || {
		echo "does not mount: $(cat "$work/err")"
		return 1
	}
	is "the file" "$(cat "$mnt/file")" kept
}

case_dead_mount()
{
	dead_mount cold && dead_mount warm
}

dead_mount()
{
	fresh || return 1
	works "$umbrafs" "$pool" "$mnt" || return 1
	echo kept >"$mnt/file"
	# What the kernel knows about the root, it knows for some time.
	[ "$1" = cold ] || stat "$mnt" >/dev/null
	daemon_kill || return 1
	says 0 'dead' "$umbrafs" "$pool" "$mnt" &&
		is "the file" "$(cat "$mnt/file")" kept &&
		is "mounts there" "$(grep -c " $mnt " /proc/self/mountinfo)" 1
}

# A daemon with much to take down is killed; the next one comes at once. (The pool is mapped where it was written.)
case_mount_after_kill()
{
	local round pid

	fresh || return 1
	for round in 1 2 3 4; do
		"$umbrafs" "$pool" "$mnt" >"$work/out" 2>"$work/err" </dev/null || { cat "$work/err"; return 1; }
		head -c 30000000 /dev/zero >"$mnt/file"
		pid=$(pgrep -f "$umbrafs $pool $mnt")
		kill -KILL "$pid"
		"$umbrafs" "$pool" "$mnt" >"$work/out" 2>"$work/err" </dev/null || { cat "$work/err"; return 1; }
		is "mounts there in round $round" "$(grep -c " $mnt " /proc/self/mountinfo)" 1 || return 1
		unmount "$mnt" || return 1
	done
}

# Killed at the start of its mount: nothing of it stays.
case_kill_at_mount()
{
	local round pid step end

	fresh || return 1
	for ((round = 0; round < 150; round++)); do
		"$umbrafs" -f "$pool" "$mnt" >/dev/null 2>&1 </dev/null &
		pid=$!
		until grep -q " $mnt " /proc/self/mountinfo; do kill -0 "$pid" || return 1; done
		for ((step = RANDOM % 300; step > 0; step--)); do :; done
		kill -KILL "$pid"
		end=$((SECONDS + 30))
		until grep -q '^State:.*Z' "/proc/$pid/status" 2>/dev/null || [ ! -e "/proc/$pid" ]; do
			if [ "$SECONDS" -ge "$end" ]; then
				echo "round $round: it is still there: $(grep '^State' "/proc/$pid/status")"
				umount -f "$mnt"
				return 1
			fi
		done
		wait "$pid" 2>/dev/null
		umount -l "$mnt" || return 1
	done
}

# What a dead daemon never got is not called safe.
case_sync_to_the_dead()
{
	fresh || return 1
	works "$umbrafs" "$pool" "$mnt" || return 1
	python3 - "$mnt/file" "$(pgrep -f "$umbrafs $pool $mnt")" <<-'END'
		import mmap, os, signal, sys, time
		fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
		os.write(fd, b'a' * 8192)
		map = mmap.mmap(fd, 8192)
		os.fsync(fd)
		map[0:3] = b'new'
		os.kill(int(sys.argv[2]), signal.SIGKILL)
		while True:
		    try:
		        os.statvfs(sys.argv[1])
		    except OSError:
		        break
		    time.sleep(0.01)
		bad = []
		for name, call in (('msync', map.flush), ('fsync', lambda: os.fsync(fd)), ('fdatasync', lambda: os.fdatasync(fd))):
		    try:
		        call()
		        bad.append(name)
		    except OSError:
		        pass
		if bad:
		    sys.exit('says that all is well: ' + ' '.join(bad))
	END
}

# Damage that is met is mended, counted, and told with the path of the file; scrub finds what nobody meets.
case_heal()
{
	local ino at pid

	fresh || return 1
	works "$umbrafs" "$pool" "$mnt" && mkdir "$mnt/dir" && echo kept >"$mnt/dir/file" || return 1
	(cd "$mnt/dir" && seq 4000 | xargs touch) || return 1 # more than a scrub reads at once
	ino=$(stat -c %i "$mnt/dir/file")
	at=$((2 * 1024 * 1024 + ino * 512 + 100)) # group 0, slot 0
	unmount "$mnt" && down
	damage $at 8
	"$umbrafs" -f "$pool" "$mnt" >"$work/out" 2>"$work/log" </dev/null &
	pid=$!
	wait_for mountpoint -q "$mnt" && is "the file" "$(cat "$mnt/dir/file")" kept &&
		wait_for grep -q "of /dir/file (inode $ino): healed from its mirror" "$work/log" || return 1
	damage $at 8
	works "$ctl" scrub start --wait --json "$mnt" || return 1
	is "healed by scrub" "$(json_of healed)" 1 && [ "$(json_of run_ns)" -gt 0 ] && [ "$(json_of cpu_ns)" -gt 0 ] || return 1
	# Both copies: the mirror of slot 0 is the last chunk but one.
	damage $at 8
	damage $((at + (64 - 2 - 2 - 2) * 1024 * 1024)) 8
	"$ctl" scrub start --wait --json "$mnt" >"$work/out"
	is "the status" $? 1 || return 1
	is "lost" "$(json_of lost)" 1 &&
		wait_for grep -q "inode $ino.*: damaged in both copies" "$work/log" || return 1
	"$ctl" scrub start --rate 1 "$mnt" && says 1 'running already' "$ctl" scrub start "$mnt" &&
		works "$ctl" scrub throttle --rate 0 "$mnt" && works "$ctl" scrub stop "$mnt" &&
		says 2 'rate' "$ctl" scrub throttle "$mnt" && says 2 'no such' "$ctl" scrub x "$mnt" || return 1
	unmount "$mnt" && wait "$pid"
}

# ---- run ----

# shellcheck disable=SC2046
[ $# -gt 0 ] || set -- $(case_names)
for name in "$@"; do
	case_run "$name"
done
exit "$status"
