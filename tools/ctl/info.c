/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * umbractl info: what the pool of a mount is.
 */
#include "ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static const char usage[] =
	"usage: umbractl info [--json] PATH\n"
	"Says what the umbrafs is that PATH is on: pool, sizes, format, how it is mounted, what bad memory has done.\n"
	"Exit status: 0 nothing is recorded as lost, 3 something is, 1 failed, 2 usage.\n";

static void uuid_text(const __u8 *uuid, char *text)
{
	for (int i = 0; i < 16; i++)
		text += sprintf(text, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid[i]);
}

static const char *field_text(const char *field, size_t field_size, char *text, size_t size)
{
	return ctl_path_text(field, strnlen(field, field_size), text, size);
}

static const char *time_text(__u64 ns, char *text, size_t size)
{
	time_t s = (time_t)(ns / 1000000000);
	struct tm tm;

	if (!localtime_r(&s, &tm) || !strftime(text, size, "%Y-%m-%d %H:%M:%S %z", &tm))
		snprintf(text, size, "?");
	return text;
}

static void add_text(struct json_object *o, const char *key, const char *field, size_t field_size)
{
	char text[4096];

	json_object_object_add(o, key,
			       json_object_new_string(field_text(field, field_size, text, sizeof(text))));
}

static void add_flag(struct json_object *o, const char *key, const struct umbra_info *info, uint32_t flag)
{
	json_object_object_add(o, key, json_object_new_boolean((info->flags & flag) != 0));
}

static int print_json(const struct umbra_info *info, const struct umbra_damage *damage, const char *uuid)
{
	struct json_object *o = json_object_new_object();

	add_text(o, "pool", info->pool, sizeof(info->pool));
	add_text(o, "label", info->label, sizeof(info->label));
	json_object_object_add(o, "uuid", json_object_new_string(uuid));
	json_object_object_add(o, "format_major", json_u64(info->major));
	json_object_object_add(o, "format_minor", json_u64(info->minor));
	json_object_object_add(o, "size_bytes", json_u64(info->size));
	json_object_object_add(o, "block_size_bytes", json_u64(info->block_size));
	json_object_object_add(o, "groups", json_u64(info->ag_count));
	json_object_object_add(o, "group_size_bytes", json_u64(info->ag_size));
	json_object_object_add(o, "align_bytes", json_u64(info->align));
	json_object_object_add(o, "features_compat", json_u64(info->compat));
	json_object_object_add(o, "features_ro_compat", json_u64(info->ro_compat));
	json_object_object_add(o, "features_incompat", json_u64(info->incompat));
	add_flag(o, "metadata_dup", info, UMBRA_INFO_META_DUP);
	add_flag(o, "device_dax", info, UMBRA_INFO_DEVICE);
	add_flag(o, "readonly", info, UMBRA_INFO_READONLY);
	json_object_object_add(o, "failed",
			       info->flags & UMBRA_INFO_FAILED ? json_object_new_string(info->failed) : NULL);
	add_text(o, "durability", info->durability, sizeof(info->durability));
	json_object_object_add(o, "journal_lanes", json_u64(info->lane_count));
	json_object_object_add(o, "journal_lane_bytes", json_u64(info->lane_size));
	json_object_object_add(o, "created_ns", json_u64(info->created_ns));
	json_object_object_add(o, "mounted_ns", json_u64(info->mounted_ns));
	json_object_object_add(o, "mount_count", json_u64(info->mount_count));
	add_text(o, "daemon_version", info->version, sizeof(info->version));
	json_object_object_add(o, "daemon_pid", json_u64(info->pid));
	json_object_object_add(o, "threads", json_u64(info->threads));
	json_object_object_add(o, "lost_files", json_u64(damage->lost_files));
	json_object_object_add(o, "lost_blocks", json_u64(damage->lost_blocks));
	json_object_object_add(o, "lost_bytes", json_u64(damage->lost_bytes));
	json_object_object_add(o, "bad_blocks", json_u64(damage->bad_blocks));
	return ctl_print_json(o);
}

static int print_text(const struct umbra_info *info, const struct umbra_damage *damage, const char *uuid)
{
	char size[ARGS_SIZE_TEXT], ag[ARGS_SIZE_TEXT], lane[ARGS_SIZE_TEXT], align[ARGS_SIZE_TEXT];
	char made[64], mounted[64], text[2048];

	printf("pool        %s (%s, alignment %s)\n",
	       field_text(info->pool, sizeof(info->pool), text, sizeof(text)),
	       info->flags & UMBRA_INFO_DEVICE ? "device-DAX" : "plain file",
	       args_size_text(info->align, align, sizeof(align)));
	if (info->label[0])
		printf("label       %s\n", field_text(info->label, sizeof(info->label), text, sizeof(text)));
	printf("uuid        %s\n", uuid);
	printf("format      %u.%u, metadata %s\n", info->major, info->minor,
	       info->flags & UMBRA_INFO_META_DUP ? "dup" : "single");
	printf("size        %s, %u groups of %s\n", args_size_text(info->size, size, sizeof(size)),
	       info->ag_count, args_size_text(info->ag_size, ag, sizeof(ag)));
	printf("journal     %u lanes of %s\n", info->lane_count,
	       args_size_text(info->lane_size, lane, sizeof(lane)));
	printf("durability  %s\n", info->durability);
	printf("made        %s\n", time_text(info->created_ns, made, sizeof(made)));
	printf("mounted     %s%s%u times so far%s\n",
	       info->mount_count ? time_text(info->mounted_ns, mounted, sizeof(mounted)) : "for writing",
	       info->mount_count ? ", " : " ", info->mount_count,
	       info->flags & UMBRA_INFO_READONLY ? ", now read-only" : "");
	printf("daemon      umbrafs %s, process %u, %u threads\n", info->version, info->pid, info->threads);
	printf("bad memory  %llu block%s out of use, %llu bytes lost of %llu file%s\n",
	       (unsigned long long)damage->bad_blocks, damage->bad_blocks == 1 ? "" : "s",
	       (unsigned long long)damage->lost_bytes, (unsigned long long)damage->lost_files,
	       damage->lost_files == 1 ? "" : "s");
	if (info->flags & UMBRA_INFO_FAILED)
		printf("FAILED      takes no writes any more: %s\n", info->failed);
	return ctl_finish();
}

int ctl_info(int argc, char **argv)
{
	struct ctl_args args = { .usage = usage, .min = 1, .max = 1 };
	struct umbra_damage damage;
	struct umbra_info info;
	char uuid[40];
	int rc = ctl_parse(&args, argc, argv), fd;

	if (rc)
		return rc < 0 ? 0 : rc;
	fd = ctl_open(args.names[0], O_RDONLY);
	if (fd < 0)
		return STATUS_FAILED;
	rc = ioctl(fd, UMBRA_IOC_INFO, &info) || ioctl(fd, UMBRA_IOC_DAMAGE, &damage) ? errno : 0;
	close(fd);
	if (rc)
		return ctl_fail(args.names[0], rc);
	uuid_text(info.uuid, uuid);
	rc = args.json ? print_json(&info, &damage, uuid) : print_text(&info, &damage, uuid);
	return rc ? rc : damage.lost_blocks ? STATUS_LOST : 0;
}
