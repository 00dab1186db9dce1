#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# shellcheck disable=SC1091,SC2034,SC2154 # what tool_lib.sh sets, and what is for it
# What an operator asks for and hears about bad memory: files that want zeroes, a program run for each event, figures and metrics.
#
#   policy.sh [CASE...]     prints 'ok policy/CASE', 'not ok policy/CASE: why', 'skip policy/CASE: why'
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/tool_lib.sh"
. "$(dirname "${BASH_SOURCE[0]}")/poison_lib.sh"

blocks()
{
	python3 -c 'import sys; sys.stdout.buffer.write(b"".join(b"%015d\n" % i for i in range(256 * int(sys.argv[1]))))' "$2" >"$1"
}

# policy_is FILE VALUE
policy_is()
{
	is "the policy of $1" "$(python3 -c '
import os, sys
try:
    print(os.getxattr(sys.argv[1], "user.umbra.on_poison").decode())
except OSError:
    print("none")' "$1")" "$2"
}

policy_set()
{
	python3 -c 'import os, sys; os.setxattr(sys.argv[1], "user.umbra.on_poison", sys.argv[2].encode())' "$1" "$2" 2>"$work/err"
}

lines_are()
{
	[ "$(grep -c . "$1" 2>/dev/null)" = "$2" ]
}

# The attribute, through the kernel.
case_attribute()
{
	fresh && daemon_up || return 1
	mkdir "$mnt/dir" && policy_set "$mnt/dir" zero && touch "$mnt/dir/file" && mkdir "$mnt/dir/sub" && : >"$mnt/dir/sub/file" || return 1
	mkfifo "$mnt/dir/fifo" && ln -s file "$mnt/dir/link" || return 1
	policy_is "$mnt/dir/file" zero && policy_is "$mnt/dir/sub/file" zero && policy_is "$mnt/dir/fifo" none || return 1
	policy_set "$mnt/dir/file" other && { echo "another value was taken"; return 1; }
	grep -q 'Invalid argument' "$work/err" || { cat "$work/err"; return 1; }
	policy_set "$mnt/dir/file" eio && policy_is "$mnt/dir/file" eio || return 1
	is "the list" "$(python3 -c 'import os, sys; print(os.listxattr(sys.argv[1]))' "$mnt/dir/file")" "['user.umbra.on_poison']" || return 1
	# As other attributes: cp and umbractl clone leave it or take it along.
	cp "$mnt/dir/sub/file" "$mnt/copy" && policy_is "$mnt/copy" none || return 1
	works "$ctl" clone "$mnt/dir/sub/file" "$mnt/clone" && policy_is "$mnt/clone" zero || return 1
	daemon_down && works "$bin/fsck.umbrafs" -fn "$pool"
}

