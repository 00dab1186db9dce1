#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# fsck.umbrafs as it is called: options, exit status, what it says, what it leaves alone.
#
#   fsck.sh [CASE...]     prints 'ok fsck/CASE', 'not ok fsck/CASE: why', 'skip fsck/CASE: why'
#
# Environment: UMBRA_BUILD (the build folder), TMPDIR. Needs root, or the right to mount.
set -uo pipefail

bin=${UMBRA_BUILD:?}/tools
mkfs=$bin/mkfs.umbrafs umbrafs=$bin/umbrafs fsck=$bin/fsck.umbrafs
work=$(mktemp -d "${TMPDIR:-/tmp}/fsck.XXXXXX") || exit 1
shm=$(mktemp -d /dev/shm/umbrafs-fsck.XXXXXX 2>/dev/null) || shm=$work
mnt=$work/mnt pool=$shm/pool
chunk=$((2 << 20)) unit=4096
daemon='' status=0

cleanup()
{
	[ -z "$daemon" ] || kill -KILL "$daemon" 2>/dev/null
	mountpoint -q "$mnt" 2>/dev/null && umount -l "$mnt"
	rm -rf --one-file-system "$work"
	rm -rf --one-file-system "$shm"
}
trap cleanup EXIT

# ---- what the cases are made of: each prints why it fails, and returns 1 ----

# ends STATUS COMMAND...: exit status; what it prints goes to out and err
ends()
{
	local want=$1 rc
	shift
	"$@" >"$work/out" 2>"$work/err" </dev/null
	rc=$?
	[ $rc = "$want" ] && return 0
	echo "'${*##*/}' ended with $rc, not $want: $(head -c 500 "$work/out" "$work/err" | tr '\n' '|')"
	return 1
}

# says STATUS PATTERN COMMAND...: exit status, and one line on standard error that matches
says()
{
	local pattern=$2
	ends "$1" "${@:3}" || return 1
	[ "$(wc -l <"$work/err")" = 1 ] && grep -qE -- "$pattern" "$work/err" && return 0
	echo "'${*:3}' said '$(head -c 300 "$work/err" | tr '\n' '|')', not one line like '$pattern'"
	return 1
}

# printed PATTERN: in the last output
printed()
{
	grep -qE -- "$1" "$work/out" && return 0
	echo "no line like '$1' in '$(head -c 500 "$work/out" | tr '\n' '|')'"
	return 1
}

is()
{
	[ "$2" = "$3" ] && return 0
	echo "$1 is '$2', not '$3'"
	return 1
}

wait_for()
{
	local end=$((SECONDS + 60))
	until "$@" 2>/dev/null; do
		[ "$SECONDS" -lt "$end" ] || { echo "waited in vain: $*"; return 1; }
		sleep 0.02
	done
}

mount_up()
{
	"$umbrafs" -f "$pool" "$mnt" </dev/null >"$work/daemon.log" 2>&1 &
	daemon=$!
	wait_for mountpoint -q "$mnt"
}

# As soon as nobody is there any more: what has just ended, or is being looked at in /proc, may hold it for a moment.
mount_down()
{
	wait_for umount "$mnt" && wait "$daemon"
	daemon=''
}

mount_kill()
{
	kill -KILL "$daemon"
	wait "$daemon" 2>/dev/null
	daemon=''
	umount -l "$mnt"
}

# A pool of one group with something in it; the number of /dir/file is in ino.
fresh()
{
	rm -f "$pool"
	"$mkfs" -q --size 64M "$pool" && mount_up && mkdir "$mnt/dir" &&
		head -c 300000 /dev/urandom >"$mnt/dir/file" && cp "$mnt/dir/file" "$mnt/copy" &&
		ln -s file "$mnt/dir/link" && ino=$(stat -c %i "$mnt/dir/file") &&
		sums=$(sums_of) && mount_down
}

sums_of()
{
	(cd "$mnt" && find . -path ./lost+found -prune -o -type f -print0 | sort -z | xargs -0 sha256sum)
}

same_files()
{
	mount_up && is "what the files hold" "$(sums_of)" "$sums" && mount_down
}

# Fills count bytes at an offset within slot 0, in its primary (second chunk) or mirror (last but one): damage COPY OFF COUNT
damage()
{
	local at=$((chunk + $2))
	[ "$1" = primary ] || at=$(($(stat -c %s "$pool") - 2 * chunk + $2))
	head -c "$3" /dev/zero | tr '\0' '\245' | dd of="$pool" bs=1 seek=$at conv=notrunc status=none
}

sum()
{
	sha256sum <"$pool"
}

header=$((8 * unit))

# ---- cases ----

case_usage()
{
	says 16 'missing POOL' "$fsck" &&
		says 16 "unknown option '--frobnicate'" "$fsck" --frobnicate "$pool" &&
		says 16 'only one of' "$fsck" -n -y "$pool" &&
		says 16 'too many' "$fsck" -n "$pool" "$pool" &&
		says 16 'json needs' "$fsck" --json "$pool" &&
		says 8 'no terminal' "$fsck" "$pool" &&
		ends 0 "$fsck" --help && printed '^usage: ' &&
		ends 0 "$fsck" --version && printed '^fsck.umbrafs [0-9]'
}

