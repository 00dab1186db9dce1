#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# shellcheck disable=SC1091,SC2154 # what tool_lib.sh sets
# Daemons that are killed under processes with direct mappings, and what those do until the next one: restart.py.
#
#   restart.sh [CASE...]     prints 'ok restart/CASE', 'not ok restart/CASE: why', 'skip restart/CASE: why'
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/tool_lib.sh"

# restart CASE
restart()
{
	fresh || return 1
	timeout 200 python3 "$here/restart.py" "$1" "$umbrafs" "$UMBRA_BUILD/tests/mounted/mapping_client" "$pool" "$work" >"$work/said" 2>&1 ||
		{ grep -A 3 'in case_' "$work/said"; tail -n 2 "$work/said"; return 1; }
	works "$bin/fsck.umbrafs" -fn "$pool"
}

case_goes_on() { restart goes_on; }
case_elsewhere() { restart elsewhere; }
case_is_gone() { restart is_gone; }
case_deleted() { restart deleted; }
case_fails() { restart fails; }
case_attached_again() { restart attached_again; }
case_small_stack() { restart small_stack; }
case_last_thread() { restart last_thread; }
case_stopped() { restart stopped; }
case_kernels() { restart kernels; }
case_places() { restart places; }
case_umbra_run() { restart umbra_run; }
case_many() { restart many; }

if [ $# -eq 0 ]; then
	mapfile -t names < <(case_names)
	set -- "${names[@]}"
fi
for name; do
	case_run "$name"
done
exit $status
