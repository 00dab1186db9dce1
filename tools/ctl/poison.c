/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * umbractl poison: bad memory, as the pool knows it.
 */
#include "ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define BLOCK_BYTES 4096ull

static const char usage[] =
	"usage: umbractl poison [--json] list MOUNT\n"
	"       umbractl poison add START[+LENGTH] MOUNT\n"
	"list: the ranges of the device that are out of use since their memory is bad.\n"
	"add: takes a range out of use by hand, readable or not. Files and metadata in it move; what cannot be read is lost, which\n"
	"`umbractl losses` tells. START and LENGTH in bytes, whole blocks of 4096, with K, M, G, T if you like; without LENGTH one block.\n"
	"For root and the user who mounted.\n";

/* ---- list ---- */

struct bad_list {
	bool json, any;
	uint64_t off, end; /* run so far */
	struct json_object *list;
};

static void run_put(struct bad_list *bad)
{
	struct json_object *o;

	if (bad->off == bad->end)
		return;
	if (bad->json) {
		o = json_object_new_object();
		json_object_object_add(o, "dev_off", json_u64(bad->off));
		json_object_object_add(o, "len", json_u64(bad->end - bad->off));
		json_object_array_add(bad->list, o);
	} else {
		if (!bad->any)
			printf("%16s %16s\n", "DEVICE", "LENGTH");
		printf("%#16llx %16llu\n", (unsigned long long)bad->off,
		       (unsigned long long)(bad->end - bad->off));
	}
	bad->any = true;
	bad->off = bad->end;
}

static void owner_take(struct bad_list *bad, const struct umbra_owner *owner)
{
	if (owner->kind != UMBRA_OWNER_BAD)
		return;
	if (owner->dev_off != bad->end) {
		run_put(bad);
		bad->off = owner->dev_off;
	}
	bad->end = owner->dev_off + owner->len;
}

/* 0 or an errno. */
static int list_all(struct bad_list *bad, int fd, uint64_t size)
{
	struct umbra_owners *page = calloc(1, sizeof(*page));
	int rc = page ? 0 : ENOMEM;

	while (rc == 0) {
		size_t at = 0;

		page->dev_off = 0;
		page->len = size;
		if (ioctl(fd, UMBRA_IOC_OWNERS, page))
			rc = errno;
		if (rc || page->count == 0)
			break;
		for (uint32_t i = 0; i < page->count && at < sizeof(page->data); i++) {
			const struct umbra_owner *owner = (const void *)(page->data + at);

			owner_take(bad, owner);
			at += owner->record_size;
		}
	}
	run_put(bad);
	free(page);
	return rc;
}

static int list(const struct ctl_args *args, int fd)
{
	struct bad_list bad = { .json = args->json, .list = json_object_new_array() };
	struct umbra_info info;
	int rc = ioctl(fd, UMBRA_IOC_INFO, &info) ? errno : 0;

	if (rc == 0)
		rc = list_all(&bad, fd, info.size);
	if (rc == 0 && args->json)
		return ctl_print_json(bad.list);
	json_object_put(bad.list);
	return rc ? rc : ctl_finish();
}

/* ---- add ---- */

static bool range_parse(const char *text, uint64_t *off, uint64_t *len)
{
	char *copy = strdup(text), *plus = copy ? strchr(copy, '+') : NULL;
	bool ok = copy != NULL;

	if (plus)
		*plus++ = '\0';
	*len = BLOCK_BYTES;
	ok = ok && args_size(copy, off) && (!plus || (args_size(plus, len) && *len > 0));
	free(copy);
	return ok && *off % BLOCK_BYTES == 0 && *len % BLOCK_BYTES == 0;
}

static int add(const struct ctl_args *args, int fd, uint64_t off, uint64_t len)
{
	uint64_t done = 0;

	while (done < len) {
		struct umbra_poison arg = { .op = UMBRA_POISON_ADD, .off = off + done };

		arg.len = len - done < UMBRA_POISON_MAX ? len - done : UMBRA_POISON_MAX;
		if (ioctl(fd, UMBRA_IOC_POISON, &arg))
			return errno;
		done += arg.done;
		if (arg.error) {
			fprintf(stderr, "umbractl: %s: the block at %#llx cannot be taken out of use: %s\n",
				args->names[2], (unsigned long long)(off + done), strerror((int)arg.error));
			return -1;
		}
	}
	if (args->json)
		printf("{ \"taken_out_bytes\": %llu }\n", (unsigned long long)done);
	else
		printf("%llu bytes are out of use\n", (unsigned long long)done);
	return ctl_finish() ? -1 : 0;
}

int ctl_poison(int argc, char **argv)
{
	struct ctl_args args = { .usage = usage, .min = 2, .max = 3 };
	int rc = ctl_parse(&args, argc, argv), fd;
	uint64_t off = 0, len = 0;
	const char *mount;
	bool adding;

	if (rc)
		return rc < 0 ? 0 : rc;
	adding = strcmp(args.names[0], "add") == 0;
	if ((!adding && strcmp(args.names[0], "list") != 0) || args.names_count != (adding ? 3 : 2)) {
		fprintf(stderr, "umbractl poison: must be 'list MOUNT' or 'add RANGE MOUNT' (try --help)\n");
		return STATUS_USAGE;
	}
	if (adding && !range_parse(args.names[1], &off, &len)) {
		fprintf(stderr,
			"umbractl poison: %s: must be START or START+LENGTH, whole blocks of 4096 bytes\n",
			args.names[1]);
		return STATUS_USAGE;
	}
	mount = args.names[args.names_count - 1];
	fd = ctl_open(mount, O_RDONLY);
	if (fd < 0)
		return STATUS_FAILED;
	rc = adding ? add(&args, fd, off, len) : list(&args, fd);
	close(fd);
	if (rc == EPERM)
		return ctl_say(mount, "only root and the user who mounted it may do that");
	if (rc == EINVAL && adding)
		return ctl_say(mount, "the range leaves the device");
	return rc < 0 ? STATUS_FAILED : rc ? ctl_fail(mount, rc) : 0;
}