case_what_is_no_pool()
{
	says 8 'no-such-file' "$fsck" -n "$shm/no-such-file" &&
		says 8 'directory' "$fsck" -y "$shm" &&
		says 8 'null' "$fsck" -y /dev/null &&
		head -c $((32 << 20)) /dev/zero >"$pool" && before=$(sum) &&
		says 8 'no umbrafs superblock' "$fsck" -n "$pool" &&
		ends 8 "$fsck" -y "$pool" && is "a file of zeros" "$(sum)" "$before" &&
		mkfs.ext4 -q -F "$pool" && before=$(sum) &&
		says 8 'ext4' "$fsck" -n "$pool" && says 8 'ext4' "$fsck" -y "$pool" &&
		is "the ext4" "$(sum)" "$before"
}

case_unknown_feature()
{
	fresh && python3 - "$pool" <<-'END' && before=$(sum) &&
		import struct, sys
		table = []
		for n in range(256):
		    for _ in range(8):
		        n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
		    table.append(n)
		def crc32c(data):
		    crc = 0xFFFFFFFF
		    for b in data:
		        crc = crc >> 8 ^ table[(crc ^ b) & 0xFF]
		    return crc
		with open(sys.argv[1], 'r+b') as f:
		    size = f.seek(0, 2)
		    for at in (0, size - 4096):
		        f.seek(at)
		        unit = bytearray(f.read(4096))
		        old = struct.unpack_from('<I', unit, 4)[0]
		        struct.pack_into('<I', unit, 4, 0)
		        assert old in (crc32c(unit), crc32c(unit) ^ 0xFFFFFFFF)
		        turn = old ^ crc32c(unit)
		        unit[79] |= 0x40
		        struct.pack_into('<I', unit, 4, crc32c(unit) ^ turn)
		        f.seek(at)
		        f.write(unit)
	END
		says 8 'unknown incompatible features 0x4000000000000000' "$fsck" -n "$pool" &&
		ends 8 "$fsck" -y -f "$pool" && is "the pool" "$(sum)" "$before"
}

case_clean()
{
	fresh && before=$(sum) &&
		ends 0 "$fsck" -n "$pool" && printed 'unmounted cleanly' &&
		ends 0 "$fsck" -p "$pool" && printed 'unmounted cleanly' &&
		ends 0 "$fsck" -n -f "$pool" && printed 'nothing wrong' && is "the pool" "$(sum)" "$before" &&
		ends 0 "$fsck" -y -f "$pool" && printed 'nothing wrong' &&
		ends 0 "$fsck" -n "$pool" && printed 'unmounted cleanly' && same_files
}

case_in_use()
{
	fresh && mount_up && for mode in -n -p -y; do
		says 8 'in use by another umbrafs process' "$fsck" $mode -f "$pool" || return 1
	done && mount_down
}

case_killed()
{
	fresh && mount_up && echo more >"$mnt/dir/more" && sums=$(sums_of) && mount_kill &&
		ends 0 "$fsck" -n "$pool" && printed 'inodes' &&
		ends 0 "$fsck" -a "$pool" && printed 'nothing wrong' && same_files
}

case_one_copy()
{
	local copy
	for copy in primary mirror; do
		fresh && damage $copy $header 64 && damage $copy $((ino * 512)) 64 && before=$(sum) &&
			ends 4 "$fsck" -n -f "$pool" && printed 'unit-copy' && is "the pool" "$(sum)" "$before" &&
			ends 1 "$fsck" -p -f "$pool" && printed 'mended' &&
			ends 0 "$fsck" -n -f "$pool" && printed 'nothing wrong' && same_files || return 1
	done
}

case_both_copies_of_a_header()
{
	fresh && damage primary $header 64 && damage mirror $header 64 &&
		ends 4 "$fsck" -n -f "$pool" && printed 'unit-lost' &&
		ends 1 "$fsck" -y -f "$pool" && ends 0 "$fsck" -n -f "$pool" && same_files
}

case_both_copies_of_an_inode()
{
	fresh && damage primary $((ino * 512 + 100)) 64 && damage mirror $((ino * 512 + 100)) 64 &&
		ends 4 "$fsck" -p -f "$pool" && printed 'left as it is' && printed 'without -p' &&
		ends 1 "$fsck" -y -f "$pool" && printed 'LOST: .*/dir/file' &&
		ends 0 "$fsck" -n -f "$pool" && printed 'nothing wrong' && mount_up &&
		is "the other file" "$(sha256sum <"$mnt/copy")" "$(grep ./copy <<<"$sums" | cut -c 1-64)  -" && mount_down
}

# json STATUS VERDICT OPTION...
json()
{
	ends "$1" "$fsck" --json "${@:3}" "$pool" && python3 -m json.tool <"$work/out" >/dev/null &&
		is "the verdict" "$(python3 -c 'import json,sys; j = json.load(sys.stdin); print(j["verdict"], j["status"])' <"$work/out")" "$2 $1"
}

