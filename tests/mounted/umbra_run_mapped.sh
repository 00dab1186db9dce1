#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# shellcheck disable=SC1091,SC2154 # what tool_lib.sh sets
# Programs that map files and know nothing of umbrafs: their mappings are the memory of the device.
#
#   umbra_run_mapped.sh [CASE...]     prints 'ok umbra_run_mapped/CASE', 'not ok umbra_run_mapped/CASE: why'
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

# How many mappings were made directly, by all processes; and how many calls went to the kernel for a reason.
mappings()
{
	sed -n 's/^umbra: directly \([0-9]*\) mappings$/\1/p' "$work/stats" | awk '{ n += $1 } END { print n + 0 }'
}

by_kernel()
{
	sed -n "s/^umbra: by the kernel \([0-9]*\) calls: .*$1.*/\1/p" "$work/stats" | awk '{ n += $1 } END { print n + 0 }'
}

has_mapped()
{
	[ "$(mappings)" -ge "$1" ] || { echo "$(mappings) mappings"; cat "$work/stats"; return 1; }
}

sound()
{
	down
	works "$bin/fsck.umbrafs" -n "$pool"
}

# program NAME [CASE...]: one of the suite's programs, all of whose mappings have to be direct
program()
{
	local name=$1
	shift
	MAPPED_DIRECT=1 timeout 250 "$run" "$programs/m_$name" --fs umbrafs "$mnt" "$@" >"$work/log" 2>&1 ||
		{ grep -m 6 -E '^(#|not ok)' "$work/log" || tail -5 "$work/log"; return 1; }
}

case_calls()
{
	mounted && program mapped && sound
}

case_signals()
{
	mounted && program mapped_signals && sound
}

case_handlers()
{
	UMBRA_DIRECT=all
	export UMBRA_DIRECT
	mounted && program mapped_handlers && sound
}

# by_units DIRECT NAME [CASE...]: a program on memory that can be cut at multiples of 2 MiB only, and what it refuses is not asked for
by_units()
{
	local direct=$1 name=$2
	shift 2
	fresh 512M && works "$umbrafs" -o direct=rw,direct_unit=2M "$pool" "$mnt" || return 1
	LD_PRELOAD=$programs/libunits_preload.so UMBRA_UNITS_POOL=$pool UMBRA_UNITS_LOG=$work/refused MAPPED_DIRECT=$direct \
		timeout 250 "$run" "$programs/m_$name" --fs umbrafs "$mnt" "$@" >"$work/log" 2>&1 ||
		{ grep -m 6 -E '^(#|not ok)' "$work/log" || tail -5 "$work/log"; cat "$work/refused" 2>/dev/null; return 1; }
	[ ! -e "$work/refused" ] || { cat "$work/refused"; return 1; }
	sound
}

case_units()
{
	by_units 1 mapped_units
}

# But for times: what may be stored to is so from the first touch on.
case_units_calls()
{
	by_units 0 mapped errors hints mapped_over attached_over mixed_ranges protect private both_kinds mremap madvise by_number descriptors record_locks threads
}

# But for signals past the end of a file: there is memory, up to the next 2 MiB.
case_units_signals()
{
	by_units 0 mapped_signals actions blocked alternate_stack fork dont_fork vfork processes
}

# What the suite has for mappings of the kernel's.
case_kernels()
{
	mounted && program mmap && sound
}

# Clones, all mapped, every copy of a shared block stored to: each has its own bytes.
case_all_copies()
{
	mounted 512M && program clones && sound
}

# A mount that gives nothing, and programs that are not to have any of it.
case_no_direct()
{
	fresh 256M && works "$umbrafs" -o direct=off "$pool" "$mnt" || return 1
	timeout 100 "$run" "$programs/m_mapped" --fs umbrafs "$mnt" >"$work/log" 2>&1 || { grep -m 4 'not ok' "$work/log"; return 1; }
	down
	works "$umbrafs" -o direct=rw "$pool" "$mnt" || return 1
	timeout 100 "$run" --ioctl-only "$programs/m_mapped_signals" --fs umbrafs "$mnt" >"$work/log" 2>&1 || { grep -m 4 'not ok' "$work/log"; return 1; }
	sound
}

