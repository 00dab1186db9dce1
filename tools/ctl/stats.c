/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * umbractl stats: how full the pool of a mount is, and what happened since the mount; for people, as JSON, or as metrics.
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
	"usage: umbractl stats [--json | --prometheus] PATH\n"
	"Says how full the umbrafs is that PATH is on, and what it has done since it was mounted.\n"
	"  -p, --prometheus  as metrics in the text format of Prometheus, for its node exporter's textfile directory\n";

#define BLOCK_BYTES 4096u
#define LINE_BYTES 64u

struct all {
	struct umbra_stats stats;
	struct umbra_damage damage;
};

#define STATS(name) #name, offsetof(struct all, stats.name)
#define DAMAGE(name) "recorded_" #name, offsetof(struct all, damage.name)

/* Counters begin with 0 at each mount, and their metrics end with _total; gauges tell what is. */
static const struct {
	const char *key;
	size_t offset;
	const char *metric;
	unsigned unit;    /* of the metric, in bytes or as counted */
	const char *what; /* NULL: a block count, printed with its size */
	const char *help; /* of the metric; NULL: what */
} fields[] = {
	{ STATS(total_blocks), "size_bytes", BLOCK_BYTES, NULL, "Space for data and metadata" },
	{ STATS(free_blocks), "free_bytes", BLOCK_BYTES, NULL, "Space that is free" },
	{ STATS(reserve_blocks), "reserve_bytes", BLOCK_BYTES, NULL, "Space kept for metadata" },
	{ STATS(inodes), "inodes", 1, "files, directories and other inodes", NULL },
	{ STATS(free_inodes), "free_inodes", 1, "inodes ready for use", NULL },
	{ STATS(meta_chunks), "metadata_chunks", 1, "chunks of metadata (2 MiB each)", NULL },
	{ STATS(meta_free_units), "metadata_free_units", 1, "free units in them (4 KiB each)",
	  "Free units in chunks of metadata" },
	{ STATS(cached_inodes), "cached_inodes", 1, "inodes in memory", NULL },
	{ STATS(requests), "requests_total", 1, "requests of the kernel", NULL },
	{ STATS(read_bytes), "read_bytes_total", 1, "bytes read", NULL },
	{ STATS(written_bytes), "written_bytes_total", 1, "bytes written", NULL },
	{ STATS(cloned_bytes), "cloned_bytes_total", 1, "bytes copied by sharing (copy_file_range)", NULL },
	{ STATS(commits), "transactions_total", 1, "transactions", NULL },
	{ STATS(aborts), "transactions_dropped_total", 1, "transactions dropped (errors and second tries)",
	  NULL },
	{ STATS(retries), "retries_total", 1, "second tries because of lock order", NULL },
	{ STATS(lines_logged), "journal_bytes_total", LINE_BYTES, "journal lines (64 bytes each)",
	  "Bytes written to the journal" },
	{ STATS(replayed_records), "replayed_transactions", 1, "transactions replayed at mount", NULL },
	{ STATS(heals), "metadata_heals_total", 1, "metadata units repaired from their copy", NULL },
	{ STATS(damaged_units), "metadata_damaged_total", 1, "metadata units found damaged", NULL },
	{ STATS(bad_reads), "metadata_bad_reads_total", 1, "times that metadata met bad memory", NULL },
	{ STATS(bad_blocks), "bad_blocks_total", 1, "blocks with bad memory, seen to since the mount", NULL },
	{ STATS(lost_blocks), "lost_blocks_total", 1, "blocks of files with something lost, for each owner",
	  NULL },
	{ STATS(lost_bytes), "lost_bytes_total", 1, "bytes of them lost", "Bytes of files lost" },
	{ STATS(zeroed_blocks), "zeroed_blocks_total", 1,
	  "the same with zeroes in the place of what was lost",
	  "Blocks of files with zeroes in the place of what was lost, for each owner" },
	{ STATS(zeroed_bytes), "zeroed_bytes_total", 1, "bytes of zeroes in them",
	  "Bytes of files that were lost and are zeroes now" },
	{ STATS(sessions), "direct_sessions", 1, "processes that may map files directly", NULL },
	{ STATS(orphan_sessions), "direct_orphans", 1, "of them ended without a word, or not answering",
	  "Processes with direct mappings that have ended without a word, or do not answer" },
	{ STATS(shadows), "direct_shadows", 1, "pieces of files that they have",
	  "Pieces of files mapped directly" },
	{ STATS(masters), "direct_masters", 1, "ranges of the device below them",
	  "Ranges of the device that are mapped directly" },
	{ STATS(quarantine_blocks), "direct_quarantine_bytes", BLOCK_BYTES,
	  "blocks that are free but for them (4 KiB each)", "Space that is free but still mapped" },
	{ STATS(shadow_bytes), "direct_memory_bytes", 1, "bytes of memory to keep all that",
	  "Memory to keep direct mappings in mind" },
	{ STATS(revokes), "direct_revokes_total", 1, "times that somebody was asked to let go", NULL },
	{ STATS(late_revokes), "direct_late_revokes_total", 1, "of them without an answer in time",
	  "Times that somebody did not let go in time" },
	{ DAMAGE(lost_files), "recorded_lost_files", 1, "files with recorded losses", NULL },
	{ DAMAGE(lost_blocks), "recorded_lost_blocks", 1, "blocks of them with something lost",
	  "Blocks of files with recorded losses" },
	{ DAMAGE(lost_bytes), "recorded_lost_bytes", 1, "bytes of them that cannot be read",
	  "Bytes of files that are recorded as lost" },
	{ DAMAGE(bad_blocks), "recorded_bad_blocks", 1, "blocks out of use because of bad memory", NULL },
};
#define FIELDS (sizeof(fields) / sizeof(fields[0]))

