#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# shellcheck disable=SC1091,SC2154 # what tool_lib.sh sets
# The command lines: bad input gets one clear line and the right status, and harms nothing; ways to mount and to end a mount.
#
#   cli.sh [CASE...]     prints 'ok cli/CASE', 'not ok cli/CASE: why', 'skip cli/CASE: why'
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/tool_lib.sh"

# ---- mkfs ----

case_mkfs_usage()
{
	rm -f "$pool"
	says 2 'missing POOL' "$mkfs" &&
		says 2 "unknown option '--frobnicate'" "$mkfs" --frobnicate "$pool" &&
		says 2 'needs a value' "$mkfs" "$pool" --size &&
		says 2 'not a size' "$mkfs" --size 12Q "$pool" &&
		says 2 'not a size' "$mkfs" --size -5 "$pool" &&
		says 2 'not a size.* no MB' "$mkfs" --size 64MB "$pool" &&
		says 2 'must be dup or single' "$mkfs" --metadata=triple --size 64M "$pool" &&
		says 2 'longer than 32 bytes' "$mkfs" --label 123456789012345678901234567890123 --size 64M "$pool" &&
		says 2 'not a UUID' "$mkfs" --uuid 1234 --size 64M "$pool" &&
		says 2 'too many' "$mkfs" --size 64M "$pool" "$pool" &&
		works "$mkfs" --help && works "$mkfs" --version &&
		is "the pool" "$(ls "$pool" 2>/dev/null)" ""
}

case_mkfs_where()
{
	rm -f "$pool"
	says 1 'no-such-file: not there; --size' "$mkfs" "$shm/no-such-file" &&
		says 1 "$shm/nodir/pool" "$mkfs" --size 64M "$shm/nodir/pool" &&
		says 1 'directory' "$mkfs" "$shm" &&
		says 1 '/dev/null.* not a device-DAX' "$mkfs" /dev/null &&
		says 1 'at least 16 MiB' "$mkfs" --size 8M "$pool" &&
		is "the pool" "$(ls "$pool" 2>/dev/null)" "" || return 1
	truncate -s 5000000 "$pool"
	says 1 "$pool.*(16 MiB|small|multiple)" "$mkfs" "$pool" || return 1
	truncate -s 4M "$pool"
	says 1 "$pool.*(16 MiB|small)" "$mkfs" "$pool" || return 1
	rm -f "$pool"
	mkfifo "$pool"
	says 1 "$pool" "$mkfs" "$pool"
	local rc=$?
	rm -f "$pool"
	return $rc
}

case_mkfs_foreign()
{
	rm -f "$pool"
	truncate -s 64M "$pool"
	mkfs.ext4 -q -L precious "$pool" || return 1
	local before
	before=$(sha256sum <"$pool")
	says 1 "ext4 file system \(label 'precious'\).*--force" "$mkfs" "$pool" &&
		says 1 'ext4' "$mkfs" --size 128M "$pool" &&
		is "the file" "$(sha256sum <"$pool")" "$before" &&
		works "$mkfs" --force "$pool" &&
		says 1 'umbrafs pool.*--force' "$mkfs" "$pool" &&
		{ damage 0 4096; damage $((64 * 1024 * 1024 - 4096)) 4096; true; } &&
		says 1 'umbrafs pool without a superblock.*--force' "$mkfs" "$pool" &&
		works "$mkfs" -f -q "$pool"
}

case_mkfs_options()
{
	rm -f "$pool"
	works "$mkfs" --size 256M --label 'my pool' --metadata=single --ag-size 64M \
		--uuid 01234567-89ab-cdef-0123-456789abcdef "$pool" &&
		grep -q 'label my pool' "$work/out" && grep -q '01234567-89ab-cdef-0123-456789abcdef' "$work/out" &&
		grep -q '4 of 64 MiB' "$work/out" && grep -q 'metadata *single' "$work/out" || {
		echo "the summary is wrong: $(tr '\n' '|' <"$work/out")"
		return 1
	}
	is "the size" "$(stat -c %s "$pool")" $((256 << 20)) || return 1
	rm -f "$pool"
	works "$mkfs" --size 64MiB "$pool" && is "the size" "$(stat -c %s "$pool")" $((64 << 20))
}

