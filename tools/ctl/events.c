/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * umbractl events: what bad memory has done since the mount, and with --follow what it does from now on.
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
#define POLL_MS 200

static const char usage[] =
	"usage: umbractl events [--json] [--follow] MOUNT\n"
	"Lists what bad memory has done since the mount: for each owner of a bad block its path, what of it is lost, and what became of it.\n"
	"  -f, --follow  goes on and prints events as they come, until interrupted\n"
	"  -j, --json    one JSON object a line\n"
	"For root and the user who mounted.\n";

static const char *const kinds[] = {
	[UMBRA_EVENT_LOST] = "lost",     [UMBRA_EVENT_MOVED] = "moved",   [UMBRA_EVENT_UNUSED] = "unused",
	[UMBRA_EVENT_PASSED] = "passed", [UMBRA_EVENT_META] = "metadata",
};

static const char *kind_text(uint16_t kind)
{
	return kind < sizeof(kinds) / sizeof(kinds[0]) && kinds[kind] ? kinds[kind] : "unknown";
}

static int take(void *arg, int letter, const char *value)
{
	(void)letter;
	(void)value;
	*(bool *)arg = true;
	return 0;
}

static void event_print(const struct umbra_event *event, const char *path)
{
	time_t when = (time_t)(event->time_ns / 1000000000);
	char text[32] = "";
	struct tm tm;

	if (localtime_r(&when, &tm))
		strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &tm);
	printf("%s  %#14llx  %-8s", text, (unsigned long long)event->dev_off, kind_text(event->kind));
	if (event->ino)
		printf("  %s (inode %llu)", path ? path : "no name", (unsigned long long)event->ino);
	if (event->kind == UMBRA_EVENT_LOST)
		printf(": %u bytes in the block at %llu",
		       (unsigned)__builtin_popcountll(event->lost_lines) * LINE_BYTES,
		       (unsigned long long)event->file_off);
	printf("\n");
}

static void event_print_json(const struct umbra_event *event, const char *path)
{
	struct json_object *o = json_object_new_object(), *lines;

	json_object_object_add(o, "number", json_u64(event->number));
	json_object_object_add(o, "time_ns", json_u64(event->time_ns));
	json_object_object_add(o, "kind", json_object_new_string(kind_text(event->kind)));
	json_object_object_add(o, "dev_off", json_u64(event->dev_off));
	if (event->ino) {
		json_object_object_add(o, "ino", json_u64(event->ino));
		json_object_object_add(o, "path", path ? json_object_new_string(path) : NULL);
		json_object_object_add(o, "file_off", json_u64(event->file_off));
		lines = json_object_new_array();
		for (unsigned i = 0; i < 64; i++)
			if (event->lost_lines >> i & 1)
				json_object_array_add(lines, json_object_new_int((int)i));
		json_object_object_add(o, "lost_lines", lines);
	}
	printf("%s\n",
	       json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(o);
}

static void page_print(const struct umbra_events *page, bool json)
{
	static char path[64 * 1024];
	size_t at = 0;

	if (page->missed)
		fprintf(stderr, "umbractl: %llu events are no longer kept\n",
			(unsigned long long)page->missed);
	for (uint32_t i = 0; i < page->count && at < sizeof(page->data); i++) {
		const struct umbra_event *event = (const void *)(page->data + at);
		bool named = event->path_len && event->path_len != UMBRA_OWNER_PATH_LONG;

		ctl_path_text(event->path, named ? event->path_len : 0, path, sizeof(path));
		(json ? event_print_json : event_print)(event, named ? path : NULL);
		at += event->record_size;
	}
}

/* 0 or an errno. */
static int list(int fd, bool json, bool follow)
{
	const struct timespec a_moment = { .tv_nsec = POLL_MS * 1000000L };
	struct umbra_events *page = calloc(1, sizeof(*page));
	int rc = page ? 0 : ENOMEM;

	while (rc == 0) {
		page->missed = 0;
		if (ioctl(fd, UMBRA_IOC_EVENTS, page)) {
			rc = errno;
			break;
		}
		page_print(page, json);
		if (args_stdout_failed())
			break;
		if (page->count == 0) {
			if (!follow)
				break;
			nanosleep(&a_moment, NULL);
		}
	}
	free(page);
	return rc;
}

int ctl_events(int argc, char **argv)
{
	static const struct option longs[] = { { "follow", no_argument, NULL, 'f' }, { NULL, 0, NULL, 0 } };
	bool follow = false;
	struct ctl_args args = {
		.usage = usage,
		.letters = "f",
		.longs = longs,
		.take = take,
		.arg = &follow,
		.min = 1,
		.max = 1,
	};
	int rc = ctl_parse(&args, argc, argv), fd;

	if (rc)
		return rc < 0 ? 0 : rc;
	fd = ctl_open(args.names[0], O_RDONLY);
	if (fd < 0)
		return STATUS_FAILED;
	setvbuf(stdout, NULL, _IOLBF, 0);
	rc = list(fd, args.json, follow);
	close(fd);
	if (rc == EPERM)
		return ctl_say(args.names[0], "only root and the user who mounted it may list events");
	return rc ? ctl_fail(args.names[0], rc) : ctl_finish();
}
