/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * umbractl shadows: who has which pieces of which files mapped directly.
 */
#include "ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

static const char usage[] =
	"usage: umbractl shadows [--pid N] [--range START[+LENGTH]] [--json] PATH\n"
	"Lists what processes have mapped directly of files of the mounted umbrafs that PATH is on, of PATH alone if it is a file: process, session,\n"
	"inode, offset in the file, offset on the device, length (all in bytes) and flags: write (may be stored to), hole (reads as zero), orphan (its\n"
	"session has ended without a word, or does not answer). For root and the user who mounted.\n"
	"  -p, --pid N       only those of that process\n"
	"  -r, --range START[+LENGTH]   only those on these bytes of the device; LENGTH is one block if it is not given\n";

struct shadows {
	bool json;
	uint64_t count;
	struct json_object *list;
	struct umbra_shadows page;
};

static bool range_parse(const char *text, uint64_t *off, uint64_t *len)
{
	const char *plus = strchr(text, '+');
	char start[64];
	size_t start_len = plus ? (size_t)(plus - text) : strlen(text);

	*len = 4096;
	if (start_len >= sizeof(start))
		return false;
	memcpy(start, text, start_len);
	start[start_len] = '\0';
	return args_size(start, off) && (!plus || args_size(plus + 1, len)) && *len > 0 &&
	       *off <= UINT64_MAX - *len;
}

static int take(void *arg, int letter, const char *value)
{
	struct shadows *s = arg;
	char *end;
	unsigned long pid;

	if (letter == 'r') {
		uint64_t off, len;

		if (!range_parse(value, &off, &len)) {
			fprintf(stderr, "umbractl shadows: --range %s: must be START[+LENGTH], in bytes\n",
				value);
			return STATUS_USAGE;
		}
		s->page.dev_off = off;
		s->page.len = len;
		return 0;
	}
	pid = strtoul(value, &end, 10);
	if (*value < '1' || *value > '9' || *end || pid > INT32_MAX) {
		fprintf(stderr, "umbractl shadows: --pid %s: must be the number of a process\n", value);
		return STATUS_USAGE;
	}
	s->page.pid = (uint32_t)pid;
	return 0;
}

static void shadow_put(struct shadows *s, const struct umbra_shadow *shadow)
{
	static const char *const names[] = { "write", "hole", "orphan" };
	struct json_object *o, *flags = json_object_new_array();
	char text[32] = "";

	for (unsigned i = 0; i < 3; i++) {
		size_t len = strlen(text);

		if (!(shadow->flags >> i & 1))
			continue;
		snprintf(text + len, sizeof(text) - len, "%s%s", len ? "," : "", names[i]);
		json_object_array_add(flags, json_object_new_string(names[i]));
	}
	if (!s->json) {
		if (s->count++ == 0)
			printf("%8s %8s %10s %14s %14s %14s  %s\n", "PID", "SESSION", "INODE", "FILE",
			       "DEVICE", "LENGTH", "FLAGS");
		printf("%8u %8llu %10llu %#14llx %#14llx %#14llx  %s\n", shadow->pid,
		       (unsigned long long)shadow->session, (unsigned long long)shadow->ino,
		       (unsigned long long)shadow->file_off, (unsigned long long)shadow->dev_off,
		       (unsigned long long)shadow->len, text);
		json_object_put(flags);
		return;
	}
	o = json_object_new_object();
	json_object_object_add(o, "pid", json_u64(shadow->pid));
	json_object_object_add(o, "session", json_u64(shadow->session));
	json_object_object_add(o, "ino", json_u64(shadow->ino));
	json_object_object_add(o, "file_off", json_u64(shadow->file_off));
	json_object_object_add(o, "dev_off", json_u64(shadow->dev_off));
	json_object_object_add(o, "len", json_u64(shadow->len));
	json_object_object_add(o, "flags", flags);
	json_object_array_add(s->list, o);
}

/* 0 or an errno. */
static int list_all(struct shadows *s, int fd)
{
	do {
		s->page.count = 0;
		if (ioctl(fd, UMBRA_IOC_SHADOWS, &s->page))
			return errno;
		for (uint32_t i = 0; i < s->page.count; i++)
			shadow_put(s, &s->page.shadows[i]);
	} while (s->page.count > 0);
	return 0;
}

int ctl_shadows(int argc, char **argv)
{
	static const struct option longs[] = { { "pid", required_argument, NULL, 'p' },
					       { "range", required_argument, NULL, 'r' },
					       { NULL, 0, NULL, 0 } };
	static struct shadows s;
	struct ctl_args args = {
		.usage = usage,
		.letters = "p:r:",
		.longs = longs,
		.take = take,
		.arg = &s,
		.min = 1,
		.max = 1,
	};
	int rc = ctl_parse(&args, argc, argv), fd;
	struct stat st;

	if (rc)
		return rc < 0 ? 0 : rc;
	fd = ctl_open(args.names[0], O_RDONLY);
	if (fd < 0)
		return STATUS_FAILED;
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
		s.page.ino = st.st_ino;
	s.json = args.json;
	s.list = json_object_new_array();
	rc = list_all(&s, fd);
	close(fd);
	if (rc == 0 && args.json)
		return ctl_print_json(s.list);
	json_object_put(s.list);
	if (rc == EPERM)
		return ctl_say(args.names[0], "only root and the user who mounted it may list mappings");
	return rc ? ctl_fail(args.names[0], rc) : ctl_finish();
}
