/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * umbractl stats: how full the pool of a mount is, and what happened since the mount.
 */
#include "ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static const char usage[] =
	"usage: umbractl stats [--json] PATH\n"
	"Says how full the umbrafs is that PATH is on, and what it has done since it was mounted.\n";

#define FIELD(name, what)                                       \
	{                                                       \
#name, what, offsetof(struct umbra_stats, name) \
	}
#define BLOCK_BYTES 4096u

static const struct {
	const char *key, *what; /* what NULL: a block count, printed with its size */
	size_t offset;
} fields[] = {
	FIELD(total_blocks, NULL),
	FIELD(free_blocks, NULL),
	FIELD(reserve_blocks, NULL),
	FIELD(inodes, "files, directories and other inodes"),
	FIELD(free_inodes, "inodes ready for use"),
	FIELD(meta_chunks, "chunks of metadata (2 MiB each)"),
	FIELD(meta_free_units, "free units in them (4 KiB each)"),
	FIELD(cached_inodes, "inodes in memory"),
	FIELD(requests, "requests of the kernel"),
	FIELD(read_bytes, "bytes read"),
	FIELD(written_bytes, "bytes written"),
	FIELD(cloned_bytes, "bytes copied by sharing (copy_file_range)"),
	FIELD(commits, "transactions"),
	FIELD(aborts, "transactions dropped (errors and second tries)"),
	FIELD(retries, "second tries because of lock order"),
	FIELD(lines_logged, "journal lines (64 bytes each)"),
	FIELD(replayed_records, "transactions replayed at mount"),
	FIELD(heals, "metadata units repaired from their copy"),
	FIELD(damaged_units, "metadata units found damaged"),
	FIELD(bad_reads, "times that metadata met bad memory"),
	FIELD(bad_blocks, "blocks with bad memory, seen to since the mount"),
	FIELD(lost_blocks, "blocks of files with something lost, for each owner"),
	FIELD(lost_bytes, "bytes of them lost"),
};

static uint64_t field_get(const struct umbra_stats *stats, size_t i)
{
	uint64_t value;

	memcpy(&value, (const char *)stats + fields[i].offset, sizeof(value));
	return value;
}

int ctl_stats(int argc, char **argv)
{
	struct ctl_args args = { .usage = usage, .min = 1, .max = 1 };
	struct json_object *o;
	struct umbra_stats stats;
	char size[ARGS_SIZE_TEXT];
	int rc = ctl_parse(&args, argc, argv), fd;

	if (rc)
		return rc < 0 ? 0 : rc;
	fd = ctl_open(args.names[0], O_RDONLY);
	if (fd < 0)
		return STATUS_FAILED;
	rc = ioctl(fd, UMBRA_IOC_STATS, &stats) ? errno : 0;
	close(fd);
	if (rc)
		return ctl_fail(args.names[0], rc);
	o = json_object_new_object();
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		uint64_t value = field_get(&stats, i);

		if (args.json)
			json_object_object_add(o, fields[i].key, json_u64(value));
		else if (fields[i].what)
			printf("%-16s %14llu  %s\n", fields[i].key, (unsigned long long)value,
			       fields[i].what);
		else
			printf("%-16s %14llu  %s\n", fields[i].key, (unsigned long long)value,
			       args_size_text(value * BLOCK_BYTES, size, sizeof(size)));
	}
	if (args.json)
		return ctl_print_json(o);
	json_object_put(o);
	return ctl_finish();
}