# Which are whose, and what is said of it.
case_counts()
{
	mounted && head -c 3000000 /dev/urandom >"$mnt/a" && head -c 9000 /dev/urandom >"$mnt/small" || return 1
	UMBRA_STATS=1 "$run" python3 -c 'import mmap, sys
def look(name, size, **how):
    with open(name, "r+b") as f:
        return mmap.mmap(f.fileno(), size, **how)
shared = [look(sys.argv[1], 0) for i in range(5)]
small = look(sys.argv[2], 0, prot=mmap.PROT_READ, flags=mmap.MAP_PRIVATE)
for i in range(0, 3000000, 4096):
    shared[i % 5][i] = 9
assert all(shared[4][i] == 9 for i in range(0, 3000000, 4096))
assert len(small[:]) == 9000
private = look(sys.argv[1], 0, access=mmap.ACCESS_COPY)
private[0] = 7
assert shared[0][0] == 9
again = look(sys.argv[1], 0)
assert again[4096] == 9
' "$mnt/a" "$mnt/small" 2>"$work/stats" || { cat "$work/stats"; return 1; }
	is mappings "$(mappings)" 5 || return 1
	is 'small ones' "$(by_kernel 'small mappings')" 1 || return 1
	is 'those of the kernel' "$(by_kernel 'only the kernel')" 1 || return 1
	is 'mapped by the kernel' "$(by_kernel 'that the kernel maps')" 1 || return 1
	sound
}

# Somebody else has the file open through the kernel all the time: the mapping becomes the kernel's, and the counts say why.
case_open_elsewhere()
{
	local holder
	mounted && head -c 100000 /dev/urandom >"$mnt/a" || return 1
	sleep 100 9<>"$mnt/a" &
	holder=$!
	wait_for test -e "/proc/$holder/fd/9"
	UMBRA_STATS=1 "$run" python3 -c 'import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
m = mmap.mmap(fd, 0)
m[5] = 1
for i in range(30):
    os.pwrite(fd, b"x", 4096)
' "$mnt/a" 2>"$work/stats"
	kill $holder
	wait $holder
	[ "$(by_kernel 'others have them open through the kernel')" -ge 20 ] || { cat "$work/stats"; return 1; }
	sound
}

# What is open when the daemon is told that a file is not used any more: nothing that would hold up others who store.
case_closed_first()
{
	mounted && head -c 300000 /dev/urandom >"$mnt/a" || return 1
	LD_PRELOAD=$programs/libdetach_preload.so UMBRA_DETACH_DIR=$mnt UMBRA_DETACH_LOG=$work/detached UMBRA_DIRECT=all "$run" python3 -c 'import mmap, os, sys
def opened(): return os.open(sys.argv[1], os.O_RDWR)
def mapped(fd): return mmap.mmap(fd, 0)
def ended(*wanted):
    with open(sys.argv[2]) as log: was = [int(line) for line in log]
    open(sys.argv[2], "w").close()
    assert was == list(wanted), (was, wanted)
open(sys.argv[2], "w").close()
fd = opened()
os.pread(fd, 10, 5)
os.close(fd)
ended(0)
fd = opened()
os.pwrite(fd, b"xy", 5)
os.dup2(0, fd)
ended(0)
os.close(fd)
fd = opened()
m = mapped(fd)
ended()
m[9] = 1
os.close(fd)
m.close()
ended(1, 0)  # that of mmap.mmap() was open still
fd = opened()
os.pread(fd, 10, 5)
os.closerange(3, 60000)
ended(0)
' "$mnt/a" "$work/detached" 2>"$work/stats" || { tail -3 "$work/stats"; return 1; }
	sound
}

