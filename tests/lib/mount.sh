# SPDX-License-Identifier: BSD-3-Clause
# Mounts of their own for test scripts (bash): make, mount, kill, mount again, take down. Source it.
#
#   mount_setup KIND       KIND is umbrafs, xfs, ext4 or tmpfs; makes a scratch folder, mount_work, and
#                          takes everything down when the shell ends, however it ends
#   mount_new SIZE         a new file system of SIZE (like 2G), mounted: its folder is mount_dir, mode 0755
#   mount_up [OPTIONS]     mounts what mount_new made, again (OPTIONS: more of mount's -o, like ro)
#   mount_down             unmounts and waits until the daemon has ended; fails if it ended badly
#   mount_crash            takes the file system away in mid-work: umbrafs's daemon is killed, xfs and ext4
#                          are shut down. It is still mounted, and dead
#   mount_clear            unmounts a dead one; nothing may have files of xfs or ext4 open any more
#   mount_end              takes down and removes everything (the exit trap does it too)
#
# A function that fails says why in mount_why and returns 1. The programs come from UMBRA_BUILD, else from
# PATH. UMBRA_MOUNT_OPTIONS adds options to every mount of umbrafs.
# shellcheck shell=bash

mount_kind='' mount_work='' mount_dir='' mount_pool='' mount_pid='' mount_why='' mount_size=''
mount_wait_max_s=60

# The path of one of our programs.
mount_program()
{
	local found=''
	if [ -n "${UMBRA_BUILD:-}" ]; then
		found=$(find "$UMBRA_BUILD" -type f -name "$1" -perm -u+x -print -quit 2>/dev/null)
	fi
	[ -n "$found" ] || found=$(command -v "$1") || return 1
	echo "$found"
}

mount_setup()
{
	mount_kind=$1
	mount_work=$(mktemp -d /dev/shm/umbra-mounted.XXXXXX) || return 1
	chmod 755 "$mount_work"
	mount_dir=$mount_work/mnt
	mount_pool=$mount_work/pool
	mkdir "$mount_dir"
	trap mount_end EXIT
	trap 'mount_end; exit 130' INT TERM HUP
	if [ "$mount_kind" = umbrafs ]; then
		mount_mkfs=$(mount_program mkfs.umbrafs) && mount_daemon=$(mount_program umbrafs) || {
			mount_why="mkfs.umbrafs and umbrafs are neither in UMBRA_BUILD nor in PATH"
			return 1
		}
	fi
}

# Is it mounted? By the mount table: a dead file system answers no stat.
mount_is()
{
	awk -v dir="$mount_dir" '$5 == dir { found = 1 } END { exit !found }' /proc/self/mountinfo
}

# Has the child ended? (Without waiting for it.)
mount_pid_gone()
{
	[ ! -e "/proc/$1" ] || grep -q '^State:[[:space:]]*[ZX]' "/proc/$1/status" 2>/dev/null
}

# Runs a check until it holds; gives up after mount_wait_max_s.
mount_wait()
{
	local end=$((SECONDS + mount_wait_max_s))
	until "$@"; do
		[ "$SECONDS" -lt "$end" ] || return 1
		sleep 0.02
	done
}

mount_log_tail()
{
	tail -n 3 "$mount_work/daemon.log" 2>/dev/null | tr '\n' ' '
}

mount_answered_or_dead()
{
	mount_is || mount_pid_gone "$mount_pid"
}

mount_new()
{
	mount_size=$1
	rm -f "$mount_pool"
	case $mount_kind in
	umbrafs) "$mount_mkfs" --size "$1" "$mount_pool" >"$mount_work/mkfs.log" 2>&1 ;;
	xfs) truncate -s "$1" "$mount_pool" && mkfs.xfs -q -m reflink=1 "$mount_pool" >"$mount_work/mkfs.log" 2>&1 ;;
	ext4) truncate -s "$1" "$mount_pool" && mkfs.ext4 -q "$mount_pool" >"$mount_work/mkfs.log" 2>&1 ;;
	tmpfs) : ;;
	*) false ;;
	esac || {
		mount_why="mkfs for $mount_kind failed: $(tail -n 3 "$mount_work/mkfs.log" 2>/dev/null | tr '\n' ' ')"
		return 1
	}
	mount_up && chmod 755 "$mount_dir"
}

mount_up()
{
	local more=${1:+,$1}
	case $mount_kind in
	umbrafs)
		"$mount_daemon" -f "$mount_pool" "$mount_dir" \
			-o "allow_other,default_permissions,suid,dev${UMBRA_MOUNT_OPTIONS:+,$UMBRA_MOUNT_OPTIONS}$more" \
			>>"$mount_work/daemon.log" 2>&1 </dev/null &
		mount_pid=$!
		if ! mount_wait mount_answered_or_dead || ! mount_is; then
			mount_why="umbrafs did not mount: $(mount_log_tail)"
			return 1
		fi
		;;
	tmpfs) mount -t tmpfs -o "size=$mount_size,mode=755$more" none "$mount_dir" ;;
	*) mount -t "$mount_kind" -o "loop$more" "$mount_pool" "$mount_dir" ;;
	esac || {
		mount_why="mounting $mount_kind failed"
		return 1
	}
}

mount_down()
{
	local rc
	if ! mount_wait umount "$mount_dir" 2>/dev/null && mount_is; then
		mount_why="umount failed: $(umount "$mount_dir" 2>&1)"
		return 1
	fi
	[ -n "$mount_pid" ] || return 0
	if ! mount_wait mount_pid_gone "$mount_pid"; then
		mount_why="the daemon still runs after the unmount"
		return 1
	fi
	wait "$mount_pid" 2>/dev/null
	rc=$?
	mount_pid=''
	[ "$rc" = 0 ] || {
		mount_why="the daemon ended with status $rc: $(mount_log_tail)"
		return 1
	}
}

mount_crash()
{
	case $mount_kind in
	umbrafs)
		kill -KILL "$mount_pid"
		wait "$mount_pid" 2>/dev/null
		mount_pid=''
		;;
	tmpfs) false ;;
	*) xfs_io -x -c 'shutdown -f' "$mount_dir" ;;
	esac || {
		mount_why="could not take $mount_kind down by force"
		return 1
	}
}

mount_clear()
{
	if [ "$mount_kind" = umbrafs ]; then
		umount -l "$mount_dir"
	else
		mount_wait umount "$mount_dir" 2>/dev/null
	fi || {
		mount_why="could not unmount the dead $mount_kind"
		return 1
	}
}

mount_end()
{
	set +e # the rest must be done whatever fails
	trap - EXIT INT TERM HUP
	[ -n "$mount_work" ] || return 0
	if mount_is; then
		umount "$mount_dir" 2>/dev/null || umount -l "$mount_dir" 2>/dev/null
	fi
	if [ -n "$mount_pid" ]; then
		mount_wait_max_s=10
		mount_wait mount_pid_gone "$mount_pid" || kill -KILL "$mount_pid" 2>/dev/null
		wait "$mount_pid" 2>/dev/null
		mount_pid=''
	fi
	rm -rf --one-file-system "$mount_work"
	mount_work=''
}