# The letter that is wrong is named, wherever it stands.
case_option_letters()
{
	fresh || return 1
	says 1 "unknown option '-Z'" "$umbrafs" -vZ "$pool" "$mnt" &&
		says 1 "unknown option '-Z'" "$umbrafs" --verbose -Zv "$pool" "$mnt" &&
		says 1 "unknown option '--verbose=1'" "$umbrafs" --verbose=1 "$pool" "$mnt" &&
		says 2 "unknown option '-Z'" "$mkfs" -Zq "$pool" &&
		says 2 "unknown option '-Z'" "$ctl" map -Zj "$mnt" &&
		says 2 "unknown option '--jsonx'" "$ctl" map --jsonx "$mnt" &&
		says 2 'must be from 5 to 63' "$mkfs" --dir-hash-bits 4294967301 "$pool"
}

# ---- mounting ----

case_mount_usage()
{
	fresh || return 1
	says 1 'missing POOL and DIR' "$umbrafs" &&
		says 1 'missing DIR' "$umbrafs" "$pool" &&
		says 1 'one argument too many' "$umbrafs" "$pool" "$mnt" extra &&
		says 1 "unknown option '-Z'" "$umbrafs" -Z "$pool" "$mnt" &&
		says 1 "unknown mount option 'frobnicate'" "$umbrafs" -o rw,frobnicate "$pool" "$mnt" &&
		says 1 'durability=fast' "$umbrafs" -o durability=fast "$pool" "$mnt" &&
		says 1 'threads=0' "$umbrafs" -o threads=0 "$pool" "$mnt" &&
		says 1 'threads=many' "$umbrafs" -o threads=many "$pool" "$mnt" &&
		says 1 'dax=maybe' "$umbrafs" -o dax=maybe "$pool" "$mnt" &&
		says 1 'missing' "$helper" "$pool" &&
		works "$helper" -f "$pool" "$mnt" &&
		works "$umbrafs" --help && works "$umbrafs" --version && works "$helper" --help
}

case_mount_where()
{
	fresh || return 1
	says 32 "$mnt/nowhere" "$umbrafs" "$pool" "$mnt/nowhere" &&
		says 32 'not a directory' "$umbrafs" "$pool" "$pool" &&
		says 32 'no-such-pool' "$umbrafs" "$shm/no-such-pool" "$mnt" &&
		says 32 '/dev/null' "$umbrafs" /dev/null "$mnt" &&
		says 32 "directory" "$umbrafs" "$shm" "$mnt" &&
		says 32 "$mnt/nowhere" "$helper" "$pool" "$mnt/nowhere"
}

# Whatever cannot be had at the start, nothing is left mounted, and there is a reason.
case_no_memory()
{
	local limit rc seen='' stacks=1000000
	fresh || return 1
	for limit in {3..48}; do
		(
			ulimit -s $stacks && ulimit -v $((limit * stacks / 2)) || exit 77
			exec "$umbrafs" -o threads=3 "$pool" "$mnt"
		) >"$work/out" 2>"$work/err" </dev/null
		rc=$?
		case $rc in 0) break ;; 77) return 77 ;; esac
		if grep -q " $mnt " /proc/self/mountinfo; then
			echo "left a mount behind with $limit half stacks: $(cat "$work/err")"
			umount -l "$mnt"
			return 1
		fi
		[ -s "$work/err" ] || {
			echo "gives no reason with $limit half stacks"
			return 1
		}
		! grep -q 'cannot be served' "$work/err" || seen=yes
	done
	is "the status with enough memory" $rc 0 && is "a mount that could not be served was seen" "$seen" yes
}

case_not_a_pool()
{
	rm -f "$pool"
	truncate -s 64M "$pool"
	says 32 "$pool" "$umbrafs" "$pool" "$mnt" || return 1
	dd if=/dev/urandom of="$pool" bs=1M count=32 status=none
	says 32 "$pool" "$umbrafs" "$pool" "$mnt" || return 1
	: >"$pool"
	says 32 "$pool.*empty" "$umbrafs" "$pool" "$mnt"
}

