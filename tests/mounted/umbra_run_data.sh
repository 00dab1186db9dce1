#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# shellcheck disable=SC1091,SC2154 # what tool_lib.sh sets
# Data calls of programs that know nothing of umbrafs, straight in the memory of the device.
#
#   umbra_run_data.sh [CASE...]     prints 'ok umbra_run_data/CASE', 'not ok umbra_run_data/CASE: why'
#
# Environment: SEEDS, how many of case_calls.
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/tool_lib.sh"

run=$bin/umbra-run
programs=$UMBRA_BUILD/tests/mounted
# A sanitizer's runtime has to come first, which a preloaded library does not let it.
unset LD_PRELOAD UMBRA_DIRECT UMBRA_STATS

mounted()
{
	fresh "${1:-256M}" && works "$umbrafs" -o direct=rw "$pool" "$mnt"
}

# What UMBRA_STATS=1 said in $work/stats, of all processes: stat_of 'reads of'
stat_of()
{
	sed -n "s/^umbra: directly.* \([0-9]*\) $1 .*/\1/p" "$work/stats" | awk '{ n += $1 } END { print n + 0 }'
}

has_direct()
{
	[ "$(stat_of 'reads of')" -gt "$1" ] && [ "$(stat_of 'writes of')" -gt "$2" ] ||
		{ cat "$work/stats"; return 1; }
}

# sound: the mount and its memory are
sound()
{
	down
	works "$bin/fsck.umbrafs" -n "$pool"
}

# The same calls on a file system of the kernel's say the same.
case_calls()
{
	local seed mode
	mounted || return 1
	mkdir "$shm/plain" || return 1
	for ((seed = 1; seed <= ${SEEDS:-12}; seed++)); do
		timeout 100 "$programs/call_script" "$shm/plain" $seed 2000 >"$work/plain" || return 1
		for mode in all 1; do
			UMBRA_STATS=1 UMBRA_DIRECT=$mode timeout 200 "$run" "$programs/call_script" "$mnt" $seed 2000 \
				>"$work/direct" 2>"$work/stats" || { echo "seed $seed ended with $?"; return 1; }
			cmp "$work/plain" "$work/direct" || { diff "$work/plain" "$work/direct" | head -4; return 1; }
			[ $mode = 1 ] || has_direct 10 5 || return 1
			rm "$mnt"/f?
		done
		rm "$shm/plain"/f?
	done
	sound
}

case_ioctl_only()
{
	mounted && head -c 100000 /dev/urandom >"$mnt/a" || return 1
	UMBRA_STATS=1 "$run" --ioctl-only "$programs/call_script" "$mnt" 1 300 >"$work/out" 2>"$work/stats" || return 1
	is reads "$(stat_of 'reads of')" 0 || return 1
	is writes "$(stat_of 'writes of')" 0 || return 1
	is 'lines without UMBRA_STATS' "$("$run" "$programs/call_script" "$mnt" 1 300 2>&1 >/dev/null | wc -l)" 0
}

# What is set after direct writes stays: times, the mode, capabilities of the file.
case_set_after()
{
	mounted && head -c 100000 /dev/zero >"$mnt/a" || return 1
	UMBRA_STATS=1 UMBRA_DIRECT=all "$run" python3 -c 'import os, sys, time
name = sys.argv[1]
fd = os.open(name, os.O_RDWR)
caps = bytes.fromhex("0100000200200000000000000000000000000000")
def write():
    for i in range(20):
        os.pwrite(fd, b"x", 4096 * i)
write()
os.utime(fd, (1000, 2000))
assert os.fstat(fd).st_mtime == 2000, os.fstat(fd).st_mtime
write()
os.utime(name, (1000, 3000))
assert os.stat(name).st_mtime == 3000, os.stat(name).st_mtime
write()
os.setxattr(fd, "security.capability", caps)
os.fstat(fd)
assert os.getxattr(fd, "security.capability") == caps
os.utime(fd, (1000, 4000))
os.close(fd)
assert os.stat(name).st_mtime == 4000, os.stat(name).st_mtime
' "$mnt/a" 2>"$work/stats" || { tail -3 "$work/stats"; return 1; }
	[ "$(stat_of 'writes of')" -ge 50 ] || { cat "$work/stats"; return 1; }
	is 'mtime in the end' "$(stat -c %Y "$mnt/a")" 4000 && sound
}

