/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * umbractl losses: what bad memory has taken from files.
 */
#include "ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define LINE_BYTES 64u
#define BLOCK_LINES 64u

static const char usage[] =
	"usage: umbractl losses [--json] MOUNT\n"
	"Lists what files have lost to bad memory: path, bytes that cannot be read (from, up to), since when. They can be read again when they\n"
	"have been written as a whole, punched, zeroed or cut off, or put back by `umbractl repair`. For root and the user who mounted.\n"
	"Exit status: 0 nothing is lost, 3 something is, 1 failed, 2 usage.\n";

struct losses {
	bool json, any;
	struct json_object *list;
};

static void range_put(struct losses *losses, const struct umbra_loss *loss, const char *path, unsigned from,
		      unsigned end)
{
	uint64_t start = loss->file_off + from * LINE_BYTES, stop = loss->file_off + end * LINE_BYTES;
	char since[32] = "";
	time_t when = (time_t)loss->since_s;
	struct json_object *o;
	struct tm tm;

	if (!losses->json) {
		if (!losses->any)
			printf("%16s %16s  %-19s  %s\n", "FROM", "UP TO", "SINCE", "PATH");
		if (localtime_r(&when, &tm))
			strftime(since, sizeof(since), "%Y-%m-%d %H:%M:%S", &tm);
		printf("%16llu %16llu  %-19s  %s (inode %llu)\n", (unsigned long long)start,
		       (unsigned long long)stop, since, path ? path : "no name",
		       (unsigned long long)loss->ino);
	} else {
		o = json_object_new_object();
		json_object_object_add(o, "path", path ? json_object_new_string(path) : NULL);
		json_object_object_add(o, "ino", json_u64(loss->ino));
		json_object_object_add(o, "from", json_u64(start));
		json_object_object_add(o, "up_to", json_u64(stop));
		json_object_object_add(o, "since_s", json_u64(loss->since_s));
		json_object_array_add(losses->list, o);
	}
	losses->any = true;
}

/* A line for each run of lost lines. */
static void loss_put(struct losses *losses, const struct umbra_loss *loss)
{
	static char path[64 * 1024];
	bool named = loss->path_len && loss->path_len != UMBRA_OWNER_PATH_LONG;
	unsigned from, end;

	ctl_path_text(loss->path, named ? loss->path_len : 0, path, sizeof(path));
	for (from = 0; from < BLOCK_LINES; from = end) {
		end = from + 1;
		if (!(loss->lost_lines >> from & 1))
			continue;
		while (end < BLOCK_LINES && (loss->lost_lines >> end & 1))
			end++;
		range_put(losses, loss, named ? path : NULL, from, end);
	}
}

/* 0 or an errno. */
static int list_all(struct losses *losses, int fd)
{
	struct umbra_losses *page = calloc(1, sizeof(*page));
	int rc = page ? 0 : ENOMEM;

	while (rc == 0) {
		size_t at = 0;

		if (ioctl(fd, UMBRA_IOC_LOSSES, page))
			rc = errno;
		if (rc || page->count == 0)
			break;
		for (uint32_t i = 0; i < page->count && at < sizeof(page->data); i++) {
			const struct umbra_loss *loss = (const void *)(page->data + at);

			loss_put(losses, loss);
			at += loss->record_size;
		}
	}
	free(page);
	return rc;
}

int ctl_losses(int argc, char **argv)
{
	struct ctl_args args = { .usage = usage, .min = 1, .max = 1 };
	struct losses losses = { .json = false };
	int rc = ctl_parse(&args, argc, argv), fd;

	if (rc)
		return rc < 0 ? 0 : rc;
	fd = ctl_open(args.names[0], O_RDONLY);
	if (fd < 0)
		return STATUS_FAILED;
	losses.json = args.json;
	losses.list = json_object_new_array();
	rc = list_all(&losses, fd);
	close(fd);
	if (rc == EPERM)
		rc = ctl_say(args.names[0], "only root and the user who mounted it may list losses");
	else if (rc)
		rc = ctl_fail(args.names[0], rc);
	if (rc) {
		json_object_put(losses.list);
		return rc;
	}
	if (args.json) {
		rc = ctl_print_json(losses.list);
	} else {
		json_object_put(losses.list);
		rc = ctl_finish();
	}
	return rc ? rc : losses.any ? STATUS_LOST : 0;
}
