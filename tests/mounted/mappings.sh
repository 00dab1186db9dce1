#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# shellcheck disable=SC1091,SC2154 # what tool_lib.sh sets
# Direct mappings: the protocol (mappings.py), the mount options, what a daemon that ends leaves behind.
#
#   mappings.sh [CASE...]     prints 'ok mappings/CASE', 'not ok mappings/CASE: why', 'skip mappings/CASE: why'
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/tool_lib.sh"

daemon=''

# daemon_up [OPTIONS]
daemon_up()
{
	"$umbrafs" -f -o "socket=$work/socket${1:+,$1}" "$pool" "$mnt" >"$work/log" 2>&1 </dev/null &
	daemon=$!
	wait_for mountpoint -q "$mnt"
}

daemon_down()
{
	unmount "$mnt" && wait "$daemon" && daemon=''
}

# A process that maps a file, and says so in $work/said: holder HOW [FILE]
# HOW: map, socket (does not let go when the daemon ends). Its number is in holder.
holder=''
holder_up()
{
	rm -f "$work/said"
	python3 - "$here" "$mnt" "$1" "$work/said" <<-'END' &
		import os, sys, time
		sys.path.insert(0, sys.argv[1])
		from mappings_client import MAP_WRITE, WRITE, Client, about
		rights, sock = about(sys.argv[2])
		fd = os.open(os.path.join(sys.argv[2], 'file'), os.O_RDWR)
		c = Client(sock, rights=rights)
		f = c.attach(fd)
		c.map(f['handle'], 0, 1 << 20, MAP_WRITE if rights & WRITE else 0)
		os.close(fd)
		with open(sys.argv[4], 'w') as said:
		    said.write('mapped')
		c.wait_over()
		if sys.argv[3] == 'leave':
		    time.sleep(1)
		    c.close()
		time.sleep(600)
	END
	holder=$!
	wait_for test -s "$work/said"
}

holder_down()
{
	kill -9 "$holder" 2>/dev/null
	wait "$holder" 2>/dev/null
	holder=''
}

blocks()
{
	python3 -c 'import sys; sys.stdout.buffer.write(b"".join(b"%015d\n" % i for i in range(256 * int(sys.argv[1]))))' "$2" >"$1"
}

# rights_are USER WANTED: what UMBRA_IOC_DIRECT says
rights_are()
{
	is "what $1 may have" "$(python3 - "$here" "$mnt" "$1" <<-'END'
		import os, pwd, sys
		sys.path.insert(0, sys.argv[1])
		from mappings_client import about
		user = pwd.getpwnam(sys.argv[3])
		os.initgroups(user.pw_name, user.pw_gid)
		os.setgid(user.pw_gid)
		os.setuid(user.pw_uid)
		print(about(sys.argv[2])[0])
	END
	)" "$2"
}

case_protocol()
{
	fresh 256M && daemon_up || return 1
	python3 "$here/mappings.py" "$mnt" >"$work/cases" 2>&1 || { grep -v '^ok' "$work/cases"; return 1; }
	[ "$(grep -c '^ok' "$work/cases")" -ge 18 ] || { echo "cases are missing"; return 1; }
	daemon_down && works "$bin/fsck.umbrafs" -fn "$pool"
}

case_options()
{
	fresh || return 1
	says 1 'direct=no: must be' "$umbrafs" -o direct=no "$pool" "$mnt" || return 1
	says 1 'direct=rx: must be' "$umbrafs" -o direct=rx "$pool" "$mnt" || return 1
	says 1 'direct=off:root: must be' "$umbrafs" -o direct=off:root "$pool" "$mnt" || return 1
	says 1 "there is no user 'nosuchuser'" "$umbrafs" -o direct=ro:root+nosuchuser "$pool" "$mnt" || return 1
	says 1 "there is no group 'nosuchgroup'" "$umbrafs" -o direct=ro:@nosuchgroup "$pool" "$mnt" || return 1
	says 1 'is missing' "$umbrafs" -o direct=rw: "$pool" "$mnt" || return 1
	says 1 'is missing' "$umbrafs" -o direct=rw:root++1 "$pool" "$mnt" || return 1
	says 1 'must be an absolute path' "$umbrafs" -o socket=here "$pool" "$mnt" || return 1
	says 32 'no socket for direct mappings' "$umbrafs" -o socket=/nonexistent/socket "$pool" "$mnt" || return 1
	mountpoint -q "$mnt" && { echo "it is mounted without its socket"; return 1; }
	daemon_up && chmod 755 "$mnt" && rights_are root 3 && rights_are nobody 0 && daemon_down || return 1
	daemon_up direct=off && rights_are root 0 && daemon_down || return 1
	daemon_up dax=never && rights_are root 0 && daemon_down || return 1
	daemon_up direct=ro && rights_are root 1 && rights_are nobody 0 && daemon_down || return 1
	daemon_up direct=ro:nobody && rights_are root 3 && rights_are nobody 1 && rights_are daemon 0 && daemon_down || return 1
	daemon_up direct=rw:65534+@daemon && rights_are nobody 3 && rights_are daemon 3 && rights_are bin 0 && daemon_down || return 1
	daemon_up 'direct=ro:*' && rights_are bin 1 && daemon_down || return 1
	daemon_up ro && rights_are root 1 && daemon_down
}

