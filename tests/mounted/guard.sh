#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# shellcheck disable=SC1091,SC2154 # what tool_lib.sh sets
# Mounts without a keeper whose daemon is killed and cannot end, since a thread of it waits in the kernel for what the daemon was asked itself; and mounts that
# answer nobody.
#
#   guard.sh [CASE...]     prints 'ok guard/CASE', 'not ok guard/CASE: why', 'skip guard/CASE: why'
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/tool_lib.sh"
. "$here/hold_lib.sh"
fusectl=/sys/fs/fuse/connections
mount_pid='' guard='' as=()

# A mount in the foreground, which is this shell's child, and its guard, if there is one: up [OPTION...]
up()
{
	: >"$work/log" # by whose line it is known to be there
	HOLD=$hold LD_PRELOAD=$UMBRA_BUILD/tests/mounted/libhold_preload.so "${as[@]}" "$umbrafs" -f -o transport=dev,threads=4 "$@" "$pool" "$mnt" \
		>>"$work/log" 2>&1 </dev/null &
	mount_pid=$!
	wait_for grep -q 'mounted on' "$work/log" || { tail -n 1 "$work/log"; return 1; }
	guard=$(pgrep -P "$mount_pid" || true)
}

ended_well()
{
	unmount "$mnt" && wait "$mount_pid" || { echo "the daemon ended badly: $(tail -n 1 "$work/log")"; return 1; }
	mount_pid=''
	[ -z "$guard" ] || wait_for has_ended "$guard" || return 1
	works "$bin/fsck.umbrafs" -fn "$pool"
}

# The daemon has taken a READ, and a thread of it waits in the kernel for the pages: hangs [OPTION...]
hangs()
{
	up "$@" && hold_file && ended_well && up "$@" && hold_read && hold_telling "$mount_pid"
}

leader_is_over()
{
	grep -q '^State:.Z' "/proc/$1/status"
}

# Without a guard nobody ends the connection: this is why there is one.
case_alone()
{
	fresh && hangs && kill -KILL "$guard" || return 1
	kill -KILL "$mount_pid"
	wait_for leader_is_over "$mount_pid" || return 1
	has_thread_in_kernel "$mount_pid" && ! has_ended "$caller" || { echo "it has ended by itself"; return 1; }
	umount -f "$mnt" 2>/dev/null
	wait_for has_ended "$caller" && wait_for has_ended "$teller" && wait_for has_ended "$mount_pid"
}

# Who waits is told, and so is everybody else.
told()
{
	wait_for has_ended "$caller" && wait_for has_ended "$teller" && wait_for has_ended "$mount_pid" && wait_for has_ended "$guard" ||
		{ umount -f "$mnt"; return 1; }
	wait "$caller" && { echo "the caller was given what he asked for"; return 1; }
	exec 8>&-
	says 1 'not connected' stat -f "$mnt"
}

case_killed()
{
	fresh && hangs || return 1
	[ -n "$guard" ] || { echo "there is no guard: $(tail -n 1 "$work/log")"; return 1; }
	kill -KILL "$mount_pid"
	told || return 1
	rm "$hold"
	up && is 'the file' "$(md5sum <"$mnt/file")" "$hold_sum" && ended_well
}

# A daemon that crashes writes core first, or would: the kernel waits for all threads of it to come to that.
case_crashed()
{
	ulimit -c 0
	fresh && hangs || return 1
	kill -SEGV "$mount_pid"
	told
}

