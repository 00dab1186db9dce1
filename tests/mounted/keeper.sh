#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# shellcheck disable=SC1091,SC2154 # what tool_lib.sh sets
# Mounts with a keeper: daemons that are killed and replaced under load, and nobody hears of it. See keeper.py.
#
#   keeper.sh [CASE...]     prints 'ok keeper/CASE', 'not ok keeper/CASE: why', 'skip keeper/CASE: why'
#
# UMBRA_KEEPER_ROUNDS: how often the daemon is killed in each case with load (20); UMBRA_KEEPER_PAUSES: a
# file for the pauses that a caller saw (case all); UMBRA_SEED.
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/tool_lib.sh"
. "$here/../lib/uring.sh"
. "$here/hold_lib.sh"
rounds=${UMBRA_KEEPER_ROUNDS:-20} seed=${UMBRA_SEED:-$((EPOCHSECONDS % 100000))}
keeper=''

# A mount with a keeper, which is this shell's child; its log in $work/log: up [OPTION...]
up()
{
	"$umbrafs" -f -v -o keeper "$@" "$pool" "$mnt" >>"$work/log" 2>&1 </dev/null &
	keeper=$!
	wait_for eval 'mountpoint -q "$mnt" || has_ended "$keeper"'
	mountpoint -q "$mnt" || { tail -n 1 "$work/log"; return 1; }
}

daemon()
{
	# The last one that runs: before it there may be one that has been left behind.
	local pid found=''
	for pid in $(cat "/proc/$keeper/task/$keeper/children"); do
		grep -q '^State:.Z' "/proc/$pid/status" 2>/dev/null || found=$pid
	done
	echo "$found"
}

daemon_kill()
{
	wait_for eval 'kill -KILL "$(daemon)"' # there may be none for a moment, or one that is just gone
}

# The mount ends as any other, and nothing is wrong.
ended_well()
{
	umount "$mnt" || return 1
	wait "$keeper" || { echo "the keeper ended with $?: $(tail -n 1 "$work/log")"; return 1; }
	works "$bin/fsck.umbrafs" -fn "$pool"
}