# The library's own descriptor of the next daemon's mount is not the program's: it has its numbers for itself, and closes all that it has.
case_next_daemon()
{
	local pid client said line rc
	fresh && mkfifo "$work/go" "$work/said" || return 1
	"$umbrafs" -f -o direct=rw "$pool" "$mnt" >/dev/null 2>&1 &
	pid=$!
	wait_for mountpoint -q "$mnt" && head -c 300000 /dev/urandom >"$mnt/a" || return 1
	UMBRA_DIRECT=all timeout 200 "$run" python3 -c 'import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
m = mmap.mmap(-1, 10)
m.close()
m = mmap.mmap(fd, 0)
m[9] = 1
lowest = os.dup(0)
os.close(lowest)
sys.stdout.write("mapped\n"); sys.stdout.flush()
sys.stdin.readline()
m[10] = 2
assert os.dup(0) == lowest, "a number is taken"
os.closerange(3, 70000)
for i in range(3, 66000):
    try: os.close(i)
    except OSError: pass
assert os.dup(0) == 3
m[4096] = 3
assert bytes(m[9:11]) == b"\x01\x02"
sys.stdout.write("done\n"); sys.stdout.flush()
sys.stdin.readline()
m[8192] = 4
assert os.dup(0) == 4
' "$mnt/a" <"$work/go" >"$work/said" 2>"$work/stats" &
	client=$!
	exec 5>"$work/go" 6<"$work/said"
	for said in mapped "done"; do
		read -r -t 100 line <&6
		is said "$line" $said || { tail -2 "$work/stats"; return 1; }
		kill -9 $pid
		wait $pid 2>/dev/null
		umount -l "$mnt"
		"$umbrafs" -f -o direct=rw "$pool" "$mnt" >/dev/null 2>&1 &
		pid=$!
		wait_for mountpoint -q "$mnt" || return 1
		echo >&5
	done
	wait $client
	rc=$?
	exec 5>&- 6<&-
	[ $rc = 0 ] || { tail -2 "$work/stats"; return 1; }
	is stored "$(od -An -tx1 -j8192 -N1 "$mnt/a")" ' 04' || return 1
	umount "$mnt" && wait $pid && works "$bin/fsck.umbrafs" -n "$pool"
}

# What a socket or a pipe has is read, and nothing is waited for behind it.
case_streams()
{
	mounted && truncate -s 8M "$mnt/a" || return 1
	UMBRA_STATS=1 timeout 60 "$run" python3 -c 'import mmap, os, socket, sys
SNDBUFFORCE, MIB = 32, 1 << 20
fd = os.open(sys.argv[1], os.O_RDWR)
m = mmap.mmap(fd, 0)
m[0] = 1
for size in 4 * MIB, 3 * MIB, 4 * MIB + 5:
    a, b = socket.socketpair()
    a.setsockopt(socket.SOL_SOCKET, SNDBUFFORCE, 32 * MIB)
    assert a.send(bytes([size % 251]) * size) == size
    done = 0
    while done < size:
        done += os.readv(b.fileno(), [memoryview(m)[done:]])
    assert done == size and bytes(m[:size]) == bytes([size % 251]) * size
# A message that is shorter than the memory for it, of which the end lies past the end of the file.
os.ftruncate(fd, 4 * MIB)
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
a.send(b"short")
assert b.recv_into(memoryview(m)[4 * MIB - 4096:]) == 5
assert os.pread(fd, 5, 4 * MIB - 4096) == b"short"
' "$mnt/a" 2>"$work/stats" || { tail -3 "$work/stats"; return 1; }
	has_mapped 1 && sound
}

