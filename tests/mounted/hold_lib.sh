# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash disable=SC2154,SC2034 # work, mnt: tool_lib.sh; what is set is for those who read this
# What guard.sh and keeper.sh share: a daemon with hold_preload.c that has taken a READ and does not answer it, and has a thread in the kernel that
# waits for its end.
#
#   hold_file              a file to read, $mnt/file; to be mounted anew after it
#   hold_read              somebody ($caller) reads it, and the READ has been taken; the file is open as descriptor 8
#   hold_telling PID       a thread of the daemon PID has the kernel drop the file's pages, and waits; who asked for it is $teller
hold=$work/hold
chmod 1777 "$work"

hold_file()
{
	rm -f "$hold"
	head -c 16K /dev/urandom >"$mnt/file" && hold_sum=$(md5sum <"$mnt/file")
}

hold_read()
{
	touch "$hold"
	rm -f "$hold.there"
	exec 8<>"$mnt/file" || return 1
	cat "$mnt/file" >"$work/read" 2>/dev/null 8>&- &
	caller=$!
	wait_for test -e "$hold.there"
}

# Does a thread of it wait in the kernel and cannot be woken?
has_thread_in_kernel()
{
	cat "/proc/$1"/task/*/stat | sed 's/.*) //' | grep -q '^D'
}

hold_telling()
{
	touch -d 2001-02-03 "$mnt/file" >/dev/null 2>&1 8>&- &
	teller=$!
	wait_for has_thread_in_kernel "$1"
}
