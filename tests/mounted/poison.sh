#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# shellcheck disable=SC1091,SC2034,SC2154 # what tool_lib.sh sets, and what is for it
# Bad memory under a mounted file system: pages of the pool raise SIGBUS in the daemon (poison_preload.c).
#
#   poison.sh [CASE...]     prints 'ok poison/CASE', 'not ok poison/CASE: why', 'skip poison/CASE: why'
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/tool_lib.sh"
. "$(dirname "${BASH_SOURCE[0]}")/poison_lib.sh"

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

# Nothing is moved or recorded where nothing may be written, but all else can be read.
case_readonly()
{
	local off how
	fresh && daemon_up || return 1
	blocks "$mnt/file" 64 && cp "$mnt/file" "$work/want" && off=$(place "$mnt/file" 40960) && daemon_down || return 1
	daemon_opts=(-o ro)
	daemon_up || return 1
	exec 5<"$mnt/file"
	page bad "$off" || return
	# Through pages that are read ahead, by a descriptor from before and by one from since then, and around them.
	dd bs=128k conv=noerror <&5 >/dev/null 2>"$work/err"
	grep -q 'Input/output error' "$work/err" || { echo "all could be read: $(cat "$work/err")"; return 1; }
	exec 5<&-
	cat "$mnt/file" >"$work/got" 2>"$work/err"
	is "what cat got" "$(stat -c %s "$work/got")" 40960 && cmp -n 40960 "$work/got" "$work/want" || return 1
	dd if="$mnt/file" of="$work/got" bs=256k iflag=direct 2>"$work/err"
	is "what was read at once" "$(stat -c %s "$work/got")" 40960 && cmp -n 40960 "$work/got" "$work/want" || return 1
	for how in '' direct; do
		# shellcheck disable=SC2086
		reads "$mnt/file" 40960 4096 error $how && reads "$mnt/file" 36864 4096 data $how && reads "$mnt/file" 45056 4096 data $how || return 1
	done
	cmp -i 45056 "$mnt/file" "$work/want" || return 1
	is "the lines of the log" "$(grep -c 'bad memory at .* nothing is saved of it, since the file system is read-only' "$work/log")" 1 || return 1
	works "$ctl" losses "$mnt" && daemon_down || return 1
	daemon_opts=()
	daemon_up && cmp "$mnt/file" "$work/want" && daemon_down && works "$bin/fsck.umbrafs" -fn "$pool"
}

# Who follows events hears of them, and does not keep the mount from going; then he ends.
case_follow()
{
	local off follower here who
	for who in name here; do
		fresh && daemon_up || return 1
		blocks "$mnt/file" 16 && off=$(place "$mnt/file" 8192) || return 1
		here=$mnt
		[ $who = name ] || here=.
		(cd "$mnt" && exec "$ctl" events --follow --json "$here") >"$work/told" 2>"$work/err" &
		follower=$!
		page bad "$off" || return
		reads "$mnt/file" 8192 1 error direct && wait_for grep -q '"kind":"lost"' "$work/told" || return 1
		kill -0 "$follower" || { echo "it has ended by itself"; return 1; }
		# In the moment in which it asks it would be busy.
		unmount "$mnt" && wait "$daemon" || return 1
		# Another mount in the same place is not gone on with.
		daemon_up || return 1
		wait "$follower"
		is "the status of follow" $? 0 && is "what it said" "$(cat "$work/err")" "umbractl: $here: has been unmounted" || return 1
		is "what it told" "$(wc -l <"$work/told")" 1 || return 1
		daemon_down || return 1
	done
}

# Who follows events hears that the daemon has died.
case_follow_died()
{
	local follower
	fresh && daemon_up || return 1
	works "$ctl" poison add 40M "$mnt" || return 1
	"$ctl" events --follow "$mnt" >"$work/told" 2>"$work/err" &
	follower=$!
	wait_for grep -q ' unused' "$work/told" || return 1
	kill -KILL "$daemon"
	wait "$daemon" 2>/dev/null
	wait_for has_ended "$follower" || { kill "$follower"; return 1; }
	wait "$follower"
	is "the status of follow" $? 3 && is "what it said" "$(cat "$work/err")" "umbractl: $mnt: its daemon has died" || return 1
	umount -l "$mnt" && daemon_up && daemon_down
}