# A library on the mount.
case_dlopen()
{
	local library
	library=$(ldconfig -p | sed -n 's/.*libz\.so\.1 .*=> //p' | head -1)
	[ -n "$library" ] || return 77
	mounted && cp -L "$library" "$mnt/lib.so" && head -c 200000 /dev/urandom >"$mnt/a" || return 1
	UMBRA_DIRECT=all UMBRA_STATS=1 "$run" python3 -c 'import ctypes, mmap, sys
with open(sys.argv[2], "r+b") as f: m = mmap.mmap(f.fileno(), 0)
with open(sys.argv[1], "rb") as f: l = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
before = bytes(l)
lib = ctypes.CDLL(sys.argv[1])
assert lib.crc32(0, b"123456789", 9) & 0xffffffff == 0xcbf43926
m[0] = 1
assert l[:] == before' "$mnt/lib.so" "$mnt/a" 2>"$work/stats" || { cat "$work/stats"; return 1; }
	is mappings "$(mappings)" 2
}

case_python()
{
	mounted || return 1
	UMBRA_DIRECT=all UMBRA_STATS=1 timeout 200 "$run" python3 -c 'import mmap, os, random, sys
random.seed(5)
name = sys.argv[1] + "/a"
model = bytearray(random.randbytes(1 << 20))
open(name, "wb").write(model)
f = open(name, "r+b", buffering=0)
m = mmap.mmap(f.fileno(), 0)
for i in range(3000):
    at, n = random.randrange(len(model)), random.randrange(1, 9000)
    n = min(n, len(model) - at)
    data = random.randbytes(n)
    how = random.randrange(8)
    if how < 3:
        m[at:at + n] = data
        model[at:at + n] = data
    elif how == 3:
        assert os.pwrite(f.fileno(), data, at) == n
        model[at:at + n] = data
    elif how == 4:
        to = random.randrange(len(model) - n)
        m.move(to, at, n)
        model[to:to + n] = model[at:at + n]
    elif how == 5 and i % 40 == 0:
        size = random.choice([300000, 700000, 1 << 20, 1500001])
        m.resize(size)
        model[size:] = bytes(max(0, size - len(model)))
    elif how == 6:
        m.flush()
        assert os.pread(f.fileno(), n, at) == model[at:at + n]
    else:
        assert m[at:at + n] == model[at:at + n]
        assert m.find(bytes(model[at:at + 12])) <= at
assert m[:] == model
m.close()
assert open(name, "rb").read() == model
' "$mnt" 2>"$work/stats" || { tail -5 "$work/stats"; return 1; }
	has_mapped 1 && sound
}