# Sets bit 40 of the features at byte off of both superblocks, with their checksums: feature OFF
feature()
{
	python3 - "$pool" "$1" <<-'END'
		import os, struct, sys
		table = []
		for n in range(256):
		    for _ in range(8):
		        n = n >> 1 ^ (0x82f63b78 if n & 1 else 0)
		    table.append(n)
		with open(sys.argv[1], "r+b") as f:
		    for start in (0, os.fstat(f.fileno()).st_size - 4096):
		        f.seek(start)
		        unit = bytearray(f.read(4096))
		        off = int(sys.argv[2])
		        unit[off:off + 8] = struct.pack("<Q", struct.unpack("<Q", unit[off:off + 8])[0] | 1 << 40)
		        unit[4:8] = bytes(4)
		        crc = 0xffffffff
		        for byte in unit:
		            crc = table[(crc ^ byte) & 255] ^ crc >> 8
		        unit[4:8] = struct.pack("<I", crc ^ 0xffffffff)
		        f.seek(start)
		        f.write(unit)
	END
}

case_unknown_features()
{
	fresh && feature 72 || return 1
	says 32 "$pool.*feature.*0x10000000000" "$umbrafs" "$pool" "$mnt" || return 1
	fresh && feature 64 || return 1
	"$umbrafs" "$pool" "$mnt" >"$work/out" 2>"$work/err" || {
		echo "does not mount with an unknown read-only feature: $(cat "$work/err")"
		return 1
	}
	grep -q '0x10000000000.*read-only' "$work/err" || {
		echo "said $(cat "$work/err")"
		return 1
	}
	touch "$mnt/file" 2>/dev/null && {
		echo "writable in spite of an unknown read-only feature"
		return 1
	}
	return 0
}

case_in_use()
{
	fresh || return 1
	works "$umbrafs" "$pool" "$mnt" || return 1
	mkdir -p "$work/mnt2"
	says 32 'in use' "$umbrafs" "$pool" "$work/mnt2" &&
		says 1 'in use' "$mkfs" --force "$pool" &&
		echo fine >"$mnt/file" && is "the file" "$(cat "$mnt/file")" fine
}

case_readonly()
{
	fresh || return 1
	works "$umbrafs" "$pool" "$mnt" || return 1
	echo kept >"$mnt/file"
	down
	local before
	before=$(sha256sum <"$pool")
	works "$umbrafs" -o ro "$pool" "$mnt" || return 1
	is "the file" "$(cat "$mnt/file")" kept || return 1
	touch "$mnt/new" 2>"$work/err" && {
		echo "a file could be made"
		return 1
	}
	grep -q 'Read-only' "$work/err" || {
		echo "said $(cat "$work/err")"
		return 1
	}
	down
	is "the pool" "$(sha256sum <"$pool")" "$before"
}

# ---- the end of a mount ----

case_signals()
{
	local signal pid
	for signal in TERM INT HUP; do
		fresh || return 1
		works "$umbrafs" "$pool" "$mnt" || return 1
		echo kept >"$mnt/file"
		pid=$(pgrep -f "$umbrafs $pool $mnt")
		kill -"$signal" "$pid"
		wait_for has_ended "$pid" || return 1
		mountpoint -q "$mnt" && {
			echo "still mounted after SIG$signal"
			return 1
		}
		works "$umbrafs" "$pool" "$mnt" && is "the file" "$(cat "$mnt/file")" kept || return 1
		down
	done
}

# Signals that are none of its business change nothing.
case_other_signals()
{
	local signal pid
	fresh || return 1
	works "$umbrafs" "$pool" "$mnt" || return 1
	pid=$(pgrep -f "$umbrafs $pool $mnt")
	for signal in USR2 USR1 PIPE USR2; do
		kill -"$signal" "$pid"
		echo "$signal" >>"$mnt/file" || return 1
	done
	kill -TERM "$pid"
	wait_for has_ended "$pid"
}

# Told to end while somebody has a file open: ends all the same, and nothing is lost.
case_signal_busy()
{
	local pid
	fresh || return 1
	works "$umbrafs" "$pool" "$mnt" || return 1
	exec 9>"$mnt/file"
	echo kept >&9
	pid=$(pgrep -f "$umbrafs $pool $mnt")
	kill -TERM "$pid"
	wait_for has_ended "$pid" || return 1
	exec 9>&-
	works "$umbrafs" "$pool" "$mnt" && is "the file" "$(cat "$mnt/file")" kept
}

case_umount_busy()
{
	fresh || return 1
	works "$umbrafs" "$pool" "$mnt" || return 1
	exec 9>"$mnt/file"
	umount "$mnt" 2>"$work/err" && {
		echo "umount of a busy mount worked"
		exec 9>&-
		return 1
	}
	echo still >&9
	exec 9>&-
	is "the file" "$(cat "$mnt/file")" still && unmount "$mnt"
}