# killed PART...: the daemon is killed again and again under these parts of keeper.py
killed()
{
	fresh 1G && up || return 1
	# Who waits for a daemon that never comes ends with the keeper alone.
	timeout -k 5 $((rounds * 3 + 120)) python3 "$here/keeper.py" "$mnt" "$keeper" "$rounds" "$seed" "$@" >"$work/said" 2>&1 ||
		{ kill -KILL "$keeper"; grep -v '^pauses' "$work/said" | tail -n 4; return 1; }
	[ -z "${UMBRA_KEEPER_PAUSES:-}" ] || cp "$work/said" "$UMBRA_KEEPER_PAUSES"
	# All that is unlinked is freed: no count is too high for ever, but of what was under way.
	rm -rf "${mnt:?}"/*
	ended_well
}

case_calls() { killed names names2 temporary append; }
case_data() { killed data sqlite data2 append; }
# Threads of daemons that are killed wait in the kernel for reads that the next one has to answer.
case_beside() { killed beside beside2; }
case_all() { killed names append data sqlite temporary pause; }

# A file has been cut off, and that has not been answered; somebody makes it longer, and is; the daemon is killed. It is not cut off again.
case_cut()
{
	rm -f "$work/cuts"*
	fresh || return 1
	START_CUTS=$work/cuts LD_PRELOAD=$UMBRA_BUILD/tests/mounted/libstart_preload.so up || return 1
	timeout -k 5 120 python3 - "$mnt/file" "$work/cuts" "$keeper" <<-'END' || { rm -f "$work/cuts"; kill -KILL "$keeper"; return 1; }
		import fcntl, os, signal, struct, sys, time
		path, cuts, keeper = sys.argv[1:]
		fd = os.open(path, os.O_RDWR | os.O_CREAT)
		os.write(fd, b"x" * 10000)
		open(cuts, "w").close()
		pid = os.fork()
		if pid == 0:
		    os.ftruncate(fd, 5000)
		    os._exit(os.fstat(fd).st_size != 5000 + 8192)
		while not os.path.exists(cuts + ".there"):
		    time.sleep(0.01)
		fcntl.ioctl(fd, 1 << 30 | 24 << 16 | 0xd5 << 8 | 5, struct.pack("QQII", 5000, 8192, 0, 0)) # UMBRA_IOC_FALLOCATE
		with open("/proc/%s/task/%s/children" % (keeper, keeper)) as f:
		    os.kill(int(f.read()), signal.SIGKILL)
		os.unlink(cuts)
		if os.waitpid(pid, 0)[1] or os.fstat(fd).st_size != 5000 + 8192:
		    sys.exit("it has been cut off twice: %d bytes" % os.fstat(fd).st_size)
		if os.pread(fd, 20000, 0) != b"x" * 5000 + bytes(8192):
		    sys.exit("what was cut off is still there")
		# The kernel cuts its pages off where it was asked to, and asks again how long the file is.
		with open(cuts + ".said") as f:
		    said = f.read()
		if said != "5000 0.000000000\n":
		    sys.exit("it was answered with size and timeout %s" % said)
	END
	ended_well
}

# Each daemon ends with an answer: what was asked has been carried out, and nobody has heard of it.
case_answers()
{
	local load
	fresh 1G || return 1
	: >"$work/deaths"
	export ANSWERS_DEATHS=$work/deaths ANSWERS_DEATHS_MAX=$((rounds * 4))
	LD_PRELOAD=$UMBRA_BUILD/tests/mounted/libanswers_preload.so up || return 1
	timeout $((rounds * 15)) python3 "$here/keeper.py" "$mnt" "$keeper" 0 "$seed" names append temporary wait >"$work/said" 2>&1 &
	load=$!
	# So many daemons take longer than wait_for waits; the load has a limit itself.
	until [ "$(stat -c %s "$work/deaths")" = "$ANSWERS_DEATHS_MAX" ] || has_ended $load; do sleep 0.1; done
	has_ended $load || kill -TERM "$(pgrep -P $load -f keeper.py)"
	wait $load || { tail -n 3 "$work/said"; grep -vE 'debug|mounted on|another one' "$work/log" | tail -n 3; return 1; }
	rm -rf "${mnt:?}"/*
	ended_well
}

# What the kernel does: tests/mounted/kernel_resend.c. Over io_uring nothing is sent again, which is why a keeper does without.
case_kernel()
{
	mkdir -p "$work/kernel"
	timeout 60 "$UMBRA_BUILD/tests/mounted/kernel_resend" dev "$work/kernel" >"$work/out" 2>&1 ||
		{ tail -n 2 "$work/out"; return 1; }
	is 'it' "$(head -n 1 "$work/out")" 'sent again, marked'
}

case_kernel_uring()
{
	local rc
	[ -z "$(uring_why)" ] || return 77
	mkdir -p "$work/kernel"
	uring_hold && uring_switch Y || return 1
	timeout 60 "$UMBRA_BUILD/tests/mounted/kernel_resend" uring "$work/kernel" >"$work/out" 2>&1
	rc=$?
	uring_release
	[ $rc = 0 ] || [ $rc = 3 ] || { tail -n 2 "$work/out"; return 1; }
	[ $rc = 0 ] || is 'it' "$(head -n 1 "$work/out")" 'not sent again'
}

case_options()
{
	fresh || return 1
	says 1 'keeper: not with transport=uring' "$umbrafs" -o keeper,transport=uring "$pool" "$mnt" || return 1
	says 1 'keeper: not with direct=' "$umbrafs" -o keeper,direct=rw "$pool" "$mnt" || return 1
	# In the background, as any mount: the command ends when it answers.
	works "$umbrafs" -o keeper "$pool" "$mnt" && mountpoint -q "$mnt" || { echo "not mounted"; return 1; }
	is 'processes' "$(pgrep -fc "$umbrafs.* $shm/")" 2 || return 1
	umount "$mnt" && wait_for eval '! pgrep -f "$umbrafs.* $shm/"' >/dev/null
	# The daemon has all options that were given, and the next one too.
	works "$umbrafs" -o noatime,keeper,ro -o threads=3 "$pool" "$mnt" || return 1
	for _ in 1 2; do
		works "$ctl" info "$mnt" || return 1
		grep -q '3 threads' "$work/out" && grep -q read-only "$work/out" || { echo "options are lost: $(tr '\n' '|' <"$work/out")"; return 1; }
		if { echo x >"$mnt/file"; } 2>/dev/null; then echo "it is not read-only"; return 1; fi
		keeper=$(pgrep -fo "$umbrafs.* $shm/")
		daemon_kill || return 1
	done
	umount "$mnt" && wait_for eval '! pgrep -f "$umbrafs.* $shm/"' >/dev/null
	# And without what it needs it fails as any.
	says 32 'no such file|No such file' "$umbrafs" -o keeper "$shm/none" "$mnt"
}

# It tells systemd, or whoever listens there, when the mount answers.
case_notify()
{
	fresh || return 1
	python3 - "$work/notify" <<-'END' >"$work/told" &
		import socket, sys
		s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
		s.bind(sys.argv[1])
		s.settimeout(60)
		print(s.recv(100).decode())
	END
	wait_for test -S "$work/notify" || return 1
	NOTIFY_SOCKET=$work/notify up || return 1
	wait_for test -s "$work/told" || return 1
	is 'what it was told' "$(tr '\n' ' ' <"$work/told")" "READY=1 MAINPID=$keeper " || return 1
	ended_well
}

# fio writes and verifies for about as long as that takes, and its process is $fio.
fio_start()
{
	mkdir "$mnt/fio"
	fio --name=verify --directory="$mnt/fio" --rw=randwrite --bsrange=4k-128k --size=48m --numjobs=2 --verify=crc32c --verify_backlog=64 \
		--loops=1000 --runtime=$((rounds / 2 + 3)) --time_based --verify_state_save=0 --output="$work/fio" >/dev/null 2>&1 &
	fio=$!
}

# All that fio has written is there, whoever was killed meanwhile.
case_fio()
{
	local i fio
	command -v fio >/dev/null || return 77
	fresh 1G && up || return 1
	fio_start
	for ((i = 0; i < rounds; i++)); do
		# One that lives shorter than a second, again and again, is started later and later.
		sleep $((i % 5 / 4)).3
		daemon_kill || return 1
	done
	wait $fio || { grep -m 3 -iE 'error|verify' "$work/fio"; return 1; }
	rm -r "$mnt/fio"
	ended_well
}

# Everything at once, on one mount.
case_storm()
{
	local fio
	command -v fio >/dev/null || return 77
	fresh 1G && up || return 1
	fio_start
	timeout -k 5 $((rounds * 3 + 120)) python3 "$here/keeper.py" "$mnt" "$keeper" "$rounds" "$seed" names names2 append data beside sqlite temporary \
		>"$work/said" 2>&1 || { kill -KILL "$keeper"; tail -n 4 "$work/said"; return 1; }
	wait "$fio" || { grep -m 3 -iE 'error|verify' "$work/fio"; return 1; }
	rm -rf "${mnt:?}"/*
	ended_well
}

# upgrade OPTIONS...: and what it says
upgrade()
{
	works "$ctl" upgrade "$@" "$mnt"
}

# Two builds with different code take turns under load.
case_upgrade()
{
	local i load next=$UMBRA_BUILD/tests/mounted/umbrafs_next
	fresh 1G && up || return 1
	timeout 300 python3 "$here/keeper.py" "$mnt" "$keeper" 0 "$seed" names append data beside sqlite temporary wait >"$work/said" 2>&1 &
	load=$!
	wait_for test -e "$mnt/names" || return 1
	for i in 1 2 3 4; do
		upgrade --daemon "$next" || return 1
		grep -q ' next has taken over' "$work/out" || { cat "$work/out"; return 1; }
		works "$ctl" info "$mnt" || return 1
		grep -q 'umbrafs next,' "$work/out" || { echo "it is not the next one that answers"; return 1; }
		upgrade --daemon "$umbrafs" || return 1
		grep -q 'has taken over from next' "$work/out" || { cat "$work/out"; return 1; }
		# Killed, it is the one that ran last that comes again.
		daemon_kill || return 1
	done
	kill -TERM "$(pgrep -P $load -f keeper.py)"
	wait $load || { tail -n 3 "$work/said"; return 1; }
	rm -rf "${mnt:?}"/*
	ended_well
}

# Programs that do not take over: the one before serves again, and upgrade says so.
case_upgrade_fails()
{
	local file=$mnt/file before
	fresh && up || return 1
	exec 8>"$file"
	echo one >&8
	before=$(daemon)
	says 1 'does not take over .*status 1' "$ctl" upgrade --daemon "$(type -P false)" "$mnt" || return 1
	says 1 'does not take over .*status 0' "$ctl" upgrade --daemon "$(type -P true)" "$mnt" || return 1
	# It does not end by itself.
	says 1 'does not take over .*signal 9' "$ctl" upgrade --daemon "$UMBRA_BUILD/tests/mounted/sleeper" "$mnt" || return 1
	says 1 'No such file' "$ctl" upgrade --daemon "$work/none" "$mnt" || return 1
	says 1 'Permission denied' "$ctl" upgrade --daemon /etc/passwd "$mnt" || return 1
	[ "$(daemon)" != "$before" ] || { echo "it was never replaced"; return 1; }
	# Nobody could read it when it is started; and what root of a container names is another file here.
	cp "$(type -P true)" "$mnt/program" && says 1 'lies on this mount' "$ctl" upgrade --daemon "$mnt/program" "$mnt" || return 1
	says 1 'not from a container' unshare -m "$ctl" upgrade --daemon "$umbrafs" "$mnt" || return 1
	echo two >&8
	exec 8>&-
	is 'the file' "$(tr '\n' ' ' <"$file")" 'one two ' || return 1
	ended_well || return 1
	# Without a keeper there is nobody who could.
	works "$umbrafs" "$pool" "$mnt" || return 1
	says 1 'not mounted with -o keeper' "$ctl" upgrade "$mnt"
}

# Lines of what the follower of events has been told: told COUNT
told()
{
	[ "$(wc -l <"$work/told")" = "$1" ]
}

# Who follows events goes on with the next daemon, and misses none of its events, be they more or fewer than before.
case_events()
{
	local follower
	fresh && up && works "$ctl" poison add 40M+12K "$mnt" || return 1
	"$ctl" events --follow --json "$mnt" >"$work/told" 2>"$work/err" &
	follower=$!
	wait_for told 3 && daemon_kill && works "$ctl" poison add 41M+20K "$mnt" && wait_for told 8 || return 1
	works "$ctl" upgrade "$mnt" && works "$ctl" poison add 42M "$mnt" && wait_for told 9 || return 1
	is 'the numbers' "$(grep -o '"number":[0-9]*' "$work/told" | cut -d: -f2 | xargs)" '1 2 3 1 2 3 4 5 1' || return 1
	unmount "$mnt" && wait "$keeper" || return 1
	wait_for has_ended "$follower" || { kill "$follower"; return 1; }
	wait "$follower"
	is 'the status of follow' $? 0 && is 'what it said' "$(cat "$work/err")" "umbractl: $mnt: has been unmounted"
}

# What a daemon sends that the keeper does not want is closed.
case_upgrade_descriptors()
{
	local before
	fresh && up || return 1
	# One before, so that the keeper has all that it has after one.
	says 1 'does not take over .*status 1' "$ctl" upgrade --daemon "$(type -P false)" "$mnt" || return 1
	before=$(find "/proc/$keeper/fd" -type l | wc -l)
	says 1 'does not take over .*status 1' "$ctl" upgrade --daemon "$UMBRA_BUILD/tests/mounted/fake_daemon" "$mnt" || return 1
	is 'descriptors of the keeper' "$(find "/proc/$keeper/fd" -type l | wc -l)" "$before" || return 1
	ended_well
}

# Without the keeper nobody could start the next daemon: this one stays, whether that is seen when it is asked or when it is about to go.
case_upgrade_alone()
{
	local before
	fresh && up || return 1
	exec 8>"$mnt/file"
	before=$(daemon)
	kill -KILL "$keeper"
	wait "$keeper"
	says 1 'its keeper is gone' "$ctl" upgrade "$mnt" || return 1
	says 1 'its keeper is gone' "$ctl" upgrade --daemon "$umbrafs" "$mnt" || return 1
	echo one >&8 || return 1
	kill -0 "$before" || { echo "the daemon has ended"; return 1; }
	exec 8>&-
	is 'the file' "$(cat "$mnt/file")" one || return 1
	umount "$mnt" && wait_for eval '! pgrep -f "$umbrafs.* $shm/"' >/dev/null && works "$bin/fsck.umbrafs" -fn "$pool" || return 1
	START_ALONE=1 LD_PRELOAD=$UMBRA_BUILD/tests/mounted/libstart_preload.so up || return 1
	before=$(daemon)
	for _ in 1 2; do
		says 1 'does not take over .the keeper is gone' "$ctl" upgrade "$mnt" || return 1
		is 'the daemon' "$(daemon)" "$before" && is 'the file' "$(cat "$mnt/file")" one || return 1
	done
	ended_well
}

# A build that would have answered the kernel's first request in another way does not take over, and leaves all as it is: what is unlinked and open too.
case_upgrade_other()
{
	fresh && up || return 1
	exec 8<>"$mnt/file"
	echo one >&8
	rm "$mnt/file"
	says 1 'does not take over .*status 32' "$ctl" upgrade --daemon "$UMBRA_BUILD/tests/mounted/umbrafs_other" "$mnt" || return 1
	grep -q 'cannot be served: Protocol error' "$work/log" || { echo "it did not say why: $(tail -n 3 "$work/log")"; return 1; }
	is 'the file' "$(cat /proc/self/fd/8)" one || return 1
	echo two >&8 || return 1
	is 'the file' "$(tr '\n' ' ' </proc/self/fd/8)" 'one two ' || return 1
	# Nothing else was opened meanwhile that could have its place.
	works "$ctl" upgrade "$mnt" || return 1
	is 'the file' "$(tr '\n' ' ' </proc/self/fd/8)" 'one two ' || return 1
	exec 8>&-
	ended_well
}

# Any path of a daemon's options may lead nowhere by now, and no mount ends for that.
case_event_gone()
{
	fresh || return 1
	printf '#!/bin/sh\n' >"$work/event"
	chmod 755 "$work/event"
	up --on-event "$work/event" || return 1
	rm "$work/event"
	daemon_kill || return 1
	echo x >"$mnt/file" && is 'the file' "$(cat "$mnt/file")" x || return 1
	ended_well
}

# A SIGTERM waits for the process, or has ended it.
term_came()
{
	has_ended "$1" || [ $((0x$(sed -n 's/^ShdPnd:\t//p' "/proc/$1/status") & 0x4000)) != 0 ]
}

# A signal that comes while a daemon starts ends the mount as any other, once that daemon answers.
case_ends_early()
{
	local pid
	fresh || return 1
	START_WAITS=$work/waits LD_PRELOAD=$UMBRA_BUILD/tests/mounted/libstart_preload.so up || return 1
	echo x >"$mnt/file"
	touch "$work/waits"
	daemon_kill || return 1
	wait_for test -e "$work/waits.there" || return 1
	pid=$(daemon)
	kill -TERM "$keeper"
	wait_for term_came "$pid" || return 1
	rm "$work/waits"
	wait "$keeper" || { echo "the keeper ended with $?: $(tail -n 1 "$work/log")"; return 1; }
	! mountpoint -q "$mnt" || { echo "still mounted"; return 1; }
	works "$bin/fsck.umbrafs" -fn "$pool"
}

# The mount has ended after a signal, as any that is told to: ended_by_signal
ended_by_signal()
{
	wait "$keeper" || { echo "the keeper ended with $?: $(tail -n 1 "$work/log")"; return 1; }
	! grep -q " $mnt " /proc/self/mountinfo || { echo "still mounted"; return 1; }
	works "$bin/fsck.umbrafs" -fn "$pool"
}

# A signal that comes while one program makes room for another one, or while that starts and never answers.
case_ends_upgrading()
{
	local pid
	fresh || return 1
	START_LEAVES=$work/leaves LD_PRELOAD=$UMBRA_BUILD/tests/mounted/libstart_preload.so up || return 1
	echo x >"$mnt/file"
	touch "$work/leaves"
	"$ctl" upgrade "$mnt" >/dev/null 2>&1 &
	wait_for test -e "$work/leaves.there" || return 1
	kill -TERM "$keeper"
	wait_for grep -q 'ending (signal 15)' "$work/log" || return 1
	rm "$work/leaves"
	ended_by_signal && up || return 1
	"$ctl" upgrade --daemon "$UMBRA_BUILD/tests/mounted/sleeper" "$mnt" >/dev/null 2>&1 &
	wait_for eval 'readlink "/proc/$(daemon)/exe" | grep -q sleeper' || return 1
	pid=$(daemon)
	kill -TERM "$keeper"
	wait_for term_came "$pid" || return 1
	kill -KILL "$pid"
	ended_by_signal
}

# A first daemon that mounts and cannot serve is the last one: what it says and its status are the command's.
case_first_fails()
{
	local option
	fresh || return 1
	for option in '' -f; do
		START_INIT=old LD_PRELOAD=$UMBRA_BUILD/tests/mounted/libstart_preload.so says 32 'this kernel cannot send requests again' \
			timeout 60 "$umbrafs" ${option:+"$option"} -o keeper "$pool" "$mnt" || return 1
		! mountpoint -q "$mnt" || { echo "still mounted"; return 1; }
		wait_for eval '! pgrep -f "$umbrafs.* $shm/"' >/dev/null || { echo "a process is left"; return 1; }
	done
	works "$bin/fsck.umbrafs" -fn "$pool"
}

# Who takes the lines of the log may wait for the mount himself: no daemon waits for him to be started.
case_log_full()
{
	fresh || return 1
	mkfifo "$work/lines" && exec 9<>"$work/lines"
	"$umbrafs" -f -o keeper "$pool" "$mnt" >"$work/log" 2>"$work/lines" </dev/null &
	keeper=$!
	wait_for mountpoint -q "$mnt" || return 1
	echo x >"$mnt/file"
	# Until it takes no more; in pieces, so that no room is left that is smaller than a line.
	dd if=/dev/zero of="$work/lines" bs=4096 oflag=nonblock status=none 2>/dev/null
	dd if=/dev/zero of="$work/lines" bs=1 oflag=nonblock status=none 2>/dev/null
	daemon_kill || return 1
	is 'the file' "$(timeout 60 cat "$mnt/file")" x || { kill -KILL "$keeper"; return 1; }
	timeout 60 grep -a -q -m 1 'another one takes over' <&9 || { echo "it is never said"; return 1; }
	exec 9>&-
	ended_well
}

# The same of what a daemon says before it answers anybody, here of a request that it must not do again.
case_log_full_taking()
{
	local poisons=$work/poisons asker
	fresh || return 1
	mkfifo "$work/taking" && exec 9<>"$work/taking" || return 1
	START_POISONS=$poisons LD_PRELOAD=$UMBRA_BUILD/tests/mounted/libstart_preload.so "$umbrafs" -f -o keeper "$pool" "$mnt" \
		>"$work/log" 2>"$work/taking" </dev/null 9>&- &
	keeper=$!
	wait_for mountpoint -q "$mnt" && echo x >"$mnt/file" && touch "$poisons" || return 1
	"$ctl" poison add 40M+4K "$mnt" >/dev/null 2>"$work/err" 9>&- &
	asker=$!
	wait_for test -e "$poisons.there" || { kill -KILL "$keeper"; rm "$poisons"; return 1; }
	dd if=/dev/zero of="$work/taking" bs=4096 oflag=nonblock status=none 2>/dev/null
	dd if=/dev/zero of="$work/taking" bs=1 oflag=nonblock status=none 2>/dev/null
	daemon_kill
	rm "$poisons"
	wait_for has_ended "$asker" || { kill -KILL "$keeper" "$(daemon)"; return 1; }
	is 'the file' "$(timeout 60 cat "$mnt/file")" x || return 1
	timeout 60 grep -a -q -m 1 'under way when the daemon ended' <&9 || { echo "it is never said"; return 1; }
	exec 9>&-
	ended_well
}

# A daemon of which a thread waits in the kernel for what the next one has to answer, and is $before.
stuck()
{
	export HOLD=$hold LD_PRELOAD=$UMBRA_BUILD/tests/mounted/libhold_preload.so
	fresh && up -o threads=4 && hold_file && ended_well && up -o threads=4 && hold_read && before=$(daemon) && hold_telling "$before"
	local rc=$?
	unset HOLD LD_PRELOAD
	return $rc
}

# It is left behind, and comes to its end by the next one, as do those who wait: left_behind SIGNAL
left_behind()
{
	local before
	stuck || return 1
	kill -"$1" "$before"
	rm "$hold"
	wait_for has_ended "$caller" && wait_for has_ended "$teller" && wait_for has_ended "$before" || { kill -KILL "$keeper"; umount -f "$mnt"; return 1; }
	wait "$caller" && wait "$teller" && is 'what was read' "$(md5sum <"$work/read")" "$hold_sum" &&
		is 'the time' "$(stat -c %y "$mnt/file" | cut -c -10)" 2001-02-03 || return 1
	exec 8>&-
	grep -q "a thread of daemon $before waits in the kernel" "$work/log" || { echo "it was not left behind"; return 1; }
	ended_well
}

case_left_behind()
{
	left_behind KILL
}

# One that crashes writes core first, or would: the kernel waits for all threads of it to come to that.
case_left_behind_crashed()
{
	ulimit -c 0
	left_behind SEGV
}

# A keeper that gives up then ends the connection, or all would wait for ever.
case_gives_up_stuck()
{
	local before
	stuck && prlimit --pid "$keeper" --as=60000000 || return 1
	kill -KILL "$before"
	wait_for has_ended "$caller" && wait_for has_ended "$teller" && wait_for has_ended "$before" && wait_for has_ended "$keeper" || { umount -f "$mnt"; return 1; }
	exec 8>&-
	says 1 'not connected' stat -f "$mnt" || return 1
	umount -l "$mnt" && works "$bin/fsck.umbrafs" -p "$pool"
}

# A keeper that is killed when it has started the next program: that goes on with the mount, and nobody hears of it.
case_killed_upgrading()
{
	local next
	fresh || return 1
	START_WAITS=$work/starts LD_PRELOAD=$UMBRA_BUILD/tests/mounted/libstart_preload.so up || return 1
	exec 8<>"$mnt/file"
	echo one >&8
	touch "$work/starts"
	"$ctl" upgrade --daemon "$UMBRA_BUILD/tests/mounted/umbrafs_next" "$mnt" >/dev/null 2>&1 8>&- &
	wait_for test -e "$work/starts.there" || return 1
	next=$(daemon)
	kill -KILL "$keeper"
	wait "$keeper"
	rm "$work/starts"
	echo two >&8 || return 1
	is 'the file' "$(tr '\n' ' ' <"$mnt/file")" 'one two ' || return 1
	exec 8>&-
	works "$ctl" info "$mnt" && grep -q 'umbrafs next,' "$work/out" || { echo "it is not the next one that answers"; return 1; }
	unmount "$mnt" && wait_for has_ended "$next" && works "$bin/fsck.umbrafs" -fn "$pool"
}

# misses POINT CASE: a daemon that leaves this step out makes the case fail
misses()
{
	local point=$1 name=$2
	: >"$work/log"
	# Who waits in vain need not do so for long here.
	(
		umbrafs=$UMBRA_BUILD/tests/mounted/umbrafs_sabotaged
		export UMBRA_LEAVE_OUT=$point wait_max_s=10
		"case_$name" >/dev/null 2>&1
		rc=$?
		down
		umount -l "$mnt" 2>/dev/null
		exit $rc
	) && { echo "$name does not miss $point"; return 1; }
	grep -q "left out: $point" "$work/log" || { echo "$point is nowhere"; return 1; }
}

case_sabotage()
{
	misses setattr-size cut && misses setattr-timeout cut && misses connection-abort gives_up_stuck
}

# That receipts were short once is of no concern to daemons after the next one. (The head's field is set by hand: fuse/kept.h.)
case_short()
{
	local fd
	fresh && up || return 1
	echo x >"$mnt/file"
	for fd in "/proc/$keeper/fd/"*; do
		case $(readlink "$fd") in /memfd:umbrafs*) break ;; esac
	done
	short() { od -An -tu4 -j604 -N4 "$fd" | tr -d ' '; }
	is 'the magic' "$(od -An -tx8 -N8 "$fd" | tr -d ' ')" 6b65707461726d75 && is 'what was short' "$(short)" 0 || return 1
	printf '\001' | dd of="$fd" bs=1 seek=604 conv=notrunc status=none
	is 'what was short' "$(short)" 1 || return 1
	daemon_kill || return 1
	is 'the file' "$(cat "$mnt/file")" x && wait_for eval '[ "$(short)" = 0 ]' || return 1
	ended_well
}

# A first request of a kernel to come that does not fit to where it is kept: no mount, and nobody waits.
case_init_long()
{
	local rc
	fresh || return 1
	START_INIT=long LD_PRELOAD=$UMBRA_BUILD/tests/mounted/libstart_preload.so timeout -s KILL 60 "$umbrafs" -f -o keeper "$pool" "$mnt" \
		>"$work/out" 2>"$work/err" </dev/null
	rc=$?
	is 'the status' $rc 32 || return 1
	grep -q 'first request is too long to be kept: 400 bytes' "$work/err" && grep -q 'cannot be served: Input/output error' "$work/err" ||
		{ echo "it said $(tr '\n' '|' <"$work/err")"; return 1; }
	! mountpoint -q "$mnt" || { echo "still mounted"; return 1; }
	works "$bin/fsck.umbrafs" -fn "$pool"
}

# No daemon can come up any more: the mount ends as one without a keeper.
case_gives_up()
{
	fresh && up || return 1
	exec 8>"$mnt/file"
	prlimit --pid "$keeper" --as=60000000 || return 1
	kill -KILL "$(daemon)"
	wait_for has_ended "$keeper" || return 1
	grep -q 'could not take over: the mount ends' "$work/log" || { tail -n 2 "$work/log"; return 1; }
	if { echo late >&8; } 2>/dev/null; then echo "a write went through"; exec 8>&-; return 1; fi
	exec 8>&-
	umount -l "$mnt" && works "$bin/fsck.umbrafs" -p "$pool"
}

# The keeper is told to end, or killed itself.
case_ends()
{
	fresh && up || return 1
	echo x >"$mnt/file"
	kill -TERM "$keeper"
	wait "$keeper" || { echo "ended with $?"; return 1; }
	! mountpoint -q "$mnt" || { echo "still mounted"; return 1; }
	works "$bin/fsck.umbrafs" -fn "$pool" && up || return 1
	kill -KILL "$keeper"
	wait "$keeper"
	is 'the file' "$(cat "$mnt/file")" x || return 1
	echo y >"$mnt/file" || return 1
	umount "$mnt" && wait_for eval '! pgrep -f "$umbrafs.* $shm/"' >/dev/null && works "$bin/fsck.umbrafs" -fn "$pool"
}

if [ $# -eq 0 ]; then
	mapfile -t names < <(case_names)
	set -- "${names[@]}"
fi
for name; do
	case_run "$name"
done
exit $status
