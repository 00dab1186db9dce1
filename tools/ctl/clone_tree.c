/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A tree of directories. Root hands whole batches of files to the daemon by inode number (which readdir gives: no file is opened or even
 * looked up); others clone each file by a token, so that the kernel checks their rights.
 *
 * A directory is filled while its mode is 0700 and gets owner, mode and times when it is done.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "clone.h"
#include "ctl.h"

#define DEPTH_MAX 4096
#define GETDENTS_SIZE (256 * 1024)

struct linux_dirent64_view {
	ino64_t ino;
	off64_t off;
	unsigned short len;
	unsigned char type;
	char name[];
};

struct level {
	struct clone *c;
	int src, dst;
	const char *path; /* of src, for messages */
	unsigned depth;
	struct umbra_clone_files *batch;
	/* Subdirectories, gone down into after the files: names one after the other. */
	char *subs;
	size_t subs_used, subs_size;
};

static void tree_at(struct clone *c, int src_dir, const char *src_name, int dst_dir, const char *dst_name,
		    const char *path, unsigned depth);

static void level_error(struct level *l, const char *name, size_t name_len, int error)
{
	char path[PATH_MAX + 256];

	snprintf(path, sizeof(path), "%s/%.*s", l->path, (int)name_len, name);
	clone_error(l->c, path, error);
}

static const struct umbra_clone_name *batch_name(const struct umbra_clone_files *batch, uint32_t index,
						 size_t *at)
{
	*at = 0;
	for (uint32_t i = 0; i < index; i++)
		*at += ((const struct umbra_clone_name *)(batch->data + *at))->record_size;
	return (const void *)(batch->data + *at);
}

/* Sends the batch; a file that cannot be cloned that way is cloned by itself. */
static void batch_send(struct level *l)
{
	struct umbra_clone_files *batch = l->batch;

	while (batch->count > 0) {
		const struct umbra_clone_name *failed;
		char name[256];
		uint32_t done = 0;
		size_t at, skip;
		int rc;

		rc = ioctl(l->dst, UMBRA_IOC_CLONE_FILES, batch) ? errno : 0;
		if (rc == 0) {
			done = batch->done;
			rc = (int)batch->error;
		}
		l->c->files += done;
		clone_progress(l->c, false);
		if (done >= batch->count)
			break;
		failed = batch_name(batch, done, &at);
		memcpy(name, failed->name, failed->name_len);
		name[failed->name_len] = '\0';
		skip = at + failed->record_size;
		if (rc != EEXIST && rc != ENOSPC && rc != EROFS)
			rc = clone_file(l->c, l->src, name, l->dst, name);
		if (rc)
			level_error(l, name, strlen(name), rc);
		memmove(batch->data, batch->data + skip, batch->size - skip);
		batch->size -= (uint32_t)skip;
		batch->count -= done + 1;
	}
	batch->count = 0;
	batch->size = 0;
}

static void batch_add(struct level *l, const struct linux_dirent64_view *d, size_t name_len)
{
	size_t size = (sizeof(struct umbra_clone_name) + name_len + 7) & ~(size_t)7;
	struct umbra_clone_name *record;

	if (size > sizeof(l->batch->data) - l->batch->size)
		batch_send(l);
	record = (void *)(l->batch->data + l->batch->size);
	memset(record, 0, size);
	record->ino = d->ino;
	record->record_size = (__u16)size;
	record->name_len = (__u16)name_len;
	memcpy(record->name, d->name, name_len);
	l->batch->size += (uint32_t)size;
	l->batch->count++;
}

static int clone_link(struct level *l, const char *name)
{
	char target[PATH_MAX];
	ssize_t n = readlinkat(l->src, name, target, sizeof(target) - 1);

	if (n < 0)
		return errno;
	target[n] = '\0';
	return symlinkat(target, l->dst, name) ? errno : 0;
}

/* Symlinks, devices, FIFOs, sockets. */
static int clone_other(struct level *l, const char *name, const struct stat *st)
{
	const struct timespec times[2] = { st->st_atim, st->st_mtim };
	int rc;

	if (S_ISLNK(st->st_mode))
		rc = clone_link(l, name);
	else
		rc = mknodat(l->dst, name, st->st_mode, st->st_rdev) ? errno : 0;
	if (rc)
		return rc;
	l->c->others++;
	if (fchownat(l->dst, name, st->st_uid, st->st_gid, AT_SYMLINK_NOFOLLOW) && errno != EPERM)
		return errno;
	if (!S_ISLNK(st->st_mode) && fchmodat(l->dst, name, st->st_mode & 07777, 0))
		return errno;
	return utimensat(l->dst, name, times, AT_SYMLINK_NOFOLLOW) ? errno : 0;
}