case_remount_at_once()
{
	fresh || return 1
	for _ in 1 2 3 4 5; do
		works "$umbrafs" "$pool" "$mnt" && echo x >>"$mnt/file" && unmount "$mnt" || return 1
	done
	works "$umbrafs" "$pool" "$mnt" && is "the file" "$(wc -l <"$mnt/file")" 5
}

# ---- mount(8) ----

case_helper()
{
	fresh || return 1
	works "$helper" "$pool" "$mnt" -o rw,noatime,_netdev,nofail,x-systemd.automount,durability=process,threads=3 || return 1
	is "the mount" "$(awk -v m="$mnt" '$2 == m { print $1, $3, $4 }' /proc/mounts | cut -d, -f1-2)" \
		"$pool fuse.umbrafs rw,noatime" || return 1
	is "threads" "$("$ctl" info --json "$mnt" | sed -n 's/.*"threads": *\([0-9]*\).*/\1/p')" 3 || return 1
	# As mount(8) asks for it: with what the kernel says of the mount.
	works "$helper" "$pool" "$mnt" -o remount,ro,noatime,user_id=0,group_id=0,rootmode=40000,blksize=4096,max_read=131072,default_permissions,allow_other || return 1
	touch "$mnt/file" 2>/dev/null && {
		echo "writable after remount,ro"
		return 1
	}
	works "$helper" "$pool" "$mnt" -o remount,rw && works touch "$mnt/file" || return 1
	says 0 'cannot change threads: it stays' "$helper" "$pool" "$mnt" -o remount,threads=5 || return 1
	down
	says 1 "unknown mount option 'frobnicate'" "$helper" "$pool" "$mnt" -o frobnicate &&
		works "$helper" -s "$pool" "$mnt" -o frobnicate && works "$helper" -s -n -v -t umbrafs "$pool" "$mnt" -o remount
}

# Nothing but our own mounts, and no promise that the pool cannot keep.
case_remount()
{
	fresh || return 1
	mkdir -p "$work/other"
	mount -t tmpfs none "$work/other" || return 77
	says 32 'not an umbrafs' "$umbrafs" -o remount,ro "$pool" "$work/other" && works touch "$work/other/file" || return 1
	unmount "$work/other"
	says 32 "$mnt/nowhere" "$umbrafs" -o remount,ro "$pool" "$mnt/nowhere" || return 1
	works "$umbrafs" -o ro "$pool" "$mnt" || return 1
	says 32 'read only' "$umbrafs" -o remount,rw "$pool" "$mnt" &&
		works "$umbrafs" -o remount,ro,noexec "$pool" "$mnt" || return 1
}

case_mount_flags()
{
	local options
	fresh || return 1
	works "$umbrafs" -o nosuid,nodev,noexec,sync,nodiratime "$pool" "$mnt" || return 1
	options=$(awk -v m="$mnt" '$2 == m { print $4 }' /proc/mounts)
	for flag in nosuid nodev noexec sync nodiratime default_permissions allow_other; do
		[[ ,$options, = *,$flag,* ]] || {
			echo "$flag is not in $options"
			return 1
		}
	done
	down
	works "$umbrafs" "$pool" "$mnt" || return 1
	options=$(awk -v m="$mnt" '$2 == m { print $4 }' /proc/mounts)
	[[ $options != *nosuid* && $options != *nodev* ]] || {
		echo "root's mount has $options"
		return 1
	}
}

case_foreground()
{
	local pid
	fresh || return 1
	"$umbrafs" -f "$pool" "$mnt" >"$work/out" 2>"$work/err" &
	pid=$!
	wait_for mountpoint -q "$mnt" || return 1
	echo x >"$mnt/file" && unmount "$mnt"
	wait $pid
	is "the status" $? 0 && grep -q "$pool: 64 MiB, durability .* threads" "$work/out" || {
		echo "the line at mount is '$(cat "$work/out")'"
		return 1
	}
}

case_no_fuse()
{
	unshare -m true 2>/dev/null || return 77 # no mounts of its own, as in a chroot
	works "$mkfs" --size 64M "$work/pool" || return 1
	says 32 '/dev/fuse' unshare -m sh -c 'mount -t tmpfs none /dev && exec "$@"' sh "$umbrafs" "$work/pool" "$mnt"
}

# ---- not root ----

