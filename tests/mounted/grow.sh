#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Growing a mounted pool in a plain file: by umbractl grow, by truncate(1) before, while somebody writes, and with the daemon killed
# in the middle.
#
#   grow.sh [CASE...]     prints 'ok grow/CASE', 'not ok grow/CASE: why'
#
# Environment: UMBRA_BUILD (the build folder), TMPDIR. Needs root, or the right to mount.
set -uo pipefail

bin=${UMBRA_BUILD:?}/tools
ctl=$bin/umbractl fsck=$bin/fsck.umbrafs
work=$(mktemp -d "${TMPDIR:-/tmp}/grow.XXXXXX") || exit 1
shm=$(mktemp -d /dev/shm/umbrafs-grow.XXXXXX 2>/dev/null) || shm=$work
mnt=$work/mnt pool=$shm/pool
daemon='' writer='' status=0

cleanup()
{
	[ -z "$writer" ] || kill -KILL "$writer" 2>/dev/null
	[ -z "$daemon" ] || kill -KILL "$daemon" 2>/dev/null
	mountpoint -q "$mnt" 2>/dev/null && umount -l "$mnt"
	rm -rf --one-file-system "$work"
	rm -rf --one-file-system "$shm"
}
trap cleanup EXIT

mount_up()
{
	local end=$((SECONDS + 60))
	"$bin/umbrafs" -f "$@" "$pool" "$mnt" </dev/null >"$work/log" 2>&1 &
	daemon=$!
	until mountpoint -q "$mnt"; do
		[ "$SECONDS" -lt "$end" ] || { echo "no mount: $(tr '\n' '|' <"$work/log")"; return 1; }
		sleep 0.02
	done
}

# As soon as nobody is there any more: what has just ended, or is being looked at in /proc, may hold it for a moment.
mount_down()
{
	local end=$((SECONDS + 60))
	until umount "$mnt" 2>/dev/null; do
		[ "$SECONDS" -lt "$end" ] || { umount "$mnt"; return 1; }
		sleep 0.02
	done
	wait "$daemon"
	daemon=''
}

mount_kill()
{
	kill -KILL "$daemon"
	wait "$daemon" 2>/dev/null
	umount -l "$mnt"
	daemon=''
}

new_pool()
{
	rm -f "$pool"
	"$bin/mkfs.umbrafs" "$@" "$pool" >/dev/null && mount_up
}

sound()
{
	"$fsck" -fn "$pool" >"$work/out" 2>&1 || {
		echo "fsck.umbrafs ends with $?: $(head -c 500 "$work/out" | tr '\n' '|')"
		return 1
	}
}

# size_is BYTES: so large the file system says it is
size_is()
{
	local size
	size=$("$ctl" info --json "$mnt" | sed -n 's/.*"size_bytes": *\([0-9]*\).*/\1/p' | head -1)
	[ "$size" = "$1" ] || {
		echo "size $size, not $1"
		return 1
	}
}

# says PATTERN COMMAND...: it fails, with one line
says()
{
	local pattern=$1
	shift
	"$@" >"$work/out" 2>"$work/err" && { echo "worked: $*"; return 1; }
	[ "$(wc -l <"$work/err")" = 1 ] && grep -qE -- "$pattern" "$work/err" || {
		echo "$*: $(tr '\n' '|' <"$work/err")"
		return 1
	}
}

blocks()
{
	stat -f -c %b "$mnt"
}

case_size()
{
	local before sum
	new_pool --size 100M --ag-size 32M || return 1
	head -c 20M /dev/urandom >"$mnt/file" && sum=$(sha256sum <"$mnt/file") || return 1
	before=$(blocks)
	"$ctl" grow --size 304M "$mnt" >"$work/out" && grep -q '304 MiB, was 96 MiB' "$work/out" || {
		echo "grow says: $(cat "$work/out")"
		return 1
	}
	[ "$(blocks)" -gt $((before * 5 / 2)) ] || { echo "statfs: $before blocks, then $(blocks)"; return 1; }
	[ "$(stat -c %s "$pool")" = $((304 << 20)) ] || { echo "the file has $(stat -c %s "$pool") bytes"; return 1; }
	head -c 200M /dev/zero >"$mnt/large" && [ "$(sha256sum <"$mnt/file")" = "$sum" ] || return 1
	mount_down && sound && mount_up && size_is $((304 << 20)) && [ "$(sha256sum <"$mnt/file")" = "$sum" ] || return 1
	[ "$(stat -c %s "$mnt/large")" = $((200 << 20)) ] || return 1
	mount_down
}