# Three processes, two of which map the database, while all of them hold and drop record locks.
case_sqlite()
{
	local k pids=()
	command -v sqlite3 >/dev/null || return 77
	mounted || return 1
	sqlite3 "$mnt/db" 'create table t(a integer primary key, b blob); insert into t(b) select randomblob(900) from generate_series(1,3000)' || return 1
	for k in 1 2 3; do
		for i in $(seq 40); do
			echo "pragma busy_timeout=60000;"
			[ $k = 3 ] || echo "pragma mmap_size=200000000;"
			echo "create table if not exists t$k(a integer primary key, b blob);"
			echo "begin immediate; insert into t$k(b) select randomblob(900) from generate_series(1,40); commit;"
			echo "select sum(length(b)) from t; select count(*) from t where b > x'80';"
			[ $((i % 7)) = 0 ] && echo "delete from t$k where a % 3 = 0; update t$k set b = zeroblob(2000) where a % 5 = 0;"
			[ $((i % 20)) = 0 ] && [ $k = 1 ] && echo "vacuum;"
		done >"$work/sql$k"
		UMBRA_STATS=1 UMBRA_DIRECT=all timeout 400 "$run" sqlite3 "$mnt/db" <"$work/sql$k" >"$work/out$k" 2>"$work/stats$k" &
		pids+=($!)
	done
	for k in 1 2 3; do
		wait "${pids[k - 1]}" || { cat "$work/stats$k"; return 1; }
	done
	cat "$work"/stats[12] >"$work/stats"
	has_mapped 2 || return 1
	is 'sums' "$(cat "$work"/out[123] | grep -c '^2700000$')" 120 || return 1
	is check "$(sqlite3 "$mnt/db" 'pragma integrity_check')" ok || return 1
	is 'check by mappings' "$(UMBRA_DIRECT=all "$run" sqlite3 "$mnt/db" 'pragma mmap_size=200000000; pragma integrity_check' | tail -1)" ok || return 1
	is 'rows' "$(UMBRA_DIRECT=all "$run" sqlite3 "$mnt/db" 'pragma mmap_size=200000000; select count(*), sum(length(b)) from t1' | tail -1)" \
		"$(cp "$mnt/db" "$shm/copy" && sqlite3 "$shm/copy" 'select count(*), sum(length(b)) from t1')" || return 1
	# With a log, whose index is shared memory in a mapped file.
	sqlite3 "$mnt/db" 'pragma journal_mode=wal' >/dev/null || return 1
	for k in 1 2; do
		UMBRA_STATS=1 UMBRA_DIRECT=all timeout 400 "$run" sqlite3 "$mnt/db" <"$work/sql$k" >/dev/null 2>"$work/stats$k" &
		pids[k]=$!
	done
	for k in 1 2; do
		wait "${pids[k]}" || { cat "$work/stats$k"; return 1; }
	done
	is 'check of the log' "$(sqlite3 "$mnt/db" 'pragma integrity_check')" ok || return 1
	sound
}

# Past the end of a file its last page is zero: what was cut off is not seen, nor what somebody stored there before. Programs that map text rely on it.
case_past_end()
{
	mounted || return 1
	UMBRA_DIRECT=all UMBRA_STATS=1 timeout 100 "$run" /usr/bin/python3 -c 'import ctypes, mmap, os, sys
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
def place(fd, write=False):
    return libc.mmap(None, 12288, 3 if write else 1, 1, fd, 0)
def tail(at, size):
    return ctypes.string_at(at + size, 12288 - size).strip(bytes(1))
a, b = (sys.argv[1] + n for n in ("/a", "/b"))
open(a, "wb").write(b"x" * 12288)
fd = os.open(a, os.O_RDWR)
at = place(fd)
assert tail(at, 9000) == b"x" * 3288
os.system("cp %s %s" % (a, b))
os.ftruncate(fd, 9000)
assert tail(at, 9000) == b"", "mapped before"
os.truncate(b, 9001)
assert tail(place(os.open(b, os.O_RDONLY)), 9001) == b"", "cut before it was mapped"
if os.fork() == 0:
    mine = place(os.open(b, os.O_RDWR), True)
    ctypes.memset(mine + 10000, 65, 1)
    os._exit(0)
os.wait()
if os.fork() == 0:
    os._exit(tail(place(os.open(b, os.O_RDONLY)), 9001) != b"")
assert os.wait()[1] == 0, "stored there by another process"
assert open(a, "rb").read() == b"x" * 9000
' "$mnt" 2>"$work/stats" || { tail -5 "$work/stats"; return 1; }
	has_mapped 1 && sound
}

