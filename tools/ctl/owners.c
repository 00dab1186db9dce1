/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * umbractl owners: who dies if a range of the device dies, one by one and in figures.
 */
#include "blast.h"
#include "ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static const char usage[] =
	"usage: umbractl owners [--json] [--summary] [--range START[+LENGTH]] MOUNT\n"
	"Lists the owners of a range of the device: every file with path and offset, and metadata by name; then what would be hit if that memory\n"
	"failed: how many files, how much data and metadata. START and LENGTH in bytes, decimal or 0x..., with K, M, G, T if you like; without\n"
	"LENGTH one block. Without --range: the whole device.\n"
	"  -s, --summary  only what would be hit, in figures\n"
	"For root and the user who mounted.\n";

#define PROGRESS_MS 200
#define BLOCK_BYTES 4096u

static const char *const kinds[] = {
	[UMBRA_OWNER_FILE] = "file",       [UMBRA_OWNER_TREE] = "tree",   [UMBRA_OWNER_SUPER] = "superblock",
	[UMBRA_OWNER_JOURNAL] = "journal", [UMBRA_OWNER_GROUP] = "group", [UMBRA_OWNER_META] = "metadata",
	[UMBRA_OWNER_MIRROR] = "mirror",   [UMBRA_OWNER_BAD] = "bad",     [UMBRA_OWNER_REMAP] = "remap",
	[UMBRA_OWNER_FORWARD] = "forward", [UMBRA_OWNER_SPARE] = "spare",
};

struct owners {
	uint64_t off, len;
	bool ranged, json, summary, any;
	struct blast blast;
	uint64_t told_ms; /* when progress was shown last; 0: not yet */
};

static int take(void *arg, int letter, const char *value)
{
	struct owners *owners = arg;
	char *copy = strdup(value ? value : ""), *plus = copy ? strchr(copy, '+') : NULL;
	bool ok = copy != NULL;

	if (letter == 's') {
		owners->summary = true;
		free(copy);
		return 0;
	}
	if (plus)
		*plus++ = '\0';
	owners->len = 4096;
	ok = ok && args_size(copy, &owners->off) &&
	     (!plus || (args_size(plus, &owners->len) && owners->len > 0));
	free(copy);
	if (!ok)
		fprintf(stderr, "umbractl owners: --range %s: must be START or START+LENGTH\n", value);
	owners->ranged = true;
	return ok ? 0 : STATUS_USAGE;
}