# Zeroes for those who want them, in the page cache too; the others have lost it.
case_zero()
{
	local off
	fresh && daemon_up || return 1
	blocks "$mnt/file" 16 && cp "$mnt/file" "$work/want" && cp "$mnt/file" "$mnt/twin" && policy_set "$mnt/file" zero || return 1
	cp "$work/want" "$work/zeroed" && dd if=/dev/zero of="$work/zeroed" bs=4096 seek=2 count=1 conv=notrunc status=none || return 1
	cat "$mnt/file" "$mnt/twin" >/dev/null
	works "$ctl" info "$mnt" && grep -q '^bad memory  0 blocks out of use, 0 bytes lost of 0 files$' "$work/out" || { cat "$work/out"; return 1; }
	off=$(place "$mnt/file" 8192)
	python3 - "$mnt/file" "$work/seen" <<-'END' &
		import mmap, os, sys, time
		map = mmap.mmap(os.open(sys.argv[1], os.O_RDONLY), 0, prot=mmap.PROT_READ, flags=mmap.MAP_SHARED)
		print(map[8192], file=open(sys.argv[2], "w"))
		end = time.monotonic() + 60
		while map[8192] != 0 and time.monotonic() < end:
		    time.sleep(0.02)
		if map[8192] == 0:
		    print("zero", file=open(sys.argv[2], "w"))
	END
	wait_for grep -q 48 "$work/seen" || return 1
	page bad "$off" || return
	dd if="$mnt/twin" of=/dev/null bs=4096 skip=2 count=1 iflag=direct status=none 2>/dev/null && { echo "nothing is lost"; return 1; }
	wait_for grep -q "/file (inode [0-9]*) has zeroes in place of 4096 bytes between 8192 and 12288" "$work/log" || return 1
	wait $! && is "what a mapping shows" "$(cat "$work/seen")" zero || return 1
	cmp "$mnt/file" "$work/zeroed" && cmp -n 8192 "$mnt/twin" "$work/want" || return 1
	cat "$mnt/twin" >/dev/null 2>&1 && { echo "the twin can be read"; return 1; }
	"$ctl" losses "$mnt" >"$work/out"
	is "the status of losses" $? 3 && is "the lines of losses" "$(grep -c ' /twin ' "$work/out")/$(wc -l <"$work/out")" 1/2 || return 1
	"$ctl" events "$mnt" >"$work/out" || return 1
	is "the events" "$(grep -c ' zeroed  */file (inode [0-9]*): 4096 bytes in the block at 8192$' "$work/out")" 1 || return 1
	is "lost ones" "$(grep -c ' lost  */twin ' "$work/out")" 1 || return 1
	"$ctl" info "$mnt" >"$work/out"
	is "the status of info" $? 3 && grep -q '^bad memory  1 block out of use, 4096 bytes lost of 1 file$' "$work/out" || { cat "$work/out"; return 1; }
	works "$ctl" stats --json "$mnt" || return 1
	is "figures" "$(json_of zeroed_blocks) $(json_of zeroed_bytes) $(json_of lost_blocks) $(json_of recorded_lost_files) $(json_of recorded_lost_bytes) $(json_of recorded_bad_blocks)" \
		"1 4096 1 1 4096 1" || return 1
	# The twin gets it back: the zeroes stay.
	works "$ctl" repair --from "$work/want" "$mnt/twin" && cmp "$mnt/twin" "$work/want" && cmp "$mnt/file" "$work/zeroed" || return 1
	works "$ctl" info "$mnt" || return 1
	grep -q '^bad memory  1 block out of use, 0 bytes lost of 0 files$' "$work/out" || { cat "$work/out"; return 1; }
	daemon_down && daemon_up && cmp "$mnt/twin" "$work/want" && cmp "$mnt/file" "$work/zeroed" && works "$ctl" info "$mnt" || return 1
	daemon_down && works "$bin/fsck.umbrafs" -fn "$pool"
}

# What the program is told is what umbractl tells; what it inherits is little.
case_on_event()
{
	local off name
	name="a \"name\" with \\ and $(printf '\377')"
	cat >"$work/told" <<-END
		#!/usr/bin/python3
		import os, signal, sys
		line = sys.stdin.read()
		fds = [fd for fd in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + fd)]
		ignored = [s for s in signal.valid_signals() if signal.getsignal(s) == signal.SIG_IGN]
		blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
		score = open("/proc/self/oom_score_adj").read().strip()
		print(sorted(fds), ignored, blocked, oct(os.umask(0)), os.getcwd(), score, os.getsid(0) == os.getpid(), file=open("$work/inherited", "a"))
		open("$work/lines", "a").write(line)
	END
	chmod 755 "$work/told"
	daemon_opts=(--on-event "$work/told")
	fresh && daemon_up || return 1
	blocks "$mnt/$name" 4 && blocks "$mnt/file" 4 || return 1
	off=$(place "$mnt/$name" 4096)
	page bad "$off" || return
	cat "$mnt/$name" >/dev/null 2>&1
	works "$ctl" poison add "$(place "$mnt/file" 0)" "$mnt" && works "$ctl" poison add 40M "$mnt" || return 1
	wait_for lines_are "$work/lines" 3 || return 1
	"$ctl" events --json "$mnt" >"$work/out" || return 1
	cmp "$work/out" "$work/lines" || { cat "$work/out" "$work/lines"; return 1; }
	python3 -c 'import json, sys; print([json.loads(line)["kind"] for line in open(sys.argv[1])])' "$work/lines" >"$work/kinds" || return 1
	is "the events" "$(cat "$work/kinds")" "['lost', 'moved', 'unused']" || return 1
	grep -q '"path":"/a \\"name\\" with \\\\\\\\ and \\\\xff"' "$work/lines" || { cat "$work/lines"; return 1; }
	# Python ignores SIGPIPE (13) and SIGXFSZ (25) by itself.
	is "what it inherits" "$(sort -u "$work/inherited" | sed 's/<Signals.\(SIG[A-Z]*\): [0-9]*>/\1/g')" \
		"['0', '1', '2'] [SIGPIPE, SIGXFSZ] set() 0o22 / 0 True" || return 1
	daemon_down
}