# A mount that gives nothing.
case_no_direct()
{
	fresh 256M && works "$umbrafs" -o direct=off "$pool" "$mnt" || return 1
	UMBRA_STATS=1 UMBRA_DIRECT=all "$run" "$programs/call_script" "$mnt" 1 300 >"$work/out" 2>"$work/stats" || return 1
	is reads "$(stat_of 'reads of')" 0
}

# Processes could not make durable what they store: that stays the kernel's.
case_durability_msync()
{
	fresh 64M && works "$umbrafs" -o direct=rw,durability=msync "$pool" "$mnt" || return 1
	UMBRA_STATS=1 UMBRA_DIRECT=all "$run" python3 -c 'import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.write(fd, b"a" * 400000)
for i in range(90): assert os.pwrite(fd, b"x" * 4096, i * 4096) == 4096
for i in range(90): assert os.pread(fd, 4096, i * 4096) == b"x" * 4096
with mmap.mmap(fd, 400000) as m:
    m[5:8] = b"yyy"
    m.flush()
assert os.pread(fd, 10, 0) == b"xxxxxyyyxx"
' "$mnt/a" 2>"$work/stats" || { tail -2 "$work/stats"; return 1; }
	is writes "$(stat_of 'writes of')" 0 || return 1
	cmp <(printf xxxxxyyyxx) <(head -c 10 "$mnt/a") || return 1
	sound
}

case_threads()
{
	mounted || return 1
	UMBRA_STATS=1 UMBRA_DIRECT=all timeout 200 "$run" "$programs/call_threads" "$mnt" >"$work/out" 2>"$work/stats" ||
		{ head -5 "$work/out"; cat "$work/stats"; return 1; }
	has_direct 100 100 && sound
}

# One offset for all who have it.
case_offset()
{
	local mode
	mounted || return 1
	mkdir "$shm/offset" && timeout 100 "$programs/call_offset" "$shm/offset" >"$work/out" || { head -5 "$work/out"; return 1; }
	for mode in all 1; do
		UMBRA_STATS=1 UMBRA_DIRECT=$mode timeout 300 "$run" "$programs/call_offset" "$mnt" >"$work/out" 2>"$work/stats" ||
			{ head -5 "$work/out"; return 1; }
		has_direct 5000 1000 || return 1
	done
	sound
}

# System calls with memory that is a mapping.
case_memory()
{
	mounted || return 1
	mkdir "$shm/memory" && timeout 100 "$programs/call_memory" "$shm/memory" >"$work/out" || { head -5 "$work/out"; return 1; }
	UMBRA_STATS=1 UMBRA_DIRECT=all timeout 300 "$run" "$programs/call_memory" "$mnt" >"$work/out" 2>"$work/stats" ||
		{ head -5 "$work/out"; return 1; }
	sound
}

# What the rest of this suite says of files holds for these programs too.
case_suite()
{
	local name cases
	fresh 512M && works "$umbrafs" -o direct=rw,allow_other,default_permissions,suid,dev "$pool" "$mnt" || return 1
	: >"$work/stats"
	for name in io suid times truncate fsx copyrange fallocate limits orphan stress; do
		# The times of what is stored through mappings are those when somebody looks.
		cases=$("$programs/m_$name" --list | sed 's,.*/,,' | grep -v '^mmap_write')
		# shellcheck disable=SC2086
		mkdir "$mnt/$name" && UMBRA_STATS=1 UMBRA_DIRECT=all timeout 300 "$run" "$programs/m_$name" --fs umbrafs "$mnt/$name" $cases \
			>"$work/out" 2>>"$work/stats" || { grep -h '^not ok' "$work/out"; return 1; }
	done
	has_direct 1000 300 && sound
}