case_socket()
{
	local path
	fresh || return 1
	works "$umbrafs" "$pool" "$mnt" || return 1
	path=$(python3 -c 'import sys; sys.path.insert(0, sys.argv[1]); import mappings_client; print(mappings_client.about(sys.argv[2])[1])' "$here" "$mnt")
	[ -S "$path" ] || { echo "there is no socket '$path'"; return 1; }
	is "its mode" "$(stat -c %a "$path")" 666 || return 1
	case $path in /run/umbrafs/*) ;; *) echo "it is at $path"; return 1 ;; esac
	down
	[ ! -e "$path" ] || { echo "the socket is left"; return 1; }
	# One that a dead daemon has left is replaced; other things are not.
	daemon_up && kill -9 "$daemon" && { wait "$daemon" 2>/dev/null; [ -S "$work/socket" ]; } || return 1
	umount -l "$mnt"
	daemon_up && daemon_down || return 1
	echo text >"$work/socket"
	says 32 'no socket for direct mappings' "$umbrafs" -o "socket=$work/socket" "$pool" "$mnt" || return 1
	is "the file" "$(cat "$work/socket")" text || return 1
	rm "$work/socket"
}

# A daemon that is killed leaves mappings behind: the next mount waits for them, and refuses.
case_left()
{
	local rc=0
	fresh && daemon_up && blocks "$mnt/file" 16 && holder_up stay || return 1
	kill -9 "$daemon"
	wait "$daemon" 2>/dev/null
	umount -l "$mnt"
	says 32 "still have its memory mapped.* $holder \(python3\)" "$umbrafs" "$pool" "$mnt" || rc=1
	says 8 "still have its memory mapped" "$bin/fsck.umbrafs" -fp "$pool" || rc=1
	# For reading nobody can do harm.
	[ $rc = 1 ] || { daemon_up ro && daemon_down; } || rc=1
	holder_down
	[ $rc = 0 ] && daemon_up && daemon_down || return 1
	# One that lets go within the time.
	daemon_up && holder_up leave && kill -9 "$daemon" || return 1
	wait "$daemon" 2>/dev/null
	umount -l "$mnt"
	daemon_up || rc=1
	kill -0 "$holder" || { echo "the process has ended"; rc=1; }
	holder_down
	[ $rc = 0 ] && daemon_down && works "$bin/fsck.umbrafs" -fn "$pool"
}

all_stopped()
{
	! cat "/proc/$1"/task/*/stat | sed 's/.*) //' | grep -q '^[^T]'
}

# Whoever is looked for in /proc may have files of a server that does not answer: it is said all the same who still maps.
case_left_beside_silent()
{
	local rc=0 other
	fresh && daemon_up && blocks "$mnt/file" 16 && holder_up stay || return 1
	mkdir -p "$work/other" && works "$mkfs" --size 64M "$shm/other" || return 1
	"$umbrafs" -f "$shm/other" "$work/other" >/dev/null 2>&1 </dev/null &
	other=$!
	wait_for mountpoint -q "$work/other" && exec 8<>"$work/other/file" && echo text >&8 || return 1
	kill -STOP "$other"
	wait_for all_stopped "$other" || rc=1
	kill -9 "$daemon"
	wait "$daemon" 2>/dev/null
	umount -l "$mnt"
	says 32 "still have its memory mapped.* $holder \(python3\)" timeout -s KILL 60 "$umbrafs" "$pool" "$mnt" || rc=1
	kill -CONT "$other"
	exec 8>&-
	unmount "$work/other" && wait "$other" || rc=1
	holder_down
	return $rc
}

# An unmount under mappings.
case_unmount()
{
	local rc=0
	fresh && daemon_up && blocks "$mnt/file" 16 && holder_up leave || return 1
	daemon_down || { echo "it cannot be unmounted"; rc=1; }
	[ ! -e "$work/socket" ] || { echo "the socket is left"; rc=1; }
	[ $rc = 1 ] || { daemon_up && daemon_down; } || rc=1
	holder_down
	[ $rc = 0 ] && works "$bin/fsck.umbrafs" -fn "$pool"
}