static void owner_put(struct owners *owners, const struct umbra_owner *owner)
{
	static char path[64 * 1024];
	const char *kind = owner->kind < sizeof(kinds) / sizeof(kinds[0]) ? kinds[owner->kind] : "unknown";
	bool too_long = owner->path_len == UMBRA_OWNER_PATH_LONG, named = owner->path_len && !too_long;
	struct json_object *o;

	if (!kind)
		kind = "unknown";
	ctl_path_text(owner->path, named ? owner->path_len : 0, path, sizeof(path));
	if (!owners->json) {
		if (!owners->any)
			printf("%16s %16s  %-10s %16s  %s\n", "DEVICE", "LENGTH", "OWNER", "FILE OFFSET",
			       "PATH");
		printf("%#16llx %#16llx  %-10s", (unsigned long long)owner->dev_off,
		       (unsigned long long)owner->len, kind);
		if (owner->kind == UMBRA_OWNER_FILE)
			printf(" %#16llx  %s (inode %llu)", (unsigned long long)owner->file_off,
			       named    ? path :
			       too_long ? "path too long" :
					  "no name",
			       (unsigned long long)owner->ino);
		printf("\n");
		owners->any = true;
		return;
	}
	o = json_object_new_object();
	json_object_object_add(o, "dev_off", json_u64(owner->dev_off));
	json_object_object_add(o, "len", json_u64(owner->len));
	json_object_object_add(o, "kind", json_object_new_string(kind));
	if (owner->kind == UMBRA_OWNER_FILE) {
		json_object_object_add(o, "ino", json_u64(owner->ino));
		json_object_object_add(o, "file_off", json_u64(owner->file_off));
		json_object_object_add(o, "path", named ? json_object_new_string(path) : NULL);
		if (too_long)
			json_object_object_add(o, "path_too_long", json_object_new_boolean(true));
	}
	/* One by one, since there may be millions. */
	printf("%s\n    %s", owners->any ? "," : "[",
	       json_object_to_json_string_ext(o, JSON_C_TO_STRING_SPACED | JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(o);
	owners->any = true;
}

/* On a terminal that does not show the list. */
static void progress_show(struct owners *owners, uint64_t dev_off)
{
	struct timespec now;
	uint64_t ms;

	if (!isatty(STDERR_FILENO) || (!owners->summary && isatty(STDOUT_FILENO)))
		return;
	clock_gettime(CLOCK_MONOTONIC, &now);
	ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
	if (owners->told_ms == 0)
		owners->told_ms = ms; /* nothing for what is over at once */
	if (ms - owners->told_ms < PROGRESS_MS)
		return;
	owners->told_ms = ms;
	fprintf(stderr, "\rowners: %3.0f %% ", 100.0 * (double)(dev_off - owners->off) / (double)owners->len);
}

/* 0 or an errno. */
static int list_all(struct owners *owners, int fd)
{
	struct umbra_owners *page = calloc(1, sizeof(*page));
	int rc = page ? 0 : ENOMEM;

	while (rc == 0) {
		size_t at = 0;

		page->dev_off = owners->off;
		page->len = owners->len;
		page->flags = owners->summary ? UMBRA_OWNERS_NO_PATHS : 0;
		if (ioctl(fd, UMBRA_IOC_OWNERS, page)) {
			rc = errno;
			break;
		}
		if (page->count == 0)
			break;
		for (uint32_t i = 0; i < page->count && at < sizeof(page->data) && rc == 0; i++) {
			const struct umbra_owner *owner = (const void *)(page->data + at);

			if (i == 0)
				progress_show(owners, owner->dev_off);
			if (!owners->summary)
				owner_put(owners, owner);
			rc = blast_add(&owners->blast, owner);
			at += owner->record_size;
		}
	}
	if (isatty(STDERR_FILENO) && owners->told_ms != 0)
		fprintf(stderr, "\r              \r");
	free(page);
	return rc;
}

static int all_print(struct owners *owners, int fd)
{
	struct json_object *summary;
	int rc;

	/* Blocks have owners, not bytes. */
	owners->len += owners->off % BLOCK_BYTES;
	owners->off -= owners->off % BLOCK_BYTES;
	owners->len = (owners->len + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
	owners->blast.off = owners->off;
	owners->blast.len = owners->len;
	rc = list_all(owners, fd);
	if (rc)
		return rc;
	if (!owners->json) {
		if (owners->any)
			printf("\n");
		blast_print(&owners->blast);
		return 0;
	}
	summary = blast_json(&owners->blast);
	if (owners->summary)
		return ctl_print_json(summary);
	/* An element of the list, so that who goes through it by kind need not know. */
	printf("%s\n    %s\n]\n", owners->any ? "," : "[",
	       json_object_to_json_string_ext(summary, JSON_C_TO_STRING_SPACED));
	json_object_put(summary);
	return 0;
}

int ctl_owners(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "range", required_argument, NULL, 'r' },
		{ "summary", no_argument, NULL, 's' },
		{ NULL, 0, NULL, 0 },
	};
	struct owners owners = { .off = 0 };
	struct ctl_args args = {
		.usage = usage,
		.letters = "r:s",
		.longs = longs,
		.take = take,
		.arg = &owners,
		.min = 1,
		.max = 1,
	};
	struct umbra_info info;
	int rc = ctl_parse(&args, argc, argv), fd;

	if (rc)
		return rc < 0 ? 0 : rc;
	fd = ctl_open(args.names[0], O_RDONLY);
	if (fd < 0)
		return STATUS_FAILED;
	rc = ioctl(fd, UMBRA_IOC_INFO, &info) ? errno : 0;
	if (rc == 0 && !owners.ranged)
		owners.len = info.size;
	if (rc == 0 && (owners.off >= info.size || owners.len > info.size - owners.off)) {
		fprintf(stderr, "umbractl: --range: leaves the device, which has %llu bytes\n",
			(unsigned long long)info.size);
		close(fd);
		return STATUS_FAILED;
	}
	owners.json = args.json;
	if (rc == 0)
		rc = all_print(&owners, fd);
	close(fd);
	blast_free(&owners.blast);
	if (rc == EPERM)
		return ctl_say(args.names[0], "only root and the user who mounted it may list owners");
	return rc ? ctl_fail(args.names[0], rc) : ctl_finish();
}