# Faults that are not ours stay what they are.
case_signals()
{
	local use='import os, sys, ctypes, signal, faulthandler
fd = os.open(sys.argv[1], os.O_RDWR)
for i in range(20): assert os.pread(fd, 4096, i * 4096) == b"x" * 4096
'
	mounted && head -c 200000 /dev/zero | tr '\0' x >"$mnt/a" || return 1
	export UMBRA_DIRECT=all
	ulimit -c 0
	"$run" python3 -c "$use"'ctypes.string_at(8)' "$mnt/a" 2>/dev/null
	is 'a bad pointer' $? 139 || return 1
	"$run" python3 -c "faulthandler = 1; import faulthandler; faulthandler.enable(); $use"'ctypes.string_at(8)' "$mnt/a" 2>"$work/out"
	is 'with a handler' $? 139 && grep -q 'Fatal Python error: Segmentation fault' "$work/out" || return 1
	"$run" python3 -c "$use"'os.kill(os.getpid(), signal.SIGSEGV)' "$mnt/a" 2>/dev/null
	is 'a signal that was sent' $? 139 || return 1
	"$run" python3 -c "$use"'os.kill(os.getpid(), signal.SIGBUS)' "$mnt/a" 2>/dev/null
	is 'another one' $? 135
}

# Descriptors of the library's own: out of reach, and nothing comes of trying.
case_close_all()
{
	mounted && head -c 200000 /dev/zero | tr '\0' x >"$mnt/a" || return 1
	UMBRA_STATS=1 UMBRA_DIRECT=all "$run" python3 -c 'import os, resource, sys
def look():
    fd = os.open(sys.argv[1], os.O_RDWR)
    for i in range(20): assert os.pread(fd, 4096, i * 4096) == b"x" * 4096
    assert os.pwrite(fd, b"x" * 100, 5000) == 100
    return fd
before = set(os.listdir("/proc/self/fd"))
for i in range(3):
    fd = look()
    for n in set(os.listdir("/proc/self/fd")) - before - {str(fd)}:
        try:
            if "socket:" in os.readlink("/proc/self/fd/" + n):
                os.close(int(n))
                print("closed", n)
        except FileNotFoundError:
            pass
        except OSError as e:
            assert e.errno == 9
            print("kept")
    os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    pairs = [os.pipe() for n in range(20)]
    look()
' "$mnt/a" >"$work/out" 2>"$work/stats" || { cat "$work/out" "$work/stats"; return 1; }
	is 'its socket' "$(sort -u "$work/out")" kept || return 1
	is 'direct writes' "$(stat_of 'writes of')" 6
}

# Descriptors that a program has opened and does not use keep it from nothing.
case_idle_descriptor()
{
	local call
	for call in pwrite write; do
		mounted && head -c 4000000 /dev/zero >"$mnt/a" || return 1
		UMBRA_STATS=1 "$run" python3 -c 'import os, sys, time
call, name = sys.argv[1:]
idle = [os.open(name, os.O_RDWR), os.open(name, os.O_RDONLY), os.open(name, os.O_RDWR)]
fd = os.open(name, os.O_RDWR)
def writes_of_kernel():
    return int(open("/proc/thread-self/io").read().split("syscw: ")[1].split()[0])
def write(i):
    if call == "write":
        if i % 100 == 0: os.lseek(fd, 0, 0)
        return os.write(fd, b"x" * 4096)
    return os.pwrite(fd, b"x" * 4096, 4096 * i)
end = time.monotonic() + 60
while True:
    before = writes_of_kernel()
    for i in range(100): assert write(i) == 4096
    if writes_of_kernel() - before < 10: break
    assert time.monotonic() < end, "all by the kernel"
    time.sleep(0.01)
for other in idle: assert os.pread(other, 4096, 8192) == b"x" * 4096
' $call "$mnt/a" 2>"$work/stats" || { tail -2 "$work/stats"; return 1; }
		[ "$(stat_of 'writes of')" -ge 90 ] || { cat "$work/stats"; return 1; }
		sound || return 1
	done
}

# Descriptors that are looked at for another one while somebody closes them: what gets their numbers is left alone.
case_closed_meanwhile()
{
	mounted && timeout 100 "$run" "$programs/call_closed" "$mnt/a" && sound
}