# Who follows events for somebody who has heard enough ends too, though nothing happens any more.
case_follow_pipe()
{
	local follower reader
	fresh && daemon_up || return 1
	blocks "$mnt/file" 16 && page bad "$(place "$mnt/file" 8192)" || return
	reads "$mnt/file" 8192 1 error direct && mkfifo "$work/events" || return 1
	head -n 1 "$work/events" >"$work/told" &
	reader=$!
	"$ctl" events --follow "$mnt" >"$work/events" 2>"$work/err" &
	follower=$!
	wait "$reader" && is "what was told" "$(wc -l <"$work/told")" 1 || return 1
	wait_for has_ended "$follower" || { kill "$follower"; return 1; }
	wait "$follower"
	is "the status of follow" $? 0 && is "what it said" "$(cat "$work/err")" "" && daemon_down
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

# A process that has it mapped directly meets it, alone or with the daemon.
case_client()
{
	local places
	fresh && daemon_up || return 1
	blocks "$mnt/file" 64 || return 1
	places="$(place "$mnt/file" 40960) $(place "$mnt/file" 81920) $(place "$mnt/file" 122880)"
	grep -q cannot "$work/answers" && { page bad 0; return; }
	mkfifo "$work/own" && : >"$work/own_answers" || return 1
	# shellcheck disable=SC2086 # places
	timeout 60 env LD_PRELOAD="$(poison_asan)$preload" ASAN_OPTIONS=detect_leaks=0 UMBRA_POISON_PIPE="$work/own" \
		UMBRA_POISON_ANSWERS="$work/own_answers" UMBRA_POISON_POOL="$pool" "$(python3 -c "import sys; print(sys.executable)")" "$here/poison_direct.py" \
		"$UMBRA_BUILD/src/client/libumbra.so" "$mnt/file" "$work/pipe" "$work/answers" $places >"$work/out" 2>&1 ||
		{ echo "the process ended with $?: $(tail -n 3 "$work/out" | tr '\n' '|')"; return 1; }
	daemon_down && works "$bin/fsck.umbrafs" -fn "$pool"
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
	says 1 '/dev/zero: is no plain file' "$ctl" repair --from /dev/zero "$mnt/file" && mkfifo "$work/fifo" || return 1
	says 1 'is no plain file' "$ctl" repair --from "$work/fifo" "$mnt/file" && says 1 'is no plain file' "$ctl" repair --from "$work" "$mnt/file" || return 1
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

# lost_whole FILE BLOCK...: those blocks of a file are lost, all of each
lost_whole()
{
	local file=$1 blk
	shift
	for blk in "$@"; do
		page bad "$(place "$file" $((blk * 4096)))" || return
	done
	for blk in "$@"; do
		reads "$file" $((blk * 4096)) 4096 error direct || return 1
	done
}

# Lost blocks beside each other: what lies around all of them decides, and nothing of them is written unless it agrees.
case_repair_runs()
{
	local blk blks differs='differs from the backup'
	fresh && daemon_up || return 1
	blocks "$work/want" 8 && sed 's/^0/9/' "$work/want" >"$work/wrong" || return 1
	for blks in '2 3 4' '6 7' '0 1' '1 3 4 6'; do
		cp "$work/want" "$mnt/file" || return 1
		# shellcheck disable=SC2086
		lost_whole "$mnt/file" $blks || return
		"$ctl" repair --from "$work/wrong" "$mnt/file" >"$work/out" 2>"$work/err"
		is "the status of a wrong backup for $blks" $? 1 && grep -q "$differs" "$work/err" || return 1
		for blk in $blks; do
			reads "$mnt/file" $((blk * 4096)) 4096 error direct || return 1
		done
		# Wrong on one side only.
		cp "$work/want" "$work/half" && blk=$((${blks##* } + 1)) || return 1
		[ $blk = 8 ] && blk=5
		dd if="$work/wrong" of="$work/half" bs=4096 skip=$blk seek=$blk count=1 conv=notrunc status=none || return 1
		"$ctl" repair --from "$work/half" "$mnt/file" >"$work/out" 2>"$work/err"
		is "the status of a half wrong backup for $blks" $? 1 && grep -q "$differs" "$work/err" || return 1
		reads "$mnt/file" $((${blks##* } * 4096)) 4096 error direct || return 1
		works "$ctl" repair --from "$work/want" "$mnt/file" && cmp "$mnt/file" "$work/want" && rm "$mnt/file" || return 1
	done
	# Wrong only in what is left of a block between others.
	cp "$work/want" "$mnt/file" && lost_whole "$mnt/file" 3 4 5 || return
	dd if="$work/want" of="$mnt/file" bs=64 skip=260 seek=260 count=1 conv=notrunc status=none || return 1
	cp "$work/want" "$work/half" && dd if="$work/wrong" of="$work/half" bs=64 skip=260 seek=260 count=1 conv=notrunc status=none || return 1
	says 1 "the 3 blocks from 12288 on cannot be put back: .*$differs" "$ctl" repair --unchecked --from "$work/half" "$mnt/file" || return 1
	reads "$mnt/file" 12288 4096 error direct && works "$ctl" repair --from "$work/want" "$mnt/file" && cmp "$mnt/file" "$work/want" || return 1
	daemon_down && works "$bin/fsck.umbrafs" -fn "$pool"
}

# Nothing is left of a file: nothing tells whether it is its backup.
case_repair_unchecked()
{
	local count
	fresh && daemon_up || return 1
	for count in 1 3; do
		blocks "$mnt/file" $count && truncate -s -100 "$mnt/file" && cp "$mnt/file" "$work/want" || return 1
		# shellcheck disable=SC2046
		lost_whole "$mnt/file" $(seq 0 $((count - 1))) || return
		says 1 'nothing is left to compare' "$ctl" repair --from "$work/want" "$mnt/file" || return 1
		reads "$mnt/file" 0 1 error direct && says 1 'another size' "$ctl" repair --unchecked --from "$bin/umbrafs" "$mnt/file" || return 1
		works "$ctl" repair --unchecked --from "$work/want" "$mnt/file" && cmp "$mnt/file" "$work/want" && rm "$mnt/file" || return 1
	done
	works "$ctl" losses "$mnt" && daemon_down && works "$bin/fsck.umbrafs" -fn "$pool"
}

# Who is damaged himself is named, and does not keep the others from being healed.
case_repair_damaged()
{
	local ino chunk=$((2 << 20))
	fresh && daemon_up || return 1
	blocks "$mnt/file" 20 && cp "$mnt/file" "$work/want" && cp "$mnt/file" "$mnt/twin" && cp "$mnt/file" "$mnt/third" || return 1
	ino=$(stat -c %i "$mnt/twin")
	[ "$ino" -lt 100 ] || { echo "inode $ino is not where this test looks for it"; return 1; }
	page bad "$(place "$mnt/file" 4096)" || return
	reads "$mnt/file" 4096 1 error direct && daemon_down || return 1
	damage $((chunk + ino * 512)) 512
	damage $(($(stat -c %s "$pool") - 2 * chunk + ino * 512)) 512
	daemon_up || return 1
	says 1 "inode $ino: shares lost blocks, but is damaged" "$ctl" repair --from "$work/want" "$mnt/file" || return 1
	is "what it did" "$(cat "$work/out")" "1 lost blocks, 1 put back (2 with those that share them), 0 not" || return 1
	cmp "$mnt/file" "$work/want" && cmp "$mnt/third" "$work/want" && grep -q "inode $ino shares a block .* but it is damaged" "$work/log" || return 1
	daemon_down
}

# A block that a damaged file is still to follow to: a range cannot be emptied of it, and it is said why.
case_evacuate_awaited()
{
	local ino off chunk=$((2 << 20))
	fresh && daemon_up || return 1
	blocks "$mnt/file" 20 && cp "$mnt/file" "$work/want" && cp "$mnt/file" "$mnt/twin" || return 1
	ino=$(stat -c %i "$mnt/twin")
	[ "$ino" -lt 100 ] || { echo "inode $ino is not where this test looks for it"; return 1; }
	daemon_down || return 1
	damage $((chunk + ino * 512)) 512
	damage $(($(stat -c %s "$pool") - 2 * chunk + ino * 512)) 512
	daemon_up && page bad "$(place "$mnt/file" 4096)" || return
	reads "$mnt/file" 4096 1 error direct || return 1
	off=$("$ctl" owners --range 0+64M "$mnt" | awk '/ forward/ { print $1 }')
	[ -n "$off" ] || { echo "nothing is on its way"; return 1; }
	"$ctl" evacuate "$off" "$mnt" >"$work/out" 2>"$work/err"
	is "the status where a block is awaited" $? 3 || return 1
	grep -q '^stays: .*  being moved: ' "$work/out" || { echo "it does not say that it is being moved: $(cat "$work/out")"; return 1; }
	! grep metadata "$work/out" && daemon_down
}

# Out of use by hand, and one of the blocks is awaited by a damaged file: the others are done.
case_by_hand_awaited()
{
	local ino off chunk=$((2 << 20))
	fresh && daemon_up || return 1
	blocks "$mnt/file" 20 && cp "$mnt/file" "$mnt/twin" || return 1
	ino=$(stat -c %i "$mnt/twin")
	[ "$ino" -lt 100 ] || { echo "inode $ino is not where this test looks for it"; return 1; }
	daemon_down || return 1
	damage $((chunk + ino * 512)) 512
	damage $(($(stat -c %s "$pool") - 2 * chunk + ino * 512)) 512
	daemon_up && page bad "$(place "$mnt/file" 4096)" || return
	reads "$mnt/file" 4096 1 error direct || return 1
	off=$("$ctl" owners --range 0+64M "$mnt" | awk '/ forward/ { print $1 }')
	[ -n "$off" ] || { echo "nothing is on its way"; return 1; }
	says 1 "the block at $off cannot be taken out of use: Device or resource busy" "$ctl" poison add "$off+12K" "$mnt" || return 1
	is "what it says" "$(cat "$work/out")" "8192 bytes are out of use" || return 1
	is "the blocks" "$("$ctl" owners --range "$off+12K" "$mnt" | awk '/ bad / { print $1 }' | xargs)" \
		"$(printf '%#x %#x' $((off + 4096)) $((off + 8192)))" && daemon_down
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
	# Nothing of a range that leaves the device, and not what has to stay where it is.
	says 1 'leaves the device' "$ctl" poison add 48M+1T "$mnt" && says 1 'the superblock has its place' "$ctl" poison add 0 "$mnt" || return 1
	is "the ranges after that" "$("$ctl" poison list "$mnt" | grep -c 0x)" 2 || return 1
	# Blocks of nobody in a row are one line of the log.
	works "$ctl" poison add 50M+256K "$mnt" || return 1
	wait_for grep -q 'bad memory from 0x3200000 to 0x3240000: was nobody' "$work/log" || return 1
	is "the lines of the log about nobody's blocks" "$(grep -c "was nobody's" "$work/log")" 2 || return 1
	is "the events of nobody's blocks" "$("$ctl" events --json "$mnt" | grep -c '"kind":"unused"')" 65 || return 1
	daemon_down && works "$bin/fsck.umbrafs" -fn "$pool"
}

# What "umbractl poison $1 $2" says of each range: DEVICE LENGTH NOW, one line each. Its status in verdicts_status.
verdicts()
{
	"$ctl" poison "$1" "$2" "$mnt" >"$work/out"
	verdicts_status=$?
	tail -n +2 "$work/out" | sed 's/^ *//; s/  */ /g' >"$work/said"
}

# Out of use, and back by hand: what is good after all, not what is still bad. A plain file has nobody who could clear it.
case_forget()
{
	local off bad hex
	fresh && daemon_up || return 1
	blocks "$mnt/file" 16 && cp "$mnt/file" "$work/want" || return 1
	off=$(place "$mnt/file" 4096)
	hex=$(printf '%#x' "$off")
	works "$ctl" poison forget "$off" "$mnt" && grep -q 'nothing is out of use there' "$work/out" || return 1
	works "$ctl" poison add "$off+8K" "$mnt" || return 1
	verdicts clear "$off+4K"
	is "the status of clear" "$verdicts_status" 1 || return 1
	is "clear" "$(cat "$work/said")" "$hex 4096 stays: there is no device that can clear it" || return 1
	verdicts forget "0+40M"
	is "the status of forget" "$verdicts_status" 0 && is "forget" "$(cat "$work/said")" "$hex 8192 in use again" || return 1
	is "poison list" "$("$ctl" poison list "$mnt")" "" || return 1
	is "the owners" "$("$ctl" owners --range "$off+8K" "$mnt" | grep -c "^ *0x")" 0 || return 1
	# Memory that stays bad, between some that does not.
	bad=$(place "$mnt/file" 20480)
	page bad "$bad" || return
	reads "$mnt/file" 20480 1 error direct && works "$ctl" poison add "$((bad - 4096))+12K" "$mnt" || return 1
	"$ctl" poison --json forget "$((bad - 4096))+12K" "$mnt" >"$work/out"
	is "the status of forget" $? 1 || return 1
	is "forget" "$(python3 -c 'import json, sys; print(*(r["result"] for r in json.load(sys.stdin)))' <"$work/out")" \
		"freed still_bad freed" || return 1
	page good "$bad" && works "$ctl" poison forget "$bad" "$mnt" && is "poison list" "$("$ctl" poison list "$mnt")" "" || return 1
	says 1 'leaves the device' "$ctl" poison forget 1T "$mnt" && says 2 'whole blocks' "$ctl" poison clear 5 "$mnt" || return 1
	says 2 'must be' "$ctl" poison clear "$mnt" && cmp -n 20480 "$mnt/file" "$work/want" || return 1
	daemon_down && works "$bin/fsck.umbrafs" -fn "$pool"
}

# A full pool: the file stays in bad memory, which the next mount knows though nobody can read it any more that it is bad; with the file it goes out of use.
case_stays()
{
	local off hex
	fresh && daemon_up || return 1
	blocks "$mnt/file" 16 && cp "$mnt/file" "$work/want" || return 1
	off=$(place "$mnt/file" 4096)
	hex=$(printf '%#x' "$off")
	dd if=/dev/zero of="$mnt/fill" bs=1M status=none 2>/dev/null
	dd if=/dev/zero of="$mnt/fill" bs=4096 oflag=append conv=notrunc status=none 2>/dev/null
	page bad "$off" || return
	reads "$mnt/file" 4096 1 error direct || return 1
	is "poison list" "$("$ctl" poison list "$mnt" | tail -n +2 | tr -s ' ')" " $hex 4096" || return 1
	page good "$off" && daemon_down || return 1
	"$bin/umbradump" "$pool" >"$work/out" && is "the feature" "$(grep -c ', ro_compat 0x4 BAD_IN_USE,' "$work/out")" 2 || return 1
	works "$bin/fsck.umbrafs" -fn "$pool" && works "$bin/fsck.umbrafs" -fy "$pool" && daemon_up || return 1
	is "poison list of the next mount" "$("$ctl" poison list "$mnt" | tail -n +2 | tr -s ' ')" " $hex 4096" || return 1
	is "the owners" "$("$ctl" owners --range "$off" "$mnt" | grep -c "^ *$hex .*\(file\|bad\) ")" 2 || return 1
	cmp "$mnt/file" "$work/want" && is "the place" "$(place "$mnt/file" 4096)" "$off" || return 1
	is "the map" "$("$ctl" map "$mnt/file" | tr -s ' ' | grep " $hex ")" " 0x1000 $hex 0x1000 1 bad" || return 1
	is "what is shared" "$("$ctl" map "$mnt/file" | tail -n 1 | sed 's/.*of which //')" "0 KiB shared" || return 1
	"$ctl" owners --summary --range "$off" "$mnt" | tr -s ' ' >"$work/out"
	grep -q '^ 1 file$' "$work/out" && grep -q '^ 4096 bytes in bad memory that files could not leave' "$work/out" || return 1
	grep -q '^ 0 bytes that are out of use already' "$work/out" && grep -q '^ 0 bytes that are free' "$work/out" || return 1
	says 1 'no space to move its files to' "$ctl" poison add "$off" "$mnt" || return 1
	rm "$mnt/file" || return 1
	wait_for eval '[ "$("$ctl" owners --range "$off" "$mnt" | grep -c "^ *$hex ")" = 1 ]' || return 1
	is "poison list without the file" "$("$ctl" poison list "$mnt" | tail -n +2 | tr -s ' ')" " $hex 4096" || return 1
	rm "$mnt/fill" && works "$ctl" poison forget "$off" "$mnt" || return 1
	daemon_down && works "$bin/fsck.umbrafs" -fn "$pool"
}

# All of a range that files cannot leave is written down by one call, which says how much that is.
case_stays_range()
{
	local off
	fresh && daemon_up || return 1
	blocks "$mnt/file" 16 && off=$(place "$mnt/file" 0) || return 1
	dd if=/dev/zero of="$mnt/fill" bs=1M status=none 2>/dev/null
	dd if=/dev/zero of="$mnt/fill" bs=4096 oflag=append conv=notrunc status=none 2>/dev/null
	python3 - "$mnt" "$off" <<-'END' || return 1
		import errno, fcntl, os, struct, sys
		fd = os.open(sys.argv[1], os.O_RDONLY)
		off, size = int(sys.argv[2]), 12 * 4096
		form = 'IIQQQII'  # struct umbra_poison
		arg = bytearray(struct.pack(form, 1, 0, off, size, 0, 0, 0))
		fcntl.ioctl(fd, 3 << 30 | len(arg) << 16 | 0xd5 << 8 | 14, arg)
		done, error, later = struct.unpack(form, arg)[4:]
		if (done, error, later) != (size, errno.EINPROGRESS, size):
		    sys.exit(f'{done} bytes done, {later} of them later, error {error}')
	END
	is "poison list" "$("$ctl" poison list "$mnt" | tail -n +2 | tr -s ' ')" " $(printf '%#x' "$off") 49152" && daemon_down
}

# What is lost cannot be put back where the block of it is bad too, and stays.
case_repair_stays()
{
	local off
	fresh && daemon_up || return 1
	blocks "$mnt/file" 16 && cp "$mnt/file" "$work/want" || return 1
	off=$(place "$mnt/file" 4096)
	page bad "$off" || return
	reads "$mnt/file" 4096 1 error direct || return 1
	dd if=/dev/zero of="$mnt/fill" bs=1M status=none 2>/dev/null
	dd if=/dev/zero of="$mnt/fill" bs=4096 oflag=append conv=notrunc status=none 2>/dev/null
	says 1 'no space to move its files to' "$ctl" poison add "$(place "$mnt/file" 4096)" "$mnt" || return 1
	says 1 'in bad memory there that it could not leave yet, for want of space' "$ctl" repair --from "$work/want" "$mnt/file" || return 1
	rm "$mnt/fill" || return 1
	wait_for "$ctl" repair --from "$work/want" "$mnt/file" && cmp "$mnt/file" "$work/want" && works "$ctl" losses "$mnt" || return 1
	daemon_down && works "$bin/fsck.umbrafs" -fn "$pool"
}

# What cannot be read, and has not been saved for want of space, is no loss yet, and not well either.
case_repair_unread()
{
	fresh && daemon_up || return 1
	blocks "$mnt/file" 16 && cp "$mnt/file" "$work/want" || return 1
	dd if=/dev/zero of="$mnt/fill" bs=1M status=none 2>/dev/null
	dd if=/dev/zero of="$mnt/fill" bs=4096 oflag=append conv=notrunc status=none 2>/dev/null
	page bad "$(place "$mnt/file" 4096)" || return
	reads "$mnt/file" 4096 1 error direct || return 1
	says 1 '1 blocks cannot be read' "$ctl" repair --from "$work/want" "$mnt/file" || return 1
	rm "$mnt/fill" || return 1
	wait_for "$ctl" repair --from "$work/want" "$mnt/file" && cmp "$mnt/file" "$work/want" && works "$ctl" losses "$mnt" || return 1
	daemon_down && works "$bin/fsck.umbrafs" -fn "$pool"
}

# shellcheck disable=SC2046
[ $# -gt 0 ] || set -- $(case_names)
for name in "$@"; do
	case_run "$name"
done
exit "$status"
