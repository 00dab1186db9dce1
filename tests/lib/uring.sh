# SPDX-License-Identifier: BSD-3-Clause
# FUSE over io_uring, which the kernel has switched off, for a test script (bash). Source it.
#
#   uring_hold           nobody else changes the switch until uring_release; waits for its turn
#   uring_switch Y|N     after uring_hold
#   uring_release        the switch is as it was
#   uring_why            why it cannot be tested here; empty: it can
#
# A script that is started between the two calls has the switch held for it (UMBRA_URING_HELD), and may set it.
# shellcheck shell=bash

uring_parameter=/sys/module/fuse/parameters/enable_uring uring_before='' uring_lock=''

uring_why()
{
	modprobe fuse 2>/dev/null
	if [ ! -e "$uring_parameter" ]; then
		echo "this kernel has no FUSE over io_uring"
	elif [ ! -w "$uring_parameter" ] || [ "$(id -u)" != 0 ]; then
		echo "only root can switch FUSE over io_uring on"
	elif [ "$(cat /proc/sys/kernel/io_uring_disabled 2>/dev/null || echo 0)" != 0 ]; then
		echo "io_uring is switched off here"
	fi
}

uring_hold()
{
	uring_before=$(cat "$uring_parameter")
	[ -z "${UMBRA_URING_HELD:-}" ] || return 0
	exec {uring_lock}>/dev/shm/umbra-uring.lock && flock "$uring_lock" || return 1
	uring_before=$(cat "$uring_parameter")
	export UMBRA_URING_HELD=$$
}

uring_switch()
{
	echo "$1" >"$uring_parameter"
}

uring_release()
{
	[ -z "$uring_before" ] || echo "$uring_before" >"$uring_parameter"
	uring_before=''
	[ "${UMBRA_URING_HELD:-}" = $$ ] || return 0
	unset UMBRA_URING_HELD
	exec {uring_lock}>&-
}
