#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# shellcheck disable=SC1091,SC2154 # what tool_lib.sh sets, and what is for it
# Bad memory under mappings of libumbra: poison_mappings.py.
#
#   poison_mappings.sh [CASE...]     prints 'ok poison_mappings/CASE', 'not ok poison_mappings/CASE: why', 'skip poison_mappings/CASE: why'
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/tool_lib.sh"
. "$(dirname "${BASH_SOURCE[0]}")/poison_lib.sh"

# mapped CASE
mapped()
{
	fresh && daemon_up || return 1
	grep -q cannot "$work/answers" && { page bad 0; return; }
	ASAN_OPTIONS=detect_leaks=0 timeout 200 python3 "$here/poison_mappings.py" "$1" "$UMBRA_BUILD/tests/mounted/mapping_client" \
		"$(poison_asan)$preload" "$pool" "$work" "$ctl" >"$work/said" 2>&1 ||
		{ grep -A 3 'in case_' "$work/said"; tail -n 2 "$work/said"; return 1; }
	daemon_down && works "$bin/fsck.umbrafs" -fn "$pool"
}

case_own_alone() { mapped own_alone; }
case_both() { mapped both; }
case_daemon_alone() { mapped daemon_alone; }
case_owners() { mapped owners; }

if [ $# -eq 0 ]; then
	mapfile -t names < <(case_names)
	set -- "${names[@]}"
fi
for name; do
	case_run "$name"
	rm -f "$work"/pipe* "$work"/answers*
done
exit "$status"