# Journals that are written, read a little and removed: nothing is asked of the daemon for them.
case_journals()
{
	mounted || return 1
	UMBRA_STATS=1 "$run" python3 -c 'import os, sys
for n in range(50):
    fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT | os.O_EXCL)
    for i in range(40): assert os.pwrite(fd, b"j" * 1000, 1000 * i) == 1000
    assert os.pread(fd, 8, 40000) == b""
    assert os.pread(fd, 8, 0) == b"j" * 8
    os.close(fd)
    os.unlink(sys.argv[1])
' "$mnt/j" 2>"$work/stats" || { tail -2 "$work/stats"; return 1; }
	grep -q '^umbra: by the kernel .* calls: files that are written at their end' "$work/stats" &&
		! grep '^umbra: by the kernel [1-9].* of the same files' "$work/stats" || { cat "$work/stats"; return 1; }
	sound
}

# A user who has let others wait gets no sessions for a while: his programs are as they are without, and their descriptors are not changed.
case_late_user()
{
	local user=(setpriv --reuid=65534 --regid=65534 --clear-groups) pid
	fresh 256M && works "$umbrafs" -o direct=rw:65534,allow_other,default_permissions "$pool" "$mnt" || return 1
	head -c 100000 /dev/zero >"$mnt/a" && head -c 400000 /dev/zero >"$mnt/b" && chmod 666 "$mnt/a" "$mnt/b" || return 1
	UMBRA_STATS=1 UMBRA_DIRECT=all "${user[@]}" "$run" python3 -c 'import os, signal, sys
fd = os.open(sys.argv[1], os.O_RDWR)
for i in range(20): os.pwrite(fd, b"x" * 4096, i * 4096)
os.kill(os.getpid(), signal.SIGSTOP)
' "$mnt/a" &
	pid=$!
	wait_for grep -q '^State:.T' "/proc/$pid/status" && truncate -s 0 "$mnt/a" || return 1
	UMBRA_STATS=1 "${user[@]}" "$run" python3 -c 'import os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
for i in range(90): assert os.pwrite(fd, b"x" * 4096, i * 4096) == 4096
for i in range(90): assert os.pread(fd, 4096, i * 4096) == b"x" * 4096
flags = [line for line in open("/proc/self/fdinfo/%d" % fd) if line.startswith("flags")][0].split()[1]
assert not int(flags, 8) & os.O_DIRECT, flags
' "$mnt/b" 2>"$work/stats" || { tail -2 "$work/stats"; return 1; }
	is writes "$(stat_of 'writes of')" 0 || return 1
	grep -q 'too few calls' "$work/stats" || { cat "$work/stats"; return 1; }
	kill -CONT "$pid" && wait "$pid"
	sound
}

case_sqlite()
{
	local k pids=()
	command -v sqlite3 >/dev/null || return 77
	mounted || return 1
	for k in 1 2 3; do
		for i in $(seq 60); do
			echo "pragma busy_timeout=60000;"
			[ $k = 3 ] || echo "pragma mmap_size=0;"
			echo "create table if not exists t$k(a integer primary key, b blob);"
			echo "begin immediate; insert into t$k(b) select randomblob(900) from generate_series(1,40); commit;"
			[ $((i % 7)) = 0 ] && echo "delete from t$k where a % 3 = 0; update t$k set b = zeroblob(2000) where a % 5 = 0;"
		done >"$work/sql$k"
		UMBRA_STATS=1 UMBRA_DIRECT=all timeout 300 "$run" sqlite3 "$mnt/db" <"$work/sql$k" >/dev/null 2>"$work/stats$k" &
		pids+=($!)
	done
	for k in 1 2 3; do
		wait "${pids[k - 1]}" || { cat "$work/stats$k"; return 1; }
	done
	cat "$work"/stats[123] >"$work/stats"
	has_direct 100 10 || return 1
	is check "$(sqlite3 "$mnt/db" 'pragma integrity_check')" ok || return 1
	is 'check directly' "$(UMBRA_DIRECT=all "$run" sqlite3 "$mnt/db" 'pragma integrity_check')" ok || return 1
	is 'rows' "$(UMBRA_DIRECT=all "$run" sqlite3 "$mnt/db" 'select count(*), sum(length(b)) from t1')" \
		"$(cp "$mnt/db" "$shm/db" && sqlite3 "$shm/db" 'select count(*), sum(length(b)) from t1')" || return 1
	sound
}