case_lmdb()
{
	local k pids=()
	/usr/bin/python3 -c 'import lmdb' 2>/dev/null || return 77
	mounted 512M && mkdir "$mnt/db" || return 1
	for k in 1 2 3; do
		UMBRA_STATS=1 UMBRA_DIRECT=all timeout 200 "$run" /usr/bin/python3 -c 'import hashlib, lmdb, sys
def value(k, i): return hashlib.sha512(b"%d %d" % (k, i)).digest() * 6
k = int(sys.argv[2])
env = lmdb.open(sys.argv[1], map_size=96 << 20, writemap=k < 3, max_readers=16)
for r in range(25):
    with env.begin(write=True) as t:
        for i in range(r * 100, r * 100 + 100):
            t.put(b"%d-%d" % (k, i), value(k, i))
        for i in range(r * 100, r * 100 + 100, 7):
            t.delete(b"%d-%d" % (k, i))
    with env.begin() as t:
        for i in range(0, r * 100, 13):
            assert t.get(b"%d-%d" % (k, i)) == (None if i % 100 % 7 == 0 else value(k, i)), i
' "$mnt/db" $k 2>"$work/stats$k" &
		pids+=($!)
	done
	for k in 1 2 3; do
		wait "${pids[k - 1]}" || { tail -4 "$work/stats$k"; return 1; }
	done
	cat "$work"/stats[123] >"$work/stats"
	# Each has two. Who opens a file while another one is about to attach it does not wait for that for long.
	has_mapped 2 || return 1
	cp -r "$mnt/db" "$shm/lmdb" || return 1
	is entries "$(/usr/bin/python3 -c 'import hashlib, lmdb, sys
def value(k, i): return hashlib.sha512(b"%d %d" % (k, i)).digest() * 6
n = 0
for key, data in lmdb.open(sys.argv[1], readonly=True, lock=False, map_size=96 << 20).begin().cursor():
    k, i = key.split(b"-")
    n += data == value(int(k), int(i))
print(n)' "$shm/lmdb")" $((3 * 25 * 85)) || return 1
	sound
}

case_fio()
{
	command -v fio >/dev/null || return 77
	mounted 512M || return 1
	UMBRA_STATS=1 UMBRA_DIRECT=all timeout 300 "$run" fio --name=v --thread --directory="$mnt" --ioengine=mmap --size=24M \
		--rw=randrw --bsrange=512-64k --numjobs=2 --verify=crc32c --verify_fatal=1 --do_verify=1 --overwrite=1 \
		--fallocate=none --invalidate=0 --verify_state_save=0 >"$work/out" 2>"$work/stats" || { tail -5 "$work/out"; cat "$work/stats"; return 1; }
	has_mapped 2 && sound
}

case_git()
{
	command -v git >/dev/null || return 77
	mounted 512M && mkdir "$shm/from" && cp -r "$here" "$shm/from/t" && cp -r "$here/../../docs" "$shm/from/" || return 1
	export UMBRA_DIRECT=all HOME=$work UMBRA_STATS=1
	(cd "$shm/from" && git init -q . && git add . && git -c user.name=a -c user.email=a@b commit -qm all && git gc -q) || return 1
	(cd "$mnt" && "$run" git clone -q --no-hardlinks "$shm/from" to && cd to && "$run" git fsck --strict --no-progress &&
		"$run" git repack -adq && "$run" git gc -q --prune=now && "$run" git log -p >/dev/null && "$run" git status --short) \
		>"$work/log" 2>"$work/stats" || { tail -5 "$work/log" "$work/stats"; return 1; }
	has_mapped 2 || return 1
	git -C "$mnt/to" fsck --strict --no-progress >/dev/null 2>&1 && diff -r --exclude=.git "$shm/from" "$mnt/to" || return 1
	sound
}

# machine ACCELERATOR: a virtual machine whose memory is a file, which is cloned meanwhile
machine()
{
	command -v qemu-system-x86_64 >/dev/null || return 77
	mounted 512M || return 1
	UMBRA_STATS=1 timeout 300 python3 "$here/guest_memory.py" "$mnt" 6 "$run" qemu-system-x86_64 -accel "$1" \
		-nodefaults -display none -serial stdio -no-reboot -machine pc,memory-backend=m -m 32M \
		-object memory-backend-file,id=m,share=on,mem-path="$mnt/ram",size=32M \
		-drive format=raw,file="$mnt/disk" -device isa-debug-exit,iobase=0xf4,iosize=4 2>"$work/stats" ||
		{ tail -4 "$work/stats"; return 1; }
	has_mapped 1 || return 1
}