# So many requests have not been answered, at least: waits_for COUNT
connection=''
waits_for()
{
	[ "$(cat "$work/fusectl/$connection/waiting")" -ge "$1" ]
}

late_revokes()
{
	python3 -c 'import sys; sys.path.insert(0, sys.argv[1]); import mappings_client; print(mappings_client.stats(sys.argv[2])["late_revokes"])' "$here" "$mnt"
}

# More processes wait for pages of a stopped process than there are threads: other files' calls are answered meanwhile.
readers=8
stopped_once()
{
	local late pages rc=0
	late=$(late_revokes) && holder_up stay && kill -STOP "$holder" && wait_for all_stopped "$holder" || return 1
	python3 - "$mnt/file" $readers <<-'END' &
		import mmap, os, sys
		memory = mmap.mmap(os.open(sys.argv[1], os.O_RDONLY), 1 << 16, prot=mmap.PROT_READ)
		memory.madvise(mmap.MADV_RANDOM)
		for i in range(int(sys.argv[2])):
		    if os.fork() == 0:
		        os._exit(memory[i << 13:(i << 13) + 15] != b'%015d' % (i << 9))
		sys.exit(any(os.wait()[1] for i in range(int(sys.argv[2]))))
	END
	pages=$!
	wait_for waits_for $readers || rc=1
	[ $rc = 1 ] || { [ "$(cat "$mnt/other")" = text ] && echo new >"$mnt/new" && stat "$mnt/other" >/dev/null && rm "$mnt/new"; } || rc=1
	# Nobody has been given up so far.
	[ $rc = 1 ] || { waits_for $readers && [ "$(late_revokes)" = "$late" ]; } || rc=2
	kill -CONT "$holder"
	wait "$pages" || { echo "a page is wrong"; rc=1; }
	holder_down
	return $rc
}

case_stopped()
{
	local round=0 rc=2
	mkdir -p "$work/fusectl" && mount -t fusectl none "$work/fusectl" || return 1
	fresh && daemon_up threads=2 && blocks "$mnt/file" 16 && echo text >"$mnt/other" && connection=$(stat -c %d "$mnt") || return 1
	# On a machine that is too busy it may take as long as nobody waits any more.
	while [ $rc = 2 ] && [ $((round += 1)) -le 5 ]; do
		stopped_once
		rc=$?
	done
	[ $rc = 2 ] && echo "other files' calls wait for the stopped process"
	umount "$work/fusectl"
	[ $rc = 0 ] && daemon_down && works "$bin/fsck.umbrafs" -fn "$pool"
}

case_shadows()
{
	local rc=0 dev
	fresh && daemon_up && blocks "$mnt/file" 16 && holder_up stay || return 1
	dev=$("$ctl" map --json "$mnt/file" | sed -n 's/.*"dev_off": *\([0-9]*\).*/\1/p' | head -n 1)
	{
		works "$ctl" shadows --json "$mnt" && is "the process" "$(json_of pid | head -n 1)" "$holder" &&
			is "the place" "$(json_of dev_off | head -n 1)" "$dev" &&
			is "the length" "$(json_of len | awk '{ n += $1 } END { print n }')" 65536 &&
			works "$ctl" shadows --pid "$holder" "$mnt/file" && grep -q "$holder .*write" "$work/out" &&
			works "$ctl" shadows --pid 1 "$mnt" && is "those of another process" "$(cat "$work/out")" "" &&
			works "$ctl" shadows --range "$((dev + 4096))+1" --json "$mnt" && is "the process" "$(json_of pid | head -n 1)" "$holder" &&
			works "$ctl" shadows --range "$((dev + 128 * 1048576))+4096" --json "$mnt" && is "those elsewhere" "$(json_of pid)" "" &&
			says 2 'must be the number' "$ctl" shadows --pid x "$mnt" && says 2 'must be START' "$ctl" shadows --range x "$mnt" &&
			works "$ctl" stats --json "$mnt" && is "the sessions" "$(json_of sessions)" 1 && works "$ctl" stats --prometheus "$mnt" &&
			grep -q '^umbrafs_direct_sessions{.*} 1$' "$work/out"
	} || rc=1
	holder_down
	[ $rc = 0 ] && daemon_down
}

if [ $# -eq 0 ]; then
	mapfile -t names < <(case_names)
	set -- "${names[@]}"
fi
for name; do
	case_run "$name"
	[ -z "$holder" ] || holder_down
done
exit $status