# It fails, it reads nothing, it cannot be started: the log says so, and events go on.
case_on_event_fails()
{
	printf '#!/bin/sh\necho x >>%s/ran\nexit 7\n' "$work" >"$work/fails"
	chmod 755 "$work/fails"
	daemon_opts=(-o "on_event=$work/fails")
	fresh && daemon_up || return 1
	works "$ctl" poison add 40M+8K "$mnt" || return 1
	wait_for lines_are "$work/ran" 2 && wait_for grep -q 'fails, run for event 1: ended with status 7' "$work/log" || return 1
	printf '#!/bin/sh\nkill -9 $$\n' >"$work/fails"
	rm "$work/fails"
	works "$ctl" poison add 41M "$mnt" && blocks "$mnt/file" 4 && daemon_down
}

# Whoever started the daemon may ignore SIGCHLD: it still learns how its children end.
case_on_event_sigchld()
{
	printf '#!/bin/sh\necho x >>%s/ran\n' "$work" >"$work/runs"
	chmod 755 "$work/runs"
	fresh || return 1
	python3 -c 'import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])' \
		"$umbrafs" -f --on-event "$work/runs" "$pool" "$mnt" >"$work/log" 2>&1 </dev/null &
	daemon=$!
	wait_for mountpoint -q "$mnt" || return 1
	works "$ctl" poison add 40M+8K "$mnt" && wait_for lines_are "$work/ran" 2 && daemon_down
}

# One that never ends holds up neither others nor the end of the mount.
case_on_event_hangs()
{
	local left
	printf '#!/bin/bash\necho $$ >>%s/pids\nexec sleep 1000\n' "$work" >"$work/hangs"
	chmod 755 "$work/hangs"
	daemon_opts=(-o "on_event=$work/hangs")
	fresh && daemon_up || return 1
	works "$ctl" poison add 40M+16K "$mnt" && wait_for lines_are "$work/pids" 1 || return 1
	blocks "$mnt/file" 4 && works "$ctl" poison add 41M "$mnt" && unmount "$mnt" || return 1
	wait_for grep -q 'still runs (process [0-9]*), and is left alone' "$work/log" && wait_for grep -q 'events after number 1 were not passed on' "$work/log" || return 1
	wait_for eval "! kill -0 $daemon" || return 1
	left=$(cat "$work/pids")
	kill "$left" || { echo "it was ended"; return 1; }
	daemon_up && daemon_down
}

# Thousands at once, and the program is slow: all of them, or those that are dropped are counted.
case_on_event_storm()
{
	printf '#!/bin/bash\nread -r line\necho "$line" >>%s/lines\nwhile [ ! -e %s/go ]; do sleep 0.05; done\n' "$work" "$work" >"$work/slow"
	chmod 755 "$work/slow"
	daemon_opts=(-o "on_event=$work/slow")
	fresh 512M && daemon_up || return 1
	works "$ctl" poison add 200M "$mnt" && wait_for lines_are "$work/lines" 1 || return 1
	works "$ctl" poison add 300M+72M "$mnt" || return 1
	: >"$work/go"
	wait_for grep -q 'slow: [0-9]* events were dropped, it is too slow for them' "$work/log" || return 1
	wait_for eval '[ "$(wc -l <"$work/lines")" -gt 50 ]' || return 1
	python3 - "$work/lines" "$(sed -n 's/.*slow: \([0-9]*\) events were dropped.*/\1/p' "$work/log" | head -n 1)" <<-'END' || return 1
		import json, sys
		numbers = [json.loads(line)["number"] for line in open(sys.argv[1]).read().split("\n")[:-1]]
		gaps = [b - a - 1 for a, b in zip(numbers, numbers[1:])]
		if numbers[0] != 1 or gaps[0] != int(sys.argv[2]) or any(gaps[1:20]):
		    sys.exit(f"{numbers[:3]}, {sys.argv[2]} dropped")
	END
	daemon_down
}

