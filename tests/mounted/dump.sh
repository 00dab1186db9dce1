#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# shellcheck disable=SC1091,SC2154 # what tool_lib.sh sets
# umbradump: what it prints, and images of metadata that hold no contents, and no names if asked.
#
#   dump.sh [CASE...]     prints 'ok dump/CASE', 'not ok dump/CASE: why'
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/tool_lib.sh"
dump=$bin/umbradump fsck=$bin/fsck.umbrafs daemon=

mount_up()
{
	"$umbrafs" -f "$@" "$mnt" </dev/null >"$work/log" 2>&1 &
	daemon=$!
	wait_for mountpoint -q "$mnt" || {
		echo "no mount: $(tr '\n' '|' <"$work/log")"
		return 1
	}
}

mount_down()
{
	unmount "$mnt" && wait "$daemon"
	daemon=''
}

# A pool with everything in it that has a name or content; inode numbers go to the variables.
fill()
{
	"$mkfs" --size 256M --label SECRETlabel "$pool" >/dev/null || return 1
	mount_up "$pool" || return 1
	mkdir "$mnt/SECRETdir" "$mnt/many" &&
		echo SECRETsmall >"$mnt/SECRETfile" &&
		head -c 3000000 < <(yes SECRETbulk) >"$mnt/SECRETdir/large" &&
		cp "$mnt/SECRETdir/large" "$mnt/SECRETdir/clone" &&
		ln -s /SECRETtarget "$mnt/SECRETlink" &&
		setfattr -n user.SECRETname -v SECRETvalue "$mnt/SECRETfile" &&
		setfattr -n user.large -v "$(head -c 20000 < <(yes SECRETvalue))" "$mnt/SECRETfile" &&
		(cd "$mnt/many" && touch a b c ab ba . ..x $(seq -f 'SECRET%g' 1 1200)) || return 1
	dir=$(stat -c %i "$mnt/SECRETdir") large=$(stat -c %i "$mnt/SECRETdir/large")
	file=$(stat -c %i "$mnt/SECRETfile") many=$(stat -c %i "$mnt/many")
	(cd "$mnt" && find . -printf '%i %y %s %n %m\n' | sort) >"$work/tree"
	mount_down
}

# prints PATTERN WHAT...: umbradump says so about WHAT
prints()
{
	local pattern=$1
	shift
	"$dump" "$pool" "$@" >"$work/out" 2>&1 || {
		echo "umbradump $*: status $?: $(head -c 300 "$work/out" | tr '\n' '|')"
		return 1
	}
	grep -qE -- "$pattern" "$work/out" || {
		echo "umbradump $*: no '$pattern' in $(head -c 300 "$work/out" | tr '\n' '|')"
		return 1
	}
}

sound()
{
	"$fsck" -fn "$1" >"$work/out" 2>&1 || {
		echo "${1##*/}: fsck.umbrafs ends with $?: $(head -c 500 "$work/out" | tr '\n' '|')"
		return 1
	}
}

case_units()
{
	prints 'label "SECRETlabel"' super && prints 'group 0, ' group 0 && prints 'slot 0: chunk 1' group 0 chunks &&
		prints 'line 0: ' group 0 bitmap && prints 'copy 0' group 0 intents && prints 'copy 0' group 0 remaps &&
		prints 'superblock, offset 0' group 0 rmap && prints 'inodes from 0' group 0 inodes &&
		prints ': 2 owners' group "$group" refcounts && prints '^empty' group 0 orphans &&
		prints "inode $large, type 8, \"large\"" inode "$dir" data &&
		prints "parent $dir, .*\"large\"" inode "$large" attrs &&
		prints 'file blocks 0 \+ 733: device block' inode "$large" data &&
		prints 'xattr "user.large", 20000 bytes, in units' inode "$file" attrs &&
		prints 'SECRETsmall' inode "$file" && prints 'lane 0 mirror, block [0-9]+: empty' journal &&
		prints 'magic UMBI.*laddr 0x200' unit 0x200 && prints 'copy 1' --copy 1 unit 0x8000 &&
		prints '0000  55 4d 42 41' --hex unit 0x8000
}

