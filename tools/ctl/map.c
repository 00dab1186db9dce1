/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * umbractl map: where a file lies on the device, and with how many others it shares that.
 */
#include "ctl.h"
#include "quality.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

static const char usage[] =
	"usage: umbractl map [--json] [--quality] FILE\n"
	"Lists the pieces of FILE: offset in the file, offset on the device, length (all in bytes), how many owners the blocks\n"
	"have, and flags: shared, unwritten (reads as zero), inline (in the inode), bad (in bad memory that the file could not leave).\n"
	"Holes are left out.\n"
	"  -q, --quality   which parts of it can be mapped by pages of 2 MiB, and why others cannot\n";

struct map {
	bool json, wants_quality;
	struct quality_sum quality;
	struct json_object *list;
	uint64_t pieces, bytes, shared;
};

static void flag_add(struct json_object *flags, char *text, size_t size, const char *name)
{
	size_t len = strlen(text);

	snprintf(text + len, size - len, "%s%s", len ? "," : "", name);
	json_object_array_add(flags, json_object_new_string(name));
}

static void piece_put(struct map *map, const struct umbra_extent *e)
{
	struct json_object *flags = json_object_new_array(), *o;
	char text[64] = "";

	if (e->flags & UMBRA_EXTENT_SHARED)
		flag_add(flags, text, sizeof(text), "shared");
	if (e->flags & UMBRA_EXTENT_UNWRITTEN)
		flag_add(flags, text, sizeof(text), "unwritten");
	if (e->flags & UMBRA_EXTENT_INLINE)
		flag_add(flags, text, sizeof(text), "inline");
	if (e->flags & UMBRA_EXTENT_BAD)
		flag_add(flags, text, sizeof(text), "bad");
	map->pieces++;
	map->bytes += e->len;
	if (e->flags & UMBRA_EXTENT_SHARED)
		map->shared += e->len;
	if (!map->json) {
		if (map->pieces == 1)
			printf("%16s %16s %16s %7s  %s\n", "FILE", "DEVICE", "LENGTH", "OWNERS", "FLAGS");
		printf("%#16llx %#16llx %#16llx %7u  %s\n", (unsigned long long)e->file_off,
		       (unsigned long long)e->dev_off, (unsigned long long)e->len, e->owners, text);
		json_object_put(flags);
		return;
	}
	o = json_object_new_object();
	json_object_object_add(o, "file_off", json_u64(e->file_off));
	json_object_object_add(o, "dev_off", json_u64(e->dev_off));
	json_object_object_add(o, "len", json_u64(e->len));
	json_object_object_add(o, "owners", json_u64(e->owners));
	json_object_object_add(o, "flags", flags);
	json_object_array_add(map->list, o);
}

/* 0 or an errno. */
static int map_all(struct map *map, int fd)
{
	struct umbra_extents *page = calloc(1, sizeof(*page));
	bool last = false;
	int rc = page ? 0 : ENOMEM;

	while (rc == 0 && !last) {
		page->count = 0;
		page->flags = 0;
		if (ioctl(fd, UMBRA_IOC_EXTENTS, page)) {
			rc = errno;
			break;
		}
		for (uint32_t i = 0; i < page->count; i++)
			if (map->wants_quality)
				quality_add(&map->quality, &page->extents[i]);
			else
				piece_put(map, &page->extents[i]);
		last = page->count == 0 || (page->extents[page->count - 1].flags & UMBRA_EXTENT_LAST);
		if (!last)
			page->off =
				page->extents[page->count - 1].file_off + page->extents[page->count - 1].len;
	}
	free(page);
	return rc;
}

static int option_take(void *arg, int letter, const char *value)
{
	struct map *map = arg;

	(void)letter;
	(void)value;
	map->wants_quality = true;
	return 0;
}

int ctl_map(int argc, char **argv)
{
	static const struct option longs[] = { { "quality", no_argument, NULL, 'q' }, { 0 } };
	struct map map = { .list = NULL };
	struct ctl_args args = { .usage = usage,
				 .letters = "q",
				 .longs = longs,
				 .take = option_take,
				 .arg = &map,
				 .min = 1,
				 .max = 1 };
	char size[ARGS_SIZE_TEXT], shared[ARGS_SIZE_TEXT];
	struct stat st;
	int rc = ctl_parse(&args, argc, argv), fd;

	if (rc)
		return rc < 0 ? 0 : rc;
	fd = ctl_open(args.names[0], O_RDONLY);
	if (fd < 0)
		return STATUS_FAILED;
	rc = fstat(fd, &st) ? errno : 0;
	if (rc == 0 && !S_ISREG(st.st_mode)) {
		close(fd);
		return ctl_say(args.names[0], "is not a regular file");
	}
	map.quality.size = rc == 0 ? (uint64_t)st.st_size : 0;
	map.json = args.json;
	map.list = json_object_new_array();
	if (rc == 0)
		rc = fsync(fd) ? errno : map_all(&map, fd);
	if (rc == 0)
		rc = quality_end(&map.quality);
	close(fd);
	if (rc || map.wants_quality)
		json_object_put(map.list);
	if (rc) {
		free(map.quality.runs);
		return ctl_fail(args.names[0], rc);
	}
	if (map.wants_quality)
		return quality_print(&map.quality, map.json);
	free(map.quality.runs);
	if (map.json)
		return ctl_print_json(map.list);
	json_object_put(map.list);
	printf("%llu piece%s, %s, of which %s shared\n", (unsigned long long)map.pieces,
	       map.pieces == 1 ? "" : "s", args_size_text(map.bytes, size, sizeof(size)),
	       args_size_text(map.shared, shared, sizeof(shared)));
	return ctl_finish();
}