case_on_event_usage()
{
	local pattern='on_event=/.*cannot be run'
	fresh || return 1
	says 1 'must be an absolute path' "$umbrafs" --on-event told "$pool" "$mnt" || return 1
	says 1 'must be an absolute path' "$umbrafs" -o on_event= "$pool" "$mnt" || return 1
	says 32 "$pattern.*No such file" "$umbrafs" -o "on_event=$work/nothing" "$pool" "$mnt" || return 1
	touch "$work/plain"
	says 32 "$pattern.*not an executable file" "$umbrafs" -o "on_event=$work/plain" "$pool" "$mnt" || return 1
	says 32 "$pattern.*not an executable file" "$umbrafs" -o "on_event=$work" "$pool" "$mnt" || return 1
	says 1 'needs a value' "$umbrafs" "$pool" "$mnt" --on-event
}

# Strictly the text format: each family has its help and type once, before its samples; counters are named so.
case_metrics()
{
	fresh && daemon_up || return 1
	blocks "$mnt/file" 4 && cp "$mnt/file" "$mnt/twin" || return 1
	page bad "$(place "$mnt/file" 0)" || return
	cat "$mnt/file" >/dev/null 2>&1
	works "$ctl" stats --prometheus "$mnt" || return 1
	python3 - "$work/out" "$pool" <<-'END' || return 1
		import re, sys
		text = open(sys.argv[1]).read()
		families, now, samples = {}, None, {}
		label = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\"n])*"'
		assert text.endswith("\n"), "the last line has no end"
		for line in text[:-1].split("\n"):
		    help_ = re.fullmatch(r"# HELP ([a-zA-Z_:][a-zA-Z0-9_:]*) (\S.*)", line)
		    type_ = re.fullmatch(r"# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*) (counter|gauge)", line)
		    sample = re.fullmatch(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\{(" + label + "(?:," + label + r")*)\} (\d+)", line)
		    if help_:
		        now = help_[1]
		        assert now not in families, f"{now} comes twice"
		        families[now] = None
		    elif type_:
		        assert type_[1] == now and families[now] is None, line
		        families[now] = type_[2]
		        assert (type_[2] == "counter") == now.endswith("_total"), line
		    elif sample:
		        assert sample[1] == now and families[now] and now not in samples, line
		        samples[now] = int(sample[3])
		        assert f'pool="{sys.argv[2]}"' in sample[2].split(","), line
		    else:
		        sys.exit(f"not a line of the format: {line}")
		assert families.keys() == samples.keys(), "a family without a sample"
		assert all(name.startswith("umbrafs_") for name in samples)
		want = {"lost_blocks_total": 2, "lost_bytes_total": 8192, "bad_blocks_total": 1, "zeroed_blocks_total": 0, "recorded_lost_files": 2,
		        "recorded_lost_blocks": 2, "recorded_lost_bytes": 8192, "recorded_bad_blocks": 1, "info": 1, "failed": 0}
		for name, value in want.items():
		    assert samples["umbrafs_" + name] == value, f"{name} is {samples['umbrafs_' + name]}, not {value}"
		assert samples["umbrafs_size_bytes"] > samples["umbrafs_free_bytes"] > 1 << 20
	END
	says 2 'exclude each other' "$ctl" stats --prometheus --json "$mnt" || return 1
	works "$ctl" stats "$mnt" && grep -q '^recorded_lost_bytes  *8192 ' "$work/out" || return 1
	daemon_down
}

# What would be hit: of a page, of 2 MiB, of all; figures agree with what is there.
case_blast()
{
	local off i
	fresh && daemon_up || return 1
	blocks "$mnt/file" 8 && cp "$mnt/file" "$mnt/twin" && mkdir "$mnt/dir" || return 1
	for ((i = 0; i < 500; i++)); do echo "$i" >"$mnt/dir/$i"; done
	truncate -s 100K "$mnt/dir/0"
	off=$(place "$mnt/file" 0)
	works "$ctl" owners --json --summary --range "$off" "$mnt" || return 1
	is "a page" "$(json_of files) $(json_of data_bytes) $(json_of file_bytes) $(json_of metadata_units) $(json_of free_bytes) $(json_of bad_bytes)" "2 4096 8192 0 0 0" || return 1
	works "$ctl" owners --json --summary --range "$((off + 100))+10" "$mnt" || return 1
	is "a part of it" "$(json_of len) $(json_of files) $(json_of data_bytes) $(json_of free_bytes)" "4096 2 4096 0" || return 1
	works "$ctl" poison add 40M+12K "$mnt" && works "$ctl" owners --summary --range 40M+2M "$mnt" || return 1
	is "2 MiB" "$(awk 'NR > 1 { printf "%s ", $1 }' "$work/out")" "0 0 0 2084864 12288 " || return 1
	works "$ctl" owners --range 40M+2M "$mnt" && is "the list" "$(grep -c ' bad *$' "$work/out") $(grep -c ' bytes that are free' "$work/out")" "3 1" || return 1
	works "$ctl" owners --json "$mnt" || return 1
	python3 - "$work/out" <<-'END' || return 1
		import json, sys
		all_ = json.load(open(sys.argv[1]))
		blocks, data, files, units, bad, of_files = set(), set(), set(), 0, 0, 0
		for o in all_[:-1]:
		    mine = range(o["dev_off"] // 4096, (o["dev_off"] + o["len"]) // 4096)
		    blocks.update(mine)
		    if o["kind"] == "file":
		        files.add(o["ino"])
		        data.update(mine)
		        of_files += o["len"]
		    elif o["kind"] == "bad":
		        bad += o["len"]
		    else:
		        units += len(mine)
		s = all_[-1]
		want = {"kind": "summary", "dev_off": 0, "len": 64 << 20, "files": len(files), "data_bytes": len(data) * 4096, "file_bytes": of_files,
		        "metadata_units": units, "free_bytes": (64 << 20) - len(blocks) * 4096, "bad_bytes": bad, "bad_kept_bytes": 0}
		if s != want or len(files) < 2:
		    sys.exit(f"{s}, not {want}")
	END
	works "$ctl" owners --json --summary "$mnt" && is "files of all" "$(json_of files)" "$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["files"])' "$work/out")" || return 1
	daemon_down
}

# A pool in a file system without room for its pages: nothing is called bad, and that is not said again at each try. full_host POOL
full_host()
{
	local i
	works "$mkfs" --size 128M "$1" || return 1
	"$umbrafs" -f -o durability=process "$1" "$mnt" >"$work/log" 2>&1 </dev/null &
	daemon=$!
	wait_for mountpoint -q "$mnt" || return 1
	echo whole >"$mnt/file"
	dd if=/dev/zero of="${1%/*}/rest" bs=64K status=none 2>/dev/null
	for ((i = 0; i < 300; i++)); do
		dd if=/dev/urandom of="$mnt/large" bs=64K count=4 seek=$((i % 3)) conv=notrunc oflag=direct status=none 2>/dev/null && [ $i -gt 200 ] && break
	done
	is "tries" $i 300 || return 1
	"$ctl" events "$mnt" >"$work/out" || return 1
	[ "$(wc -l <"$work/out")" -lt 60 ] || { echo "$(wc -l <"$work/out") events"; head -3 "$work/out"; return 1; }
	is "other events" "$(grep -vc ' passed *$' "$work/out")" 0 || return 1
	[ "$(grep -c 'bad memory' "$work/log")" -lt 60 ] || { echo "$(grep -c 'bad memory' "$work/log") lines"; head -3 "$work/log"; return 1; }
	rm "${1%/*}/rest"
	is "what is there" "$(cat "$mnt/file")" whole && cp /bin/true "$mnt/more" && cmp /bin/true "$mnt/more" || return 1
	unmount "$mnt" && wait "$daemon" && works "$bin/fsck.umbrafs" -fn "$1"
}

# A hole cannot be read there either.
case_full_tmpfs()
{
	mkdir -p "$work/tmpfs" && mount -t tmpfs -o size=40M tmpfs "$work/tmpfs" || return 77
	full_host "$work/tmpfs/pool" && unmount "$work/tmpfs"
}

# A hole can be read, and not be written; blocks as large as a page, and smaller: a page with some of them is none.
case_full_disk()
{
	local size
	mkdir -p "$work/disk"
	for size in 4096 1024; do
		rm -f "$work/image"
		truncate -s 60M "$work/image" && mkfs.ext4 -qF -b $size "$work/image" 2>/dev/null || return 77
		mount -o loop "$work/image" "$work/disk" 2>/dev/null || return 77
		full_host "$work/disk/pool" && unmount "$work/disk" || return 1
	done
}

# shellcheck disable=SC2046
[ $# -gt 0 ] || set -- $(case_names)
for name in "$@"; do
	daemon_opts=()
	rm -f "$work"/{lines,ran,pids,go,inherited,seen}
	case_run "$name"
done
exit "$status"