# Whoever has standard error does not read: nobody who has the mount waits for him, and he learns of it all in the end.
case_nobody_reads()
{
	rm -f "$work/log"
	mkfifo "$work/log" && exec 9<>"$work/log" || return 1
	new_pool --size 100M --ag-size 32M || return 1
	dd if=/dev/zero of="$work/log" bs=4096 oflag=nonblock 2>/dev/null
	timeout 60 "$ctl" grow --size 200M "$mnt" >"$work/out" || { echo "grow: $(cat "$work/out")"; return 1; }
	echo text >"$mnt/file" || return 1
	dd if="$work/log" of=/dev/null bs=4096 iflag=nonblock 2>/dev/null
	timeout 60 "$ctl" grow --size 300M "$mnt" >"$work/out" || return 1
	mount_down || return 1
	dd if="$work/log" of="$work/said" bs=4096 iflag=nonblock 2>/dev/null
	exec 9>&-
	rm "$work/log"
	[ "$(grep -a -c 'grown from' "$work/said")" = 2 ] || { echo "said: $(tr -d '\0' <"$work/said" | tr '\n' '|')"; return 1; }
}

case_truncate()
{
	new_pool --size 64M || return 1
	truncate -s 130M "$pool" || return 1
	"$ctl" grow --json "$mnt" | tr -d ' \n' | grep -q '"old_size_bytes":67108864,"size_bytes":134217728' || { echo "the wrong size"; return 1; }
	size_is $((128 << 20)) && mount_down && sound
}

# A size that no pool has is rounded, so that the next mount takes the file.
case_odd_size()
{
	new_pool --size 64M || return 1
	truncate -s 200000001 "$pool" && "$ctl" grow "$mnt" >"$work/out" && size_is $((190 << 20)) &&
		mount_down && sound && mount_up && size_is $((190 << 20)) && mount_down
}

case_refused()
{
	new_pool --size 64M || return 1
	says 'has not grown' "$ctl" grow "$mnt" && says 'no more fits' "$ctl" grow --size 65M "$mnt" &&
		says 'less than the file has' "$ctl" grow --size 32M "$mnt" &&
		says 'mount it again' "$ctl" grow --size 2000T "$mnt" &&
		says 'not a size' "$ctl" grow --size 12345 "$mnt" && size_is $((64 << 20)) || return 1
	mount_down || return 1
	truncate -s 256M "$pool" && mount_up -o ro && says 'Read-only' "$ctl" grow "$mnt" && mount_down || return 1
	mount_up && "$ctl" grow "$mnt" >"$work/out" && size_is $((256 << 20)) && mount_down && sound
}

# A full pool takes writes again at once.
case_full()
{
	new_pool --size 64M || return 1
	cat /dev/zero >"$mnt/fill" 2>/dev/null
	! echo more 2>/dev/null >"$mnt/fill2" || dd if=/dev/zero of="$mnt/fill2" bs=64k 2>/dev/null
	"$ctl" grow -s 128M "$mnt" >"$work/out" && head -c 20M /dev/urandom >"$mnt/more" || return 1
	mount_down && sound
}

# Writes files with their own sums until it cannot. Their folder is on the mount: without it there is none.
write_on()
{
	local n=0
	while head -c $((1 + RANDOM * 20)) /dev/urandom >"$work/piece.$1" 2>/dev/null &&
		cp "$work/piece.$1" "$mnt/d/w.$1.$n" 2>/dev/null; do
		sha256sum <"$work/piece.$1" >"$work/sum.$1.$n"
		n=$((n + 1))
		[ $n -lt 60 ] || break
	done
}

