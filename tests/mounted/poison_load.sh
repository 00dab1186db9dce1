#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# shellcheck disable=SC1091,SC2154 # what tool_lib.sh sets
# Pages go bad under a mount at work: fio, databases, trees of files. Nobody is killed; what cannot be read is what the file system says is lost, no
# more and no less; everything else is right. So it is after another mount.
#
#   poison_load.sh [CASE...]     prints 'ok poison_load/CASE', 'not ok poison_load/CASE: why', 'skip poison_load/CASE: why'
#
# UMBRA_SEED=N: the same pages again, as far as time allows; UMBRA_LOAD_SECONDS (8): how long.
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/tool_lib.sh"
. "$(dirname "${BASH_SOURCE[0]}")/poison_lib.sh"

load=$here/poison_load.py
programs=$UMBRA_BUILD/tests/mounted
seconds=${UMBRA_LOAD_SECONDS:-8}

fio_at_work()
{
	fio --name=all --directory="$mnt/fio" --filename=all --size=12m --bs=4k --ioengine=psync --verify=crc32c --verify_state_save=0 --do_verify=0 \
		--randseed=7 --allow_mounted_write=1 --minimal "$@" >"$work/fio.out" 2>&1
}

# Reads all; as many blocks fail as have lost something, and every other one has its checksum.
fio_check()
{
	local want got
	want=$(python3 -c 'import json, sys; print(len({l["from"] // 4096 for l in json.load(sys.stdin) if l["path"] == "/fio/all"}))' <"$work/losses")
	fio --name=all --directory="$mnt/fio" --filename=all --size=12m --bs=4k --ioengine=psync --verify=crc32c --verify_state_save=0 --rw=read \
		--continue_on_error=io --allow_mounted_write=1 --output-format=json --output="$work/fio.json" >"$work/fio.out" 2>&1
	got=$(python3 -c 'import json, sys; j = json.load(open(sys.argv[1]))["jobs"][0]; print(j["total_err"], j["read"]["total_ios"])' "$work/fio.json")
	is "errors and reads of fio" "$got" "$want 3072"
}

# What was started has to end well: ended PID NAME
ended()
{
	wait "$1" && return 0
	echo "$2 ended with $?: $(tail -n 3 "$work/$2.out" | tr '\n' '|')"
	return 1
}

# Pages are made bad.
enough_bad()
{
	[ "$(wc -l <"$work/poisoned")" -gt 20 ]
}

load_run()
{
	local seed=${UMBRA_SEED:-$RANDOM} stop=$work/poisoned.stop poison fio rows look crash stress rc=0
	echo "UMBRA_SEED=$seed"
	rm -f "$stop"
	python3 "$load" poison "$mnt" "$pool" "$work/pipe" "$work/answers" "$seed" "$work/poisoned" >"$work/poison.out" 2>&1 &
	poison=$!
	fio_at_work --rw=randrw --rwmixread=30 --time_based --runtime="$seconds" --continue_on_error=io &
	fio=$!
	python3 "$load" rows "$mnt" "$stop" >"$work/rows.out" 2>&1 &
	rows=$!
	python3 "$load" look "$mnt" "$stop" >"$work/look.out" 2>&1 &
	look=$!
	"$programs/m_crashload" --count 300 write "$mnt" "$work/crashload" 2 "$seed" >"$work/crash.out" 2>&1 &
	crash=$!
	"$programs/m_stress" --seed "$seed" "$mnt/stress" one_process four_processes >"$work/stress.out" 2>&1 &
	stress=$!
	ended $fio fio || rc=1
	wait_for enough_bad || rc=1
	: >"$stop"
	ended $poison poison || rc=1
	ended $rows rows || rc=1
	ended $look look || rc=1
	ended $crash crash || rc=1
	ended $stress stress || rc=1
	kill -0 "$daemon" || rc=1
	return $rc
}

losses_list()
{
	"$ctl" losses --json "$mnt" >"$1"
	is "the status of losses" $? 3
}

everything_check()
{
	python3 "$load" check "$mnt" "$work/losses" "$work/poisoned" "$work/backup" && fio_check &&
		"$programs/m_crashload" verify "$mnt" "$work/crashload" 2
}

fsck_check()
{
	"$bin/fsck.umbrafs" -fn "$pool" >"$work/fsck.out" 2>&1 && return 0
	echo "fsck ended with $?: $(head -c 400 "$work/fsck.out")"
	return 1
}

case_all()
{
	command -v fio >/dev/null || { echo "fio is not installed"; return 77; }
	fresh 256M && daemon_up && mkdir "$mnt/fio" "$mnt/stress" "$mnt/w0" "$mnt/w1" || return 1
	page bad 0 && page good 0 || return
	python3 "$load" fill "$mnt" "$work/backup" && fio_at_work --rw=write || return 1
	load_run && python3 "$load" touch "$mnt" && losses_list "$work/losses" && everything_check || return 1
	daemon_down && fsck_check && daemon_up && losses_list "$work/again" || return 1
	cmp "$work/losses" "$work/again" && everything_check && daemon_down && fsck_check
}

# shellcheck disable=SC2046
[ $# -gt 0 ] || set -- $(case_names)
for name in "$@"; do
	case_run "$name"
done
exit "$status"