case_fio()
{
	local engine
	command -v fio >/dev/null || return 77
	mounted 512M || return 1
	for engine in psync pvsync pvsync2; do
		UMBRA_STATS=1 UMBRA_DIRECT=all timeout 300 "$run" fio --name=v --thread --directory="$mnt" --ioengine=$engine --size=24M \
			--rw=randrw --bsrange=512-64k --numjobs=2 --verify=crc32c --verify_fatal=1 --do_verify=1 --overwrite=1 \
			--fallocate=none --invalidate=0 --verify_state_save=0 >"$work/out" 2>"$work/stats" || { tail -5 "$work/out"; cat "$work/stats"; return 1; }
		has_direct 100 100 || return 1
	done
	sound
}

case_tools()
{
	local bs
	mounted 512M || return 1
	export UMBRA_DIRECT=all
	mkdir "$mnt/d" && head -c 3000000 /dev/urandom >"$shm/a" && seq 20000 >"$mnt/d/text" || return 1
	"$run" cp "$shm/a" "$mnt/a" && "$run" dd if="$mnt/a" of="$mnt/b" bs=5000 oflag=direct status=none &&
		"$run" cmp "$mnt/a" "$mnt/b" && cmp "$shm/a" "$mnt/b" || return 1
	"$run" dd if="$shm/a" of="$mnt/b" bs=4096 conv=notrunc seek=3 status=none || return 1
	cmp -i 0:12288 -n 2900000 "$shm/a" "$mnt/b" || return 1
	for bs in 4096 5000 300000; do
		UMBRA_STATS=1 "$run" dd if="$mnt/a" of="$mnt/b" bs=$bs conv=notrunc status=none 2>"$work/stats" && has_direct 8 8 || return 1
		cmp -n 3000000 "$shm/a" "$mnt/b" || return 1
	done
	# Descriptors that the shell has opened, one offset after the other's.
	"$run" sh -c 'head -c 1000000; dd bs=1000 count=1000 status=none; cat' <"$mnt/a" | cmp - "$shm/a" || return 1
	(head -c 1000000 && dd bs=1000 count=1000 status=none && cat) <"$shm/a" 1<>"$mnt/b" || return 1
	"$run" sh -c 'dd bs=7000 count=100 status=none; cat' <"$shm/a" 1<>"$mnt/b" && cmp -n 3000000 "$shm/a" "$mnt/b" || return 1
	"$run" bash -c 'while read -r line; do echo "$line"; done <"$1"' bash "$mnt/d/text" | cmp - "$mnt/d/text" || return 1
	"$run" tac "$mnt/d/text" | "$run" tac | cmp - "$mnt/d/text" || return 1
	"$run" sort "$mnt/d/text" | cmp - <(sort "$mnt/d/text") || return 1
	if command -v rsync >/dev/null; then
		rm "$mnt/d/text"
		"$run" rsync -a --inplace "$here/" "$mnt/d/" && diff -r "$here" "$mnt/d" || return 1
		# Parts of a file that is there.
		cp "$shm/a" "$shm/c" && dd if=/dev/urandom of="$shm/c" bs=1000 seek=700 count=500 conv=notrunc status=none || return 1
		cp "$shm/a" "$mnt/c" && "$run" rsync --inplace --no-whole-file -I "$shm/c" "$mnt/c" && cmp "$shm/c" "$mnt/c" || return 1
	fi
	command -v git >/dev/null || return 0
	(cd "$mnt/d" && export HOME=$work && "$run" git init -q . && "$run" git add . &&
		"$run" git -c user.name=a -c user.email=a@b commit -qm all && "$run" git gc -q --prune=now &&
		"$run" git fsck --strict --no-progress && git fsck --no-progress) || return 1
	sound
}

# shellcheck disable=SC2046
[ $# -gt 0 ] || set -- $(case_names)
for name in "$@"; do
	case_run "$name"
done
exit "$status"