case_usage()
{
	local line
	while read -r line; do
		# shellcheck disable=SC2086
		"$dump" $line >"$work/out" 2>"$work/err"
		[ $? = 2 ] && [ "$(wc -l <"$work/err")" = 1 ] || {
			echo "umbradump $line: $(cat "$work/err")"
			return 1
		}
	done <<-END
		--copy 2 $pool
		--hide-names $pool
		$pool group
		$pool group x
		$pool group 0 nothing
		$pool nothing
		$pool super 1
		--save x $pool super
		--nothing $pool
	END
	for line in "$pool group 4096" "$pool unit 77" "$work" "$shm/none"; do
		# shellcheck disable=SC2086
		"$dump" $line >"$work/out" 2>"$work/err"
		[ $? = 1 ] && [ "$(wc -l <"$work/err")" = 1 ] || {
			echo "umbradump $line: $(cat "$work/err")"
			return 1
		}
	done
}

case_mounted()
{
	mount_up "$pool" || return 1
	"$dump" "$pool" >"$work/out" 2>"$work/err"
	local rc=$?
	mount_down
	[ $rc = 1 ] && grep -q 'in use' "$work/err" || {
		echo "status $rc: $(cat "$work/err")"
		return 1
	}
}

# same_tree IMAGE: mounted, it has the files of the pool
same_tree()
{
	mount_up -o ro "$1" || return 1
	(cd "$mnt" && find . -printf '%i %y %s %n %m\n' | sort) >"$work/image"
	mount_down
	cmp "$work/tree" "$work/image"
}

case_image()
{
	"$dump" --save "$shm/image" "$pool" >"$work/out" || return 1
	[ "$(stat -c %s "$shm/image")" = "$(stat -c %s "$pool")" ] || { echo "another size"; return 1; }
	! grep -qaE 'SECRET(small|bulk)' "$shm/image" || { echo "contents in it"; return 1; }
	grep -qa SECRETdir "$shm/image" || { echo "no names in it"; return 1; }
	sound "$shm/image" && same_tree "$shm/image" || return 1
	! "$dump" --save "$shm/image" "$pool" 2>/dev/null || { echo "an image was overwritten"; return 1; }
}

case_hidden()
{
	local ino
	"$dump" -n -s "$shm/hidden" "$pool" >"$work/out" || return 1
	! grep -qa SECRET "$shm/hidden" || { echo "something in it tells"; return 1; }
	sound "$shm/hidden" || return 1
	for ino in "$dir" "$many"; do
		"$dump" "$pool" inode "$ino" data | sed 's/, ".*//' >"$work/out"
		"$dump" "$shm/hidden" inode "$ino" data | sed 's/, ".*//' | cmp - "$work/out" || return 1
	done
	mount_up "$shm/hidden" 2>/dev/null || return 1
	touch "$mnt/new" 2>/dev/null && { echo "can be written to"; mount_down; return 1; }
	mount_down
}

# One bad copy goes along, and is seen in the image.
case_damaged()
{
	local at
	cp --sparse=always "$pool" "$shm/bad" || return 1
	at=$((2 * 1024 * 1024 + 8 * 4096 + 200))
	printf 'xxxxxxxx' | dd of="$shm/bad" bs=1 seek=$at conv=notrunc status=none
	"$dump" --copy 0 "$shm/bad" group 0 >"$work/out" 2>&1 && { echo "not noticed"; return 1; }
	grep -q 'NOT SOUND: .*CRC' "$work/out" || { echo "does not say it: $(cat "$work/out")"; return 1; }
	"$dump" "$shm/bad" group 0 >"$work/out" 2>&1 && grep -q 'copy 1' "$work/out" || {
		echo "the mirror is not taken"
		return 1
	}
	"$dump" -s "$shm/bad.image" "$shm/bad" >"$work/out" || return 1
	"$fsck" -fn "$shm/bad.image" >"$work/out" 2>&1 && { echo "the image has no damage"; return 1; }
	grep -q 'its mirror is sound' "$work/out" || { echo "fsck: $(head -c 300 "$work/out")"; return 1; }
}

if ! fill >"$work/why" 2>&1; then
	echo "not ok dump/fill: $(tr '\n' '|' <"$work/why")"
	exit 1
fi
# The group that holds the shared blocks of the clone.
group=$(("$("$dump" "$pool" inode "$large" data | sed -n 's/.*device block \([0-9]*\).*/\1/p' | head -1)" /
	"$("$dump" "$pool" | sed -n 's/.* groups of \([0-9]*\) blocks/\1/p' | head -1)"))
# shellcheck disable=SC2046
[ $# -gt 0 ] || set -- $(case_names)
for name in "$@"; do
	case_run "$name"
done
exit "$status"
