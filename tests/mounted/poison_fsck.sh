#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# shellcheck disable=SC1091,SC2154 # what tool_lib.sh sets
# shellcheck disable=SC2317 # cases are called by name
# fsck.umbrafs meets bad memory itself: it ends by itself, -n changes nothing, -y moves what it can out of there, and what is lost of files stays known.
#
#   poison_fsck.sh [CASE...]     prints 'ok poison_fsck/CASE', 'not ok poison_fsck/CASE: why', 'skip poison_fsck/CASE: why'
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/tool_lib.sh"
. "$(dirname "${BASH_SOURCE[0]}")/poison_lib.sh"

chunk=$((2 << 20)) size=$((64 << 20)) block=4096

# A pool with something in it, two lost blocks, and a copy of the pool.
pool_make()
{
	fresh && daemon_up && blocks "$mnt/file" 64 && cp "$mnt/file" "$work/want" && mkdir "$mnt/dir" && cp "$mnt/file" "$mnt/dir/twin" || return 1
	python3 -c 'import sys; [open(f"{sys.argv[1]}/dir/{i}", "w").write(f"{i}\n") for i in range(300)]' "$mnt"
	data=$(place "$mnt/file" 8192)
	page bad "$data" || return
	reads "$mnt/file" 8192 4096 error direct || return 1
	"$ctl" losses --json "$mnt" >"$work/losses"
	is "the status of losses" $? 3 && daemon_down && cp --sparse=always "$pool" "$pool.whole"
}

pool_again()
{
	cp --sparse=always "$pool.whole" "$pool"
}

sum()
{
	sha256sum <"$pool"
}

# fsck "OFFSET..." ARGUMENT...: with these pages bad; its status in result, what it says in out
fsck()
{
	LD_PRELOAD="$(poison_asan)$preload" UMBRA_POISON_POOL=$pool UMBRA_POISON_AT=$1 timeout 60 "$bin/fsck.umbrafs" "${@:2}" "$pool" \
		>"$work/out" 2>&1 </dev/null
	result=$?
}

# ends "OFFSET..." STATUS ARGUMENT...
ends()
{
	fsck "$1" "${@:3}"
	[ $result = "$2" ] && return 0
	echo "fsck ${*:3} with [$1] bad ended with $result, not $2: $(head -c 300 "$work/out" | tr '\n' '|')"
	return 1
}

# -n says 4 and changes nothing: looked "OFFSET..."
looked()
{
	local before
	before=$(sum)
	ends "$1" 4 -fn && is "the pool after fsck -n" "$(sum)" "$before"
}

# Its files and its losses are what they were.
same()
{
	daemon_up && "$ctl" losses --json "$mnt" >"$work/again"
	is "the status of losses" $? 3 && cmp "$work/losses" "$work/again" || return 1
	cmp -n 8192 "$mnt/file" "$work/want" && cmp -i 12288 "$mnt/dir/twin" "$work/want" || return 1
	reads "$mnt/file" 8192 64 error && reads "$mnt/dir/twin" 12224 64 error || return 1
	is "the files" "$(cat "$mnt"/dir/[0-9]* | sort -n | uniq | wc -l)" 300 && daemon_down
}

# Recorded losses and blocks that are out of use are nothing wrong; bad file data is not looked at.
case_losses()
{
	pool_make || return
	ends "" 0 -fn && ends "$data" 0 -fn && ends "$data $((2 * chunk + 3 * block))" 0 -fy && ends "$data" 0 -n && same
}

# Units of the first chunk of metadata, or of its mirror: each leaves.
case_units()
{
	local off unit
	pool_make || return
	for unit in 0 5 8 9 10 12 13; do
		off=$((chunk + unit * block))
		[ $((unit % 2)) = 0 ] || off=$((size - 2 * chunk + unit * block))
		pool_again
		looked $off && ends $off 1 -fy && ends $off 0 -fn && ends "" 0 -fn || return 1
	done
	same || return 1
	# Many at once, and -p does it too.
	pool_again
	off=$(for ((unit = 0; unit < 16; unit++)); do echo -n "$((chunk + unit * block)) "; done)
	looked "$off" && ends "$off" 1 -fp && ends "$off" 0 -fn && same
}

# A superblock stays where it is: the other one serves. The journal is not needed.
case_fixed()
{
	local off
	pool_make || return
	for off in 0 $((size - block)); do
		pool_again
		looked $off && ends $off 4 -fy && grep -q 'not mended: a copy of the superblock' "$work/out" || return 1
		ends "" 1 -fy && ends "" 0 -fn && same || return 1
	done
	pool_again
	ends $((16 * block)) 0 -fn && ends $((16 * block)) 0 -fy && ends "" 0 -fn && same
}

