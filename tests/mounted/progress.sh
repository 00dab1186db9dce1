#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# shellcheck disable=SC1091,SC2154 # what tool_lib.sh sets
# What long commands show on a terminal while they run, and take off it in the end. Time runs fast for them (clock_preload.c).
#
#   progress.sh [CASE...]     prints 'ok progress/CASE', 'not ok progress/CASE: why', 'skip progress/CASE: why'
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/tool_lib.sh"

preload=$UMBRA_BUILD/tests/mounted/libclock_preload.so
[ -e "$preload" ] || { echo "skip $suite/all: no $preload"; exit 0; }
# A sanitizer's library has to come first.
preload=$(ldd "$ctl" | awk '/lib(a|t)san/ { print $3 ":" }')$preload

# shown STATUS STDOUT COMMAND...: with standard error on a terminal, and standard output too or in $work/out (STDOUT: tty, file). What the
# terminal got is in $work/tty.
shown()
{
	cat >"$work/shown.py" <<-'END'
		import os, pty, select, sys
		preload, stdout, out, argv = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]
		tty, its_end = pty.openpty()
		child = os.fork()
		if child == 0:
		    os.setsid()
		    os.dup2(os.open('/dev/null', os.O_RDONLY), 0)
		    os.dup2(its_end if stdout == 'tty' else os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
		    os.dup2(its_end, 2)
		    os.execve(argv[0], argv, {**os.environ, 'LD_PRELOAD': preload})
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
		sys.stdout.buffer.write(said)
		sys.exit(status)
	END
	timeout 60 python3 "$work/shown.py" "$preload" "$2" "$work/out" "${@:3}" >"$work/tty"
	is "the status of '${*:3}'" $? "$1"
}

# The terminal got what NAME has done so far, never less than before, and in the end an empty line: goes_up NAME
goes_up()
{
	python3 - "$1" "$work/tty" <<-'END'
		import re, sys
		name, said = sys.argv[1], open(sys.argv[2], 'rb').read().decode()
		parts = said.split('\r')
		seen = [int(m[1]) for m in (re.fullmatch(name + r': *(\d+) % ', part) for part in parts) if m]
		if len(seen) < 2 or seen != sorted(seen) or seen[-1] > 100 or seen[-1] == 0:
		    sys.exit(f'the terminal was told {seen}: {said[:200]!r}')
		end = max(i for i, part in enumerate(parts) if part.startswith(name + ':'))
		if parts[:1] + parts[1:end + 1] != [''] + [p for p in parts if p.startswith(name + ':')]:
		    sys.exit(f'the terminal got something in between: {said[:200]!r}')
		# As many spaces as were shown, and back to where the line begins.
		if parts[end + 1].strip(' ') or len(parts[end + 1]) < len(parts[end]) or len(parts) < end + 3:
		    sys.exit(f'the last line stays: {said[-200:]!r}')
	END
}

# The terminal was told nothing of the kind.
nothing()
{
	grep -q ' % ' "$work/tty" || return 0
	echo "the terminal got '$(head -c 200 "$work/tty" | tr '\r' '|')'"
	return 1
}

# Files of more blocks than fit into an answer, or are moved at once.
files()
{
	python3 -c 'import os, sys
for i in range(2000):
    with open(f"{sys.argv[1]}/{i}", "wb") as f:
        f.write(os.urandom(5000))' "$mnt"
}

up()
{
	fresh 256M && works "$umbrafs" "$pool" "$mnt" && files
}

case_owners()
{
	up && shown 0 tty "$ctl" owners --summary "$mnt" && goes_up owners && grep -q 'would hit' "$work/tty" || return 1
	shown 0 file "$ctl" owners --summary --range 64M+64M "$mnt" && grep -q 'would hit' "$work/out" || return 1
	shown 0 file "$ctl" owners "$mnt" && goes_up owners && grep -q ' file ' "$work/out" || return 1
	# A list goes by on the terminal.
	shown 0 tty "$ctl" owners "$mnt" && grep -q ' file ' "$work/tty" && nothing || return 1
	works env LD_PRELOAD="$preload" "$ctl" owners --summary "$mnt"
}

case_evacuate()
{
	local off
	up && off=$("$ctl" map --json "$mnt/0" | sed -n 's/.*"dev_off": *\([0-9]*\).*/\1/p' | head -n 1) || return 1
	off=$((off / 67108864 * 64))
	shown 3 tty "$ctl" evacuate "${off}M+64M" "$mnt" && goes_up evacuate && grep -q ' moved, the rest stays' "$work/tty" || return 1
	up || return 1
	shown 3 file "$ctl" evacuate "${off}M+64M" "$mnt" && goes_up evacuate && grep -q ' moved, the rest stays' "$work/out" || return 1
	LD_PRELOAD=$preload "$ctl" evacuate 0+128M "$mnt" >"$work/out" 2>"$work/err"
	is "the status without a terminal" $? 3 && is "what it says without a terminal" "$(cat "$work/err")" ""
}

# shellcheck disable=SC2046
[ $# -gt 0 ] || set -- $(case_names)
for name in "$@"; do
	case_run "$name"
done
exit "$status"