static int sub_add(struct level *l, const char *name, size_t name_len)
{
	if (l->subs_used + name_len + 1 > l->subs_size) {
		size_t size = l->subs_size ? l->subs_size * 2 : 4096;
		char *subs = realloc(l->subs, size);

		if (!subs)
			return ENOMEM;
		l->subs = subs;
		l->subs_size = size;
	}
	memcpy(l->subs + l->subs_used, name, name_len + 1);
	l->subs_used += name_len + 1;
	return 0;
}

static void entry(struct level *l, const struct linux_dirent64_view *d)
{
	size_t len = strlen(d->name);
	unsigned char type = d->type;
	struct stat st;
	int rc = 0;

	if (strcmp(d->name, ".") == 0 || strcmp(d->name, "..") == 0)
		return;
	if (type == DT_REG && l->c->batches) {
		batch_add(l, d, len);
		return;
	}
	if (type != DT_REG && type != DT_DIR) {
		rc = fstatat(l->src, d->name, &st, AT_SYMLINK_NOFOLLOW) ? errno : 0;
		if (rc == 0)
			type = (unsigned char)IFTODT(st.st_mode);
	}
	if (rc == 0 && type == DT_DIR)
		rc = sub_add(l, d->name, len);
	else if (rc == 0 && type == DT_REG)
		rc = clone_file(l->c, l->src, d->name, l->dst, d->name);
	else if (rc == 0)
		rc = clone_other(l, d->name, &st);
	if (rc)
		level_error(l, d->name, len, rc);
	clone_progress(l->c, false);
}

static int entries(struct level *l)
{
	char *buf = malloc(GETDENTS_SIZE);
	long n = -1;

	if (!buf)
		return ENOMEM;
	while ((n = syscall(SYS_getdents64, l->src, buf, GETDENTS_SIZE)) > 0)
		for (long at = 0; at < n;) {
			const struct linux_dirent64_view *d = (const void *)(buf + at);

			entry(l, d);
			at += d->len;
		}
	n = n < 0 ? errno : 0;
	free(buf);
	batch_send(l);
	return (int)n;
}

static void level_run(struct level *l, const struct stat *st)
{
	size_t at = 0;
	int rc;

	l->batch = calloc(1, sizeof(*l->batch));
	rc = l->batch ? entries(l) : ENOMEM;
	free(l->batch);
	if (rc)
		clone_error(l->c, l->path, rc);
	while (at < l->subs_used) {
		const char *name = l->subs + at;
		char *path;

		if (asprintf(&path, "%s/%s", l->path, name) >= 0) {
			tree_at(l->c, l->src, name, l->dst, name, path, l->depth + 1);
			free(path);
		}
		at += strlen(name) + 1;
	}
	free(l->subs);
	rc = clone_attributes(l->src, l->dst, st);
	if (rc)
		clone_error(l->c, l->path, rc);
}

static void tree_at(struct clone *c, int src_dir, const char *src_name, int dst_dir, const char *dst_name,
		    const char *path, unsigned depth)
{
	struct level l = { .c = c, .src = -1, .dst = -1, .path = path, .depth = depth };
	struct stat st;
	int rc = 0;

	l.src = openat(src_dir, src_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (l.src < 0 || fstat(l.src, &st)) {
		rc = errno;
	} else if (c->dst_root && st.st_ino == c->dst_root) {
		goto out; /* the clone itself */
	} else if (st.st_dev != c->dev) {
		rc = EXDEV;
	} else if (depth > DEPTH_MAX) {
		rc = ELOOP;
	} else if (mkdirat(dst_dir, dst_name, 0700)) {
		rc = errno;
	} else {
		l.dst = openat(dst_dir, dst_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		rc = l.dst < 0 ? errno : 0;
	}
	if (rc) {
		clone_error(c, path, rc);
		goto out;
	}
	if (depth == 0) {
		struct stat dst_st;

		if (fstat(l.dst, &dst_st) == 0)
			c->dst_root = dst_st.st_ino;
		/* Dirty pages of the sources' mappings become part of them. */
		if (syncfs(l.src))
			clone_error(c, path, errno);
	}
	c->dirs++;
	level_run(&l, &st);
out:
	if (l.src >= 0)
		close(l.src);
	if (l.dst >= 0)
		close(l.dst);
}

void clone_tree(struct clone *c, int src_dir, const char *src_name, int dst_dir, const char *dst_name,
		const char *path)
{
	tree_at(c, src_dir, src_name, dst_dir, dst_name, path, 0);
}
