/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Lines of mountinfo: 36 35 0:45 /folder /mnt rw - fuse.umbrafs /dev/dax0.0 rw. Fields have \040 for what would end them.
 *
 * A mount is asked for the name of its pool, but not those of others: while one is asked it cannot be unmounted, and who serves it may be slow. So it has the same source, or a socket with the
 * names of both.
 */
#include "client/home.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <umbra/ioctl.h>

#include "client/memory.h"

#define MOUNTS "/proc/thread-self/mountinfo" /* the process has none once its main thread has ended */

struct line {
	dev_t dev;
	char *root, *at, *type, *source;
};

static bool is_octal(char c)
{
	return c >= '0' && c <= '7';
}

/* In place. (sscanf() needs a fourth of a small stack.) */
static void unescape(char *text)
{
	char *to = text;

	for (const char *from = text; *from; to++) {
		if (from[0] == '\\' && is_octal(from[1]) && is_octal(from[2]) && is_octal(from[3])) {
			*to = (char)((from[1] - '0') * 64 + (from[2] - '0') * 8 + (from[3] - '0'));
			from += 4;
		} else {
			*to = *from++;
		}
	}
	*to = '\0';
}

static bool line_parse(char *text, struct line *line)
{
	char *rest = NULL, *word, *colon;
	unsigned field = 0;
	bool after = false;

	*line = (struct line){ 0 };
	for (word = strtok_r(text, " \n", &rest); word; word = strtok_r(NULL, " \n", &rest), field++) {
		if (field == 2 && (colon = strchr(word, ':')))
			line->dev = makedev((unsigned)strtoul(word, NULL, 10),
					    (unsigned)strtoul(colon + 1, NULL, 10));
		else if (field == 3)
			line->root = word;
		else if (field == 4)
			line->at = word;
		else if (after && !line->type)
			line->type = word;
		else if (after && !line->source)
			line->source = word;
		else if (field > 5 && strcmp(word, "-") == 0)
			after = true;
	}
	if (!line->source)
		return false;
	unescape(line->root);
	unescape(line->at);
	unescape(line->source);
	/* The whole of it is "", so that a path can follow. */
	if (strcmp(line->root, "/") == 0)
		line->root[0] = '\0';
	return true;
}

/* Not on the stack, which may be a small one for signals. */
static int uuid_of(int fd, uint8_t uuid[16])
{
	struct umbra_info *info = memory_get(sizeof(*info));
	int rc = 0;

	if (!info)
		return -ENOMEM;
	if (ioctl(fd, UMBRA_IOC_INFO, info))
		rc = -errno;
	else
		memcpy(uuid, info->uuid, sizeof(info->uuid));
	memory_put(info);
	return rc;
}

int home_has(const struct home *home, int fd)
{
	uint8_t uuid[16];
	int rc = uuid_of(fd, uuid);

	/* Another kind of file system, which knows no such call. */
	if (rc == -ENOTTY || rc == -EINVAL || rc == -EOPNOTSUPP)
		return 0;
	return rc ? rc : memcmp(uuid, home->uuid, sizeof(uuid)) == 0;
}

static void point_add(struct home *home, const struct line *line)
{
	char *root = strdup(line->root), *at = strdup(line->at);

	if (!home->source)
		home->source = strdup(line->source);
	if (!root || !at) {
		free(root);
		free(at);
		return;
	}
	home->points[home->count].root = root;
	home->points[home->count++].at = at;
}

struct home *home_of(int fd, dev_t dev)
{
	struct home *home = calloc(1, sizeof(*home));
	FILE *mounts = NULL;
	char *text = NULL;
	size_t size = 0;
	struct line line;

	if (!home || uuid_of(fd, home->uuid)) {
		free(home);
		return NULL;
	}
	mounts = fopen(MOUNTS, "re");
	while (mounts && home->count < HOME_POINTS_MAX && getline(&text, &size, mounts) > 0)
		if (line_parse(text, &line) && line.dev == dev)
			point_add(home, &line);
	free(text);
	if (mounts)
		fclose(mounts);
	return home;
}

/* As a daemon names it if it is not told otherwise. */
static bool has_socket(const struct home *home, dev_t dev)
{
	const uint8_t *u = home->uuid;
	char name[64], path[128];
	struct stat st;

	snprintf(name, sizeof(name),
		 "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x-%u", u[0], u[1], u[2],
		 u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15],
		 minor(dev));
	snprintf(path, sizeof(path), "/run/umbrafs/%s", name);
	if (lstat(path, &st) == 0)
		return true;
	snprintf(path, sizeof(path), "/run/user/%u/umbrafs/%s", (unsigned)geteuid(), name);
	return lstat(path, &st) == 0;
}

/* Its folder; -1: it is not of the pool, or does not answer. */
static int mount_open(const struct home *home, const struct line *line)
{
	int dir = open(line->at, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct stat st;

	if (dir < 0)
		return -1;
	/* Another one may be mounted over it. */
	if (home_has(home, dir) > 0 && fstat(dir, &st) == 0 && st.st_dev == line->dev)
		return dir;
	close(dir);
	return -1;
}

int home_next(const struct home *home, home_fn fn, void *arg)
{
	FILE *mounts = fopen(MOUNTS, "re");
	int rc = -ENOTCONN, said = -1; /* the folder of who has said that */
	char *text = NULL;
	size_t size = 0;
	struct line line;

	while (rc && mounts && getline(&text, &size, mounts) > 0) {
		int dir, failed;

		if (!line_parse(text, &line) || strcmp(line.type, "fuse.umbrafs") != 0 ||
		    (!(home->source && strcmp(home->source, line.source) == 0) &&
		     !has_socket(home, line.dev)))
			continue;
		dir = mount_open(home, &line);
		failed = dir < 0 ? -ENOTCONN : fn(arg, dir, line.root);
		if (failed != -ENOTCONN) {
			int before = said;

			rc = failed;
			said = dir;
			dir = before;
		}
		if (dir >= 0)
			close(dir);
	}
	/* If its daemon has ended meanwhile others of its places could not be asked any more. */
	if (rc && said >= 0 && home_has(home, said) <= 0)
		rc = -ENOTCONN;
	if (said >= 0)
		close(said);
	free(text);
	if (mounts)
		fclose(mounts);
	return rc;
}