as_nobody()
{
	setpriv --reuid=65534 --regid=65534 --clear-groups "$@"
}

case_unprivileged()
{
	command -v fusermount3 >/dev/null || return 77
	[ -u "$(command -v fusermount3)" ] || return 77
	as_nobody test -w /dev/fuse || return 77
	down
	local dir=$shm/nobody
	mkdir -p "$dir/mnt"
	chown -R 65534:65534 "$dir"
	works as_nobody "$mkfs" --size 64M "$dir/pool" && works as_nobody "$umbrafs" "$dir/pool" "$dir/mnt" || return 1
	works as_nobody sh -c "echo mine >'$dir/mnt/file'" || return 1
	is "the file" "$(as_nobody cat "$dir/mnt/file")" mine || return 1
	works as_nobody "$ctl" owners "$dir/mnt" || return 1
	is "the owner" "$(as_nobody stat -c %u "$dir/mnt/file" "$dir/mnt" | xargs)" "65534 65534" || return 1
	works as_nobody fusermount3 -u "$dir/mnt" || return 1
	says 32 "cannot mount: fusermount3: .*/usr" as_nobody "$umbrafs" "$dir/pool" /usr &&
		says 32 "only root .*'nosymfollow'" as_nobody "$umbrafs" -o nosymfollow "$dir/pool" "$dir/mnt" || return 1
	fresh && chmod 600 "$pool" && says 32 "$pool.*(denied|opened)" as_nobody "$umbrafs" "$pool" "$dir/mnt"
}

# ---- umbractl ----

case_ctl_usage()
{
	fresh && works "$umbrafs" "$pool" "$mnt" || return 1
	echo x >"$mnt/file"
	mkdir "$mnt/dir"
	says 2 'which command' "$ctl" &&
		says 2 "unknown command 'frobnicate'" "$ctl" frobnicate &&
		says 2 'unknown option' "$ctl" info --frobnicate "$mnt" &&
		says 1 'not on an umbrafs' "$ctl" info "$shm" &&
		says 1 'no-such' "$ctl" map "$mnt/no-such" &&
		says 1 'not a regular file' "$ctl" map "$mnt/dir" &&
		says 2 '--range' "$ctl" owners --range foo "$mnt" &&
		says 1 'leaves the device' "$ctl" owners --range 1T "$mnt" &&
		says 1 'is a directory' "$ctl" clone "$mnt/dir" "$mnt/new" &&
		says 1 'same mount' "$ctl" clone "$mnt/file" "$shm/new" &&
		says 1 'no-such' "$ctl" clone "$mnt/no-such" "$mnt/new" &&
		works "$ctl" --help && works "$ctl" clone --help && works "$ctl" --version
}