# It has nothing but the end of the connection, listens to nobody but the kernel, and ends with its daemon.
case_manners()
{
	local signal
	cd "$work" && fresh && up || return 1
	is 'its name' "$(tr '\0' ' ' <"/proc/$guard/cmdline" | sed 's/ *$//') $(cat "/proc/$guard/comm")" "umbrafs-guard $mnt umbrafs-guard" || return 1
	is 'what it has open' "$(find "/proc/$guard/fd" -type l -printf '%l\n')" \
		"/$(awk -v dir="$mnt" '$5 == dir { sub(".*:", "", $3); print $3 }' /proc/self/mountinfo)/abort" || return 1
	is 'where it is' "$(readlink "/proc/$guard/cwd")" / || return 1
	! grep -F "$pool" "/proc/$guard/maps" || { echo "it has the pool mapped"; return 1; }
	for signal in TERM INT HUP USR1 USR2 PIPE CHLD; do
		kill -"$signal" "$guard"
	done
	wait_for eval '[ $((0x$(sed -n "s/^ShdPnd:\t//p" "/proc/$guard/status") & 0x200)) = 0 ]' || return 1 # USR1 has been taken
	echo x >"$mnt/file" && is 'the file' "$(cat "$mnt/file")" x && kill -0 "$guard" && ended_well && up || return 1
	kill -TERM "$mount_pid"
	wait "$mount_pid" && wait_for has_ended "$guard" && ! mountpoint -q "$mnt" || return 1
	# Nor does it matter to anybody that it is killed.
	up && kill -KILL "$guard" && echo y >"$mnt/file" && is 'the file' "$(cat "$mnt/file")" y && ended_well
}

# Who is not root has one as well, where the kernel's files for it are mounted; anything else in their place is not touched.
case_user()
{
	[ -u "$(command -v fusermount3)" ] && setpriv --reuid=65534 --regid=65534 --clear-groups test -w /dev/fuse || return 77
	as=(setpriv --reuid=65534 --regid=65534 --clear-groups)
	mkdir -p "$fusectl" 2>/dev/null
	mount -t fusectl none "$fusectl" && echo user_allow_other >"$work/fuse.conf" && mount --bind "$work/fuse.conf" /etc/fuse.conf || return 77
	fresh && chown 65534:65534 "$pool" "$mnt" && hangs -o allow_other || return 1
	[ -n "$guard" ] || { echo "there is no guard: $(tail -n 1 "$work/log")"; return 1; }
	kill -KILL "$mount_pid"
	told && umount "$mnt" && mount -t tmpfs none "$fusectl" || return 1
	rm "$hold"
	mkdir "$fusectl"/{1..300} && echo nothing | tee "$fusectl"/{1..300}/abort >/dev/null && chown 65534 "$fusectl"/*/abort || return 1
	up || return 1
	is 'a guard with nothing to end' "$guard" '' && ended_well && is 'a file of others' "$(cat "$fusectl"/*/abort | sort -u)" nothing
}

# Where a mount answers nobody another one says so, and does not hang with all the others.
case_in_the_way()
{
	fresh && up || return 1
	kill -STOP "$mount_pid"
	works "$mkfs" --size 64M "$shm/other" &&
		says 32 "the mount on $mnt does not answer; 'umount -f' ends it" timeout 60 "$umbrafs" "$shm/other" "$mnt" &&
		says 32 "$mnt/dir: the mount on $mnt does not answer" timeout 60 "$umbrafs" "$shm/other" "$mnt/dir" &&
		says 32 "the mount on $mnt does not answer" timeout 60 "$umbrafs" -o remount,ro "$pool" "$mnt"
	local rc=$?
	kill -CONT "$mount_pid"
	[ $rc = 0 ] && ended_well
}

own=''
if [ "${1:-}" = --own-mounts ]; then
	shift
	own=yes
	mkdir "$work/dev"
	mount -t tmpfs none "$work/dev" && mknod -m 666 "$work/dev/fuse" c 10 229 && mount --bind "$work/dev/fuse" /dev/fuse || exit 1
fi
if [ $# -eq 0 ]; then
	mapfile -t names < <(case_names)
	set -- "${names[@]}"
fi
for name; do
	if [ "$name" = user ] && [ -z "$own" ]; then
		unshare -m "$0" --own-mounts "$name" || status=1
	else
		case_run "$name"
	fi
done
exit $status