# On a mount with these pages bad it can be written to.
mounts()
{
	UMBRA_POISON_AT=$1 daemon_up && echo new >"$mnt/new" && is "a new file" "$(cat "$mnt/new")" new && rm "$mnt/new" && daemon_down
}

# Both copies at once: other blocks stand in for the unit, what nothing else knows is named, and the pool can be written to, with the memory bad and good.
case_both()
{
	local unit off before
	pool_make || return
	for unit in 8 9 10 12 13 14 15 17 3 24; do
		off="$((chunk + unit * block)) $((size - 2 * chunk + unit * block))"
		pool_again
		looked "$off" && ends "$off" 1 -fy || return 1
		case $unit in
		3 | 24) is "the files that are named" "$(grep -c 'LOST: /dir/[0-9]*: owner, mode, times' "$work/out")" 8 || return 1 ;;
		esac
		ends "$off" 0 -fn && ends "" 0 -fn && mounts "$off" && ends "$off" 0 -fn && mounts "" || return 1
		daemon_up && cmp -n 8192 "$mnt/file" "$work/want" && is "the names in unit $unit" "$(ls "$mnt/dir" | wc -l)" 301 && daemon_down || return 1
	done
	# The block of the root directory and of all that is in it: their names are lost, and what nobody else knows.
	off="$chunk $((size - 2 * chunk))"
	pool_again
	ends "$off" 1 -fy && ends "$off" 0 -fn && mounts "$off" && daemon_up || return 1
	is "files after the root was lost" "$(find "$mnt" -type f | wc -l)" 302 && daemon_down || return 1
	# All fixed units at once: done, or as it was.
	off=$(for ((unit = 0; unit < 16; unit++)); do echo -n "$((chunk + unit * block)) $((size - 2 * chunk + unit * block)) "; done)
	pool_again
	fsck "$off" -fy
	if [ $result = 1 ]; then
		ends "$off" 0 -fn && mounts "$off" || return 1
	else
		ends "" 0 -fn && same || return 1
	fi
	pool_again
	off="0 $((size - block))"
	ends "$off" 8 -fn && ends "$off" 8 -fy && ends "" 0 -fn && same
}

# A full pool has room for what is to stand in.
case_full()
{
	local off
	pool_make || return
	daemon_up || return 1
	dd if=/dev/zero of="$mnt/fill" bs=1M status=none 2>/dev/null
	daemon_down && cp --sparse=always "$pool" "$pool.whole"
	for unit in 3 8 10 13; do
		off="$((chunk + unit * block)) $((size - 2 * chunk + unit * block))"
		pool_again
		ends "$off" 1 -fy && ends "$off" 0 -fn && UMBRA_POISON_AT=$off daemon_up && rm "$mnt/fill" && daemon_down && ends "$off" 0 -fn || return 1
	done
}

# Nothing can be written: nothing is taken away for what could not be mended, and what could be mounted still can.
case_nowhere()
{
	local off all at
	pool_make || return
	all=$(for ((at = 2 * chunk; at < size - 2 * chunk; at += chunk)); do seq -s ' ' $at $block $((at + 15 * block)); done)
	for unit in 3 8 9 10 12 13 0; do
		off="$((chunk + unit * block)) $((size - 2 * chunk + unit * block))"
		pool_again
		fsck "$off $all" -fy
		case $result in 4 | 8) ;; *) echo "fsck -fy with unit $unit and all that is free bad ended with $result" && return 1 ;; esac
		if [ $unit = 8 ]; then
			# The rest of the group was written before.
			fsck "" -fy
			[ $result -le 1 ] || { echo "fsck -fy ended with $result" && return 1; }
			same || return 1
		elif [ $unit != 0 ]; then
			! grep -q 'read-only only' "$work/out" || { echo "unit $unit: $(tail -n 3 "$work/out" | tr '\n' '|')" && return 1; }
			ends "" 0 -fn && same || return 1
		else
			ends "" 1 -fy && daemon_up && is "files" "$(find "$mnt" -type f | wc -l)" 302 && daemon_down || return 1
		fi
	done
}

# shellcheck disable=SC2046
[ $# -gt 0 ] || set -- $(case_names)
for name in "$@"; do
	case_run "$name"
done
exit "$status"