case_ctl_json()
{
	local command
	fresh && works "$umbrafs" "$pool" "$mnt" || return 1
	head -c 100000 /dev/urandom >"$mnt/file"
	cp "$mnt/file" "$mnt/"$'odd \377\n"name'
	for command in "info $mnt" "stats $mnt" "map $mnt/file" "owners $mnt"; do
		# shellcheck disable=SC2086
		works "$ctl" ${command%% *} --json ${command#* } || return 1
		python3 -c 'import json, sys; json.load(sys.stdin)' <"$work/out" || {
			echo "$command: no JSON"
			return 1
		}
	done
	python3 - "$work/out" <<-'END'
		import json, sys
		names = {o.get("path") for o in json.load(open(sys.argv[1]))}
		assert "/file" in names and '/odd \\xff\\x0a"name' in names, names
	END
}

case_ctl_clone()
{
	fresh 128M && works "$umbrafs" "$pool" "$mnt" || return 1
	mkdir -p "$mnt/tree/a/b"
	cp -r "${UMBRA_SRC:-/usr/include/linux}/." "$mnt/tree/a/b/" 2>/dev/null
	head -c 3000001 /dev/urandom >"$mnt/tree/big"
	: >"$mnt/tree/empty"
	ln -s nowhere "$mnt/tree/link"
	mkfifo "$mnt/tree/fifo"
	chmod 4711 "$mnt/tree/big"
	setfattr -n user.colour -v red "$mnt/tree/a" "$mnt/tree/big"
	chown -h 12:34 "$mnt/tree/link" "$mnt/tree/a"
	touch -d '2001-02-03 04:05:06.789' "$mnt/tree/big" "$mnt/tree/a"
	works "$ctl" clone -r "$mnt/tree" "$mnt/clone" || return 1
	describe "$mnt/tree" >"$work/a"
	describe "$mnt/clone" >"$work/b"
	diff "$work/a" "$work/b" >"$work/diff" || {
		echo "the clone differs: $(head -5 "$work/diff" | tr '\n' '|')"
		return 1
	}
	"$ctl" map "$mnt/clone/big" | grep -q shared || {
		echo "nothing is shared"
		return 1
	}
	works "$ctl" clone "$mnt/tree/big" "$mnt/one" && works cmp "$mnt/tree/big" "$mnt/one" &&
		says 1 'one: File exists' "$ctl" clone "$mnt/tree/big" "$mnt/one" &&
		works "$ctl" clone "$mnt/one" "$mnt/clone" && works cmp "$mnt/one" "$mnt/clone/one" &&
		says 1 'tree: .*into itself' "$ctl" clone -r "$mnt/tree" "$mnt/tree/within" &&
		says 1 'tree: .*into itself' "$ctl" clone -r "$mnt/tree" "$mnt/tree" &&
		says 1 'a: .*into itself' "$ctl" clone -r "$mnt/tree/a" "$mnt/tree/a/b" &&
		works "$ctl" clone -r "$mnt/tree/a" "$mnt/tree/within" &&
		says 1 'no.x0asuch.x1b' "$ctl" map "$mnt/no"$'\n'"such"$'\e'
}

# Who cannot give a file away does not lend his own rights with it.
case_ctl_clone_setuid()
{
	fresh && works "$umbrafs" "$pool" "$mnt" || return 1
	chmod 1777 "$mnt"
	mkdir "$mnt/dir"
	head -c 10000 /dev/urandom >"$mnt/dir/program"
	chmod 7755 "$mnt/dir" "$mnt/dir/program"
	works as_nobody "$ctl" clone "$mnt/dir/program" "$mnt/program" &&
		works as_nobody "$ctl" clone -r "$mnt/dir" "$mnt/copy" || return 1
	is "what a clone may" "$(stat -c '%a %u' "$mnt/program" "$mnt/copy" "$mnt/copy/program" | xargs)" \
		"755 65534 755 65534 755 65534" || return 1
	works "$ctl" clone -r "$mnt/dir" "$mnt/copy2" &&
		is "what root's may" "$(stat -c '%a %u' "$mnt/copy2" "$mnt/copy2/program" | xargs)" "7755 0 7755 0"
}

# Everything that a clone has to have, line by line.
describe()
{
	(cd "$1" && find . -printf '%P %y %m %U:%G %s %l %TY%Tm%Td%TH%TM%TS\n' | grep -v '^ ' | sort &&
		find . -type f -print0 | sort -z | xargs -0 sha256sum && getfattr -R -d -m - . 2>/dev/null)
}

# ---- the demonstration ----

# What fails before it has mounted anything takes nothing down.
case_try_fails()
{
	"$here/../../tools/deps" --missing build run >/dev/null || return 77
	mkdir -p "$work/kept" "$work/programs/tools"
	mount -t tmpfs none "$work/kept" || return 77
	cp /bin/false "$work/programs/tools/umbrafs"
	UMBRA_BUILD=$work/programs TRY_TREE=$here "$here/../../tools/try" --keep "$work/kept" >"$work/out" 2>&1
	is "the status" $? 127 && mountpoint -q "$work/kept" || {
		echo "it unmounted what was there: $(tail -n 3 "$work/out")"
		return 1
	}
}

# ---- run ----

# Where /dev/fuse is for root alone, the case of other users gets mounts of its own in which it is not.
if [ "${1:-}" = --own-fuse ]; then
	shift
	mkdir "$work/dev"
	mount -t tmpfs none "$work/dev" && mknod -m 666 "$work/dev/fuse" c 10 229 &&
		mount --bind "$work/dev/fuse" /dev/fuse || exit 1
elif ! as_nobody test -w /dev/fuse && unshare -m true 2>/dev/null; then
	own_fuse=yes
fi
# shellcheck disable=SC2046
[ $# -gt 0 ] || set -- $(case_names)
for name in "$@"; do
	if [ "$name" = unprivileged ] && [ "${own_fuse:-}" = yes ]; then
		unshare -m "$0" --own-fuse "$name" || status=1
	else
		case_run "$name"
	fi
done
exit "$status"