sums_hold()
{
	local sum name
	for sum in "$work"/sum.*; do
		[ -s "$sum" ] || continue
		name=w.${sum#"$work/sum."}
		[ "$(sha256sum <"$mnt/d/$name")" = "$(cat "$sum")" ] || { echo "$name is not what was written"; return 1; }
	done
}

case_writer()
{
	local to
	new_pool --size 64M --ag-size 16M && mkdir "$mnt/d" || return 1
	rm -f "$work"/sum.*
	write_on a &
	writer=$!
	for to in 66 70 84 100 132 180 256; do
		"$ctl" grow --size ${to}M "$mnt" >"$work/out" 2>&1 || grep -q 'no more fits' "$work/out" || {
			cat "$work/out"
			return 1
		}
	done
	wait "$writer"
	writer=''
	sums_hold && size_is $((256 << 20)) && mount_down && sound && mount_up && sums_hold && mount_down
}

# The daemon is killed somewhere in the middle.
case_killed()
{
	local round size=64 grow i delay_max=$((5000 + RANDOM % 5000)) rounds=${GROW_ROUNDS:-12}
	new_pool --size 64M --ag-size 16M && mkdir "$mnt/d" || return 1
	rm -f "$work"/sum.*
	for ((round = 0; round < rounds; round++)); do
		size=$((size + 2 + RANDOM % 150 * 2))
		write_on $round &
		writer=$!
		"$ctl" grow --size ${size}M "$mnt" >/dev/null 2>&1 &
		grow=$!
		for ((i = RANDOM % delay_max; i > 0; i--)); do :; done
		mount_kill || return 1
		wait "$grow"
		wait "$writer"
		writer=''
		mount_up || return 1
		[ -z "${GROW_TRACE:-}" ] || echo "# $round: $(blocks) blocks of $size MiB: $(head -1 "$work/log")" >&2
		sums_hold && mount_down && sound && mount_up || return 1
		"$ctl" grow --size ${size}M "$mnt" >/dev/null 2>&1 || "$ctl" grow "$mnt" >/dev/null 2>&1
		size_is $((size * 1048576)) >/dev/null || size_is $((size / 16 * 16 * 1048576)) || return 1
		mount_down && sound && mount_up && sums_hold || return 1
		rm -f "$mnt"/d/w.* "$work"/sum.*
	done
	mount_down && sound
}

# unfinished BEFORE AFTER WHERE TO: a pool of which the power was lost while it grew by two chunks, made of what it was before and after:
# WHERE is 'switch' (it is taken back) or 'end' (it is gone on with)
unfinished()
{
	python3 - "$@" <<-'END'
	import struct, sys
	table = []
	for i in range(256):
	    for _ in range(8):
	        i = i >> 1 ^ (0x82F63B78 if i & 1 else 0)
	    table.append(i)
	def crc(data):
	    c = 0xFFFFFFFF
	    for b in data:
	        c = c >> 8 ^ table[(c ^ b) & 255]
	    return c ^ 0xFFFFFFFF
	before, after = open(sys.argv[1], 'rb').read(), open(sys.argv[2], 'rb').read()
	old, new, mib = len(before), len(after), 1 << 20
	pool = bytearray(after)
	if sys.argv[3] == 'switch':
	    pool[:old] = before
	    pool[new - 4 * mib:new - 2 * mib] = before[old - 4 * mib:old - 2 * mib]
	block = bytearray(after[:4096])
	version = struct.unpack_from('<Q', block, 112)[0] + 9
	struct.pack_into('<Q', block, 24, version)
	struct.pack_into('<I', block, 52, 0)
	struct.pack_into('<Q', block, 72, block[72] | 2)
	struct.pack_into('<QQ', block, 112, version, old // 4096)
	struct.pack_into('<I', block, 4, 0)
	struct.pack_into('<I', block, 4, crc(block))
	for end in 4096, old, new:
	    pool[end - 4096:end] = block
	open(sys.argv[4], 'wb').write(pool)
	END
}

# What the tools make of a growth that was broken off.
case_unfinished()
{
	local where size
	new_pool --size 54M --ag-size 32M && head -c 3M /dev/urandom >"$mnt/file" || return 1
	sha256sum <"$mnt/file" >"$work/want"
	mount_down && cp "$pool" "$work/before" && mount_up && "$ctl" grow --size 58M "$mnt" >"$work/out" && mount_down &&
		cp "$pool" "$work/after" || return 1
	for where in switch end; do
		[ $where = end ] && size=58 || size=54
		unfinished "$work/before" "$work/after" $where "$pool" || return 1
		"$bin/umbradump" "$pool" >"$work/out" && [ "$(grep -c 'growing from 13824 blocks' "$work/out")" = 2 ] || {
			echo "$where: umbradump: $(tr '\n' '|' <"$work/out")"
			return 1
		}
		"$bin/umbradump" "$pool" group 1 >"$work/out" || return 1
		rm -f "$work/image"
		"$bin/umbradump" --save "$work/image" "$pool" >"$work/out" || { echo "$where: umbradump --save"; return 1; }
		"$fsck" -fy "$work/image" >"$work/out" 2>&1
		[ $? -le 1 ] && "$fsck" -fn "$work/image" >"$work/out" 2>&1 || {
			echo "$where: the image: $(tr '\n' '|' <"$work/out")"
			return 1
		}
		cp "$pool" "$work/same" && sound && cmp "$pool" "$work/same" || return 1
		mount_up -o ro && size_is $((size << 20)) && sha256sum <"$mnt/file" | cmp - "$work/want" && mount_down || return 1
		cmp "$pool" "$work/same" && "$fsck" -fy "$pool" >"$work/out" 2>&1
		[ $? -le 1 ] && mount_up && size_is $((size << 20)) && sha256sum <"$mnt/file" | cmp - "$work/want" || return 1
		"$ctl" grow --size 80M "$mnt" >"$work/out" && size_is $((80 << 20)) && mount_down && sound || return 1
		truncate -s 40M "$pool" || return 1
		says 'truncated' "$bin/umbrafs" -f "$pool" "$mnt" && says 'truncated' "$fsck" -fy "$pool" || return 1
	done
}

mkdir -p "$mnt"
if [ $# = 0 ]; then
	mapfile -t names < <(declare -F | sed -n 's/^declare -f case_//p')
	set -- "${names[@]}"
fi
for name in "$@"; do
	if "case_$name" >"$work/why"; then
		echo "ok grow/$name"
	else
		echo "not ok grow/$name: $(head -c 500 "$work/why" | tr '\n' '|')$([ -s "$work/why" ] || echo failed)"
		status=1
		[ -z "$writer" ] || kill -KILL "$writer" 2>/dev/null
		[ -z "$daemon" ] || { kill -KILL "$daemon" && umount -l "$mnt"; } 2>/dev/null
		daemon='' writer=''
	fi
done
exit $status