case_json()
{
	fresh && json 0 clean -n && json 0 clean -n -f && damage primary $header 64 && json 4 uncorrected -nf &&
		is "the count" "$(python3 -c 'import json,sys; f = json.load(sys.stdin)["findings"]["unit-copy"]; print(f["count"], len(f["texts"]))' <"$work/out")" "1 1" &&
		json 1 corrected -yf && json 0 clean -pf && rm "$pool" && json 8 error -n
}

# A signal that waits for the program when it starts.
case_cancelled()
{
	fresh && damage primary $header 64 && before=$(sum) &&
		ends 32 python3 -c 'import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
os.kill(os.getpid(), signal.SIGINT)
os.execv(sys.argv[1], sys.argv[1:])' "$fsck" -nf "$pool" && is "the pool" "$(sum)" "$before"
}

# As a person would: the answers come from a terminal, one for each question. typed STATUS ANSWERS OPTION...
typed()
{
	cat >"$work/typed.py" <<-'END'
		import os, pty, select, sys
		answers, argv = sys.argv[1].split(), sys.argv[2:]
		tty, its_end = pty.openpty()
		child = os.fork()
		if child == 0:
		    os.setsid()
		    for fd in 0, 1, 2:
		        os.dup2(its_end, fd)
		    os.execv(argv[0], argv)
		# Its end stays open here, so that nothing is dropped when the program ends: then what is left is read.
		said, status = b'', None
		while True:
		    if not select.select([tty], [], [], 0.05)[0]:
		        if status is not None:
		            break
		        pid, ended = os.waitpid(child, os.WNOHANG)
		        if pid:
		            status = os.waitstatus_to_exitcode(ended)
		        continue
		    said += os.read(tty, 4096)
		    if said.endswith(b'a: yes to all) '):
		        os.write(tty, (answers.pop(0) if answers else 'n').encode() + b'\n')
		sys.stdout.write(said.decode(errors='replace').replace('\r', ''))
		sys.exit(99 if answers else status)
	END
	ends "$1" timeout 60 python3 "$work/typed.py" "$2" "$fsck" "${@:3}" "$pool"
}

case_asks()
{
	fresh && damage primary $header 64 && before=$(sum) &&
		typed 4 'n' -f && printed 'y: yes' && is "the pool" "$(sum)" "$before" &&
		typed 4 'what n' -f && is "the pool" "$(sum)" "$before" &&
		typed 1 'y' -f && printed 'everything was mended' && ends 0 "$fsck" -n -f "$pool" && same_files
}

case_asks_each()
{
	fresh && damage mirror $header 64 && damage primary $((ino * 512 + 100)) 64 &&
		damage mirror $((ino * 512 + 100)) 64 &&
		typed 4 'y n' -f && printed 'left as it is' && printed 'mounted read-only only' &&
		ends 4 "$fsck" -n "$pool" && printed 'did not come to its end' &&
		ends 4 "$fsck" -p "$pool" && { ! "$umbrafs" "$pool" "$mnt" 2>"$work/err"; } &&
		grep -q fsck.umbrafs "$work/err" && typed 1 'Yes a' && printed 'LOST: .*/dir/file' &&
		ends 0 "$fsck" -n -f "$pool" && mount_up && mount_down
}

case_one_copy_of_everything()
{
	rm -f "$pool"
	"$mkfs" -q --size 64M --metadata=single "$pool" && mount_up && mkdir "$mnt/d" && seq 2000 >"$mnt/d/file" &&
		(cd "$mnt/d" && seq -f 'n%g' 2000 | xargs touch) && sums=$(sums_of) && mount_down &&
		damage primary $header 64 && damage mirror $header 64 &&
		ends 1 "$fsck" -y -f "$pool" && ends 0 "$fsck" -n -f "$pool" && same_files
}

case_by_fsck()
{
	command -v fsck >/dev/null || return 77
	fresh && damage mirror $header 64 && export PATH="$bin:$PATH" &&
		ends 4 fsck -T -t umbrafs "$pool" -n -f && ends 1 fsck -T -t umbrafs -a -f "$pool" &&
		ends 0 fsck -T -t umbrafs -C -n -f "$pool"
}

case_by_fstab()
{
	command -v fsck >/dev/null || return 77
	fresh && mount_up && mount_kill && echo "$pool $mnt umbrafs defaults 0 2" >"$work/fstab" &&
		export PATH="$bin:$PATH" LIBMOUNT_FSTAB=$work/fstab && ends 0 fsck -A -T -a && printed "$pool"
}

# ---- run ----

mkdir -p "$mnt"
cases=$(declare -F | sed -n 's/^declare -f case_//p')
[ $# -gt 0 ] || set -- $cases
for name in "$@"; do
	why=$("case_$name" 2>&1)
	case $? in
	0) echo "ok fsck/$name" ;;
	77) echo "skip fsck/$name: cannot be had here" ;;
	*)
		echo "not ok fsck/$name: $(printf '%s' "${why:-failed}" | tr '\n' '|')"
		status=1
		;;
	esac
	mountpoint -q "$mnt" && umount -l "$mnt"
done
exit $status