case_qemu()
{
	machine tcg && sound
}

# What the kernel does in the memory of a machine is no touch of the program's: such mappings are the kernel's.
case_qemu_kvm()
{
	[ -w /dev/kvm ] || return 77
	machine kvm || return
	[ "$(by_kernel 'only the kernel')" -ge 1 ] || { cat "$work/stats"; return 1; }
	sound
}

# What of a process is given to KVM, and what comes there later.
case_given()
{
	[ -w /dev/kvm ] || return 77
	mounted && head -c 3000000 /dev/urandom | tee "$mnt/a" "$mnt/b" "$mnt/c" "$mnt/d" >"$mnt/e" || return 1
	timeout 100 "$run" python3 -c 'import ctypes, errno, fcntl, mmap, os, struct, sys
SIZE, FIXED, SYS_IOCTL = 1 << 20, 16, 16
CREATE_VM, SET_REGION, SET_REGION2 = 0xae01, 0x4020ae46, 0x40a0ae49
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = libc.mremap.restype = ctypes.c_void_p
libc.ioctl.argtypes = ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p
def by_kernel(at):
    for line in open("/proc/self/maps"):
        lo, hi = (int(x, 16) for x in line.split()[0].split("-"))
        if lo <= at < hi:
            return sys.argv[1] in line
    raise AssertionError("nothing is there")
def mapped(name, at=None):
    fd = os.open(sys.argv[1] + name, os.O_RDWR)
    at = libc.mmap(ctypes.c_void_p(at), SIZE, 3, mmap.MAP_SHARED | (FIXED if at else 0), fd, ctypes.c_long(0))
    os.close(fd)
    return at
def bytes_at(at): return ctypes.string_at(at, SIZE) == before
def region(slot, size, at): return struct.pack("<IIQQQ", slot, 0, slot << 30, size, at).ljust(160, b"\0")
def give(request, arg): return libc.ioctl(vm, request, arg)
before = open(sys.argv[1] + "/a", "rb").read(SIZE)
kvm = os.open("/dev/kvm", os.O_RDWR)
vm = fcntl.ioctl(kvm, CREATE_VM, 0)
a, b, c = mapped("/a"), mapped("/b"), mapped("/c")
over = mapped("/d", mapped("/d"))
assert bytes_at(a) and bytes_at(b) and bytes_at(c) and bytes_at(over)
assert not any(map(by_kernel, (a, b, c, over)))
assert give(SET_REGION, 8) == -1 and ctypes.get_errno() == errno.EFAULT
assert give(SET_REGION, region(7, 0, b)) == -1
assert not by_kernel(b), "nothing was given"
assert give(SET_REGION, region(1, SIZE, a)) == 0
assert by_kernel(a) and bytes_at(a) and not by_kernel(b)
give(SET_REGION2, region(2, SIZE, b))  # which the kernel may not know
assert by_kernel(b) and bytes_at(b) and not by_kernel(c)
assert libc.mremap(ctypes.c_void_p(c), SIZE, SIZE, 3, ctypes.c_void_p(a)) == a
assert by_kernel(a) and bytes_at(a)
assert not by_kernel(over) and mapped("/d", b) == b
assert by_kernel(b) and by_kernel(over) and bytes_at(b)
e = mapped("/e")
assert not by_kernel(e) and bytes_at(e), "elsewhere it is direct"
assert libc.syscall(SYS_IOCTL, ctypes.c_long(vm), ctypes.c_long(SET_REGION), region(3, SIZE, e)) == 0
assert by_kernel(e) and bytes_at(e)
' "$mnt" 2>"$work/stats" || { tail -3 "$work/stats"; return 1; }
	sound
}

# shellcheck disable=SC2046
[ $# -gt 0 ] || set -- $(case_names)
for name in "$@"; do
	case_run "$name"
done
exit "$status"