static uint64_t field_get(const struct all *all, size_t i)
{
	uint64_t value;

	memcpy(&value, (const char *)all + fields[i].offset, sizeof(value));
	return value;
}

static int take(void *arg, int letter, const char *value)
{
	(void)letter;
	(void)value;
	*(bool *)arg = true;
	return 0;
}

/* ---- metrics ---- */

/* The value of a label. */
static void label_print(const char *key, const char *field, size_t field_size)
{
	char text[4096];

	ctl_path_text(field, strnlen(field, field_size), text, sizeof(text));
	printf("%s=\"", key);
	for (const char *c = text; *c; c++)
		printf(*c == '"' || *c == '\\' ? "\\%c" : "%c", *c);
	putchar('"');
}

static void metric_print(const char *name, const char *help, const struct umbra_info *info, uint64_t value)
{
	size_t len = strlen(name);
	bool counter = len > 6 && strcmp(name + len - 6, "_total") == 0;

	printf("# HELP umbrafs_%s %c%s.\n", name,
	       help[0] >= 'a' && help[0] <= 'z' ? help[0] - 'a' + 'A' : help[0], help + 1);
	printf("# TYPE umbrafs_%s %s\numbrafs_%s{", name, counter ? "counter" : "gauge", name);
	label_print("pool", info->pool, sizeof(info->pool));
	printf("} %llu\n", (unsigned long long)value);
}

static void info_print(const struct umbra_info *info)
{
	printf("# HELP umbrafs_info What the pool is.\n# TYPE umbrafs_info gauge\numbrafs_info{");
	label_print("pool", info->pool, sizeof(info->pool));
	putchar(',');
	label_print("label", info->label, sizeof(info->label));
	printf(",uuid=\"");
	for (int i = 0; i < 16; i++)
		printf("%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", info->uuid[i]);
	printf("\",");
	label_print("version", info->version, sizeof(info->version));
	printf("} 1\n");
}

static int print_metrics(int fd, const struct all *all)
{
	struct umbra_info info;

	if (ioctl(fd, UMBRA_IOC_INFO, &info))
		return errno;
	info_print(&info);
	metric_print("mounted_timestamp_seconds", "When it was mounted, since 1970", &info,
		     info.mounted_ns / 1000000000);
	metric_print("readonly", "1: mounted read-only", &info, (info.flags & UMBRA_INFO_READONLY) != 0);
	metric_print("failed", "1: takes no writes any more", &info, (info.flags & UMBRA_INFO_FAILED) != 0);
	for (size_t i = 0; i < FIELDS; i++)
		metric_print(fields[i].metric, fields[i].help ? fields[i].help : fields[i].what, &info,
			     field_get(all, i) * fields[i].unit);
	return 0;
}

/* ---- the rest ---- */

static void print_text(const struct all *all)
{
	char size[ARGS_SIZE_TEXT];

	for (size_t i = 0; i < FIELDS; i++) {
		uint64_t value = field_get(all, i);

		printf("%-20s %14llu  %s\n", fields[i].key, (unsigned long long)value,
		       fields[i].what ? fields[i].what :
					args_size_text(value * BLOCK_BYTES, size, sizeof(size)));
	}
}

static int print_json(const struct all *all)
{
	struct json_object *o = json_object_new_object();

	for (size_t i = 0; i < FIELDS; i++)
		json_object_object_add(o, fields[i].key, json_u64(field_get(all, i)));
	return ctl_print_json(o);
}

int ctl_stats(int argc, char **argv)
{
	static const struct option longs[] = { { "prometheus", no_argument, NULL, 'p' },
					       { NULL, 0, NULL, 0 } };
	bool metrics = false;
	struct ctl_args args = {
		.usage = usage,
		.letters = "p",
		.longs = longs,
		.take = take,
		.arg = &metrics,
		.min = 1,
		.max = 1,
	};
	struct all all = { 0 };
	int rc = ctl_parse(&args, argc, argv), fd;

	if (rc)
		return rc < 0 ? 0 : rc;
	if (args.json && metrics) {
		fprintf(stderr, "umbractl stats: --json and --prometheus exclude each other\n");
		return STATUS_USAGE;
	}
	fd = ctl_open(args.names[0], O_RDONLY);
	if (fd < 0)
		return STATUS_FAILED;
	rc = ioctl(fd, UMBRA_IOC_STATS, &all.stats) || ioctl(fd, UMBRA_IOC_DAMAGE, &all.damage) ? errno : 0;
	if (rc == 0 && metrics)
		rc = print_metrics(fd, &all);
	close(fd);
	if (rc)
		return ctl_fail(args.names[0], rc);
	if (args.json)
		return print_json(&all);
	if (!metrics)
		print_text(&all);
	return ctl_finish();
}
