/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Steps as system calls.
 */
#include "steps.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <umbra/ioctl.h>

static uint8_t bytes[MODEL_SIZE_MAX + 1];

const char *place_path(unsigned worker, unsigned name)
{
	static char paths[2][300];
	static unsigned turn;
	char *path = paths[turn++ & 1];

	if (name % 2)
		snprintf(path, sizeof(paths[0]), "common/w%u-%u", worker, name);
	else
		snprintf(path, sizeof(paths[0]), "w%u/%s%u", worker,
			 name % 3 ? "f" : "a-file-that-has-quite-a-long-name-for-something-so-small-", name);
	return path;
}

static int result(int rc)
{
	return rc == -1 ? -errno : 0;
}

/* Writes all of it. The file system may be gone in the middle. */
static int write_all(int fd, const uint8_t *data, size_t len, off_t off)
{
	while (len > 0) {
		ssize_t n = off < 0 ? write(fd, data, len) : pwrite(fd, data, len, off);

		if (n < 0)
			return -errno;
		if (n == 0)
			return -ENOSPC;
		data += n;
		len -= (size_t)n;
		off += off < 0 ? 0 : n;
	}
	return 0;
}

/* ---- steps on an open file ---- */

static sigjmp_buf bus_env;

static void on_bus(int sig)
{
	(void)sig;
	siglongjmp(bus_env, 1);
}

static int mmap_write(int fd, const struct step *s)
{
	struct sigaction act = { .sa_handler = on_bus }, old;
	uint32_t start = s->off & ~(uint32_t)(MODEL_BLOCK - 1);
	uint8_t *map = mmap(NULL, s->off - start + s->len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, start);
	int rc;

	if (map == MAP_FAILED)
		return -errno;
	model_content(s->serial, bytes, s->len);
	sigaction(SIGBUS, &act, &old);
	if (sigsetjmp(bus_env, 1) == 0) {
		memcpy(map + (s->off - start), bytes, s->len);
		rc = result(msync(map, s->off - start + s->len, MS_SYNC));
	} else {
		rc = -EIO; /* pages of a file system that is gone */
	}
	sigaction(SIGBUS, &old, NULL);
	munmap(map, s->off - start + s->len);
	return rc;
}

static int alloc_range(int fd, const struct step *s, uint32_t mode)
{
	struct umbra_fallocate arg = { .off = s->off, .len = s->len, .mode = mode };

	if (mode & (FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE | FALLOC_FL_UNSHARE_RANGE))
		return result(ioctl(fd, UMBRA_IOC_FALLOCATE, &arg));
	return result(fallocate(fd, (int)mode, s->off, s->len));
}

/* A source is open for reading; *fd is the caller's to close. */
static int source_open(const char *path, int *fd, struct umbra_token *token)
{
	struct stat st;

	*fd = open(path, O_RDONLY | O_CLOEXEC);
	if (*fd == -1 || fstat(*fd, &st) == -1 || (token && ioctl(*fd, UMBRA_IOC_TOKEN, token) == -1))
		return -errno;
	return 0;
}

static int clone_range(int fd, const char *from, const struct step *s, uint32_t len)
{
	struct umbra_clone_range arg = { .src_off = s->src_off, .dst_off = s->off, .len = len };
	int src;
	int rc = source_open(from, &src, &arg.token);

	if (!rc)
		rc = result(ioctl(fd, UMBRA_IOC_CLONE_RANGE, &arg));
	if (src != -1)
		close(src);
	return rc;
}

static int dedupe_range(int fd, const struct step *s)
{
	struct umbra_dedupe_range arg = { .src_off = s->src_off, .dst_off = s->off, .len = s->len };
	int src;
	int rc = source_open("base", &src, &arg.token);

	if (!rc)
		rc = result(ioctl(fd, UMBRA_IOC_DEDUPE_RANGE, &arg));
	if (src != -1)
		close(src);
	return rc;
}

static int copy_range(int fd, const char *from, const struct step *s)
{
	off_t in = s->src_off, out = s->off;
	size_t left = s->len;
	int src;
	int rc = source_open(from, &src, NULL);

	while (!rc && left > 0) {
		ssize_t n = copy_file_range(src, &in, fd, &out, left, 0);

		if (n <= 0)
			rc = n ? -errno : -ENODATA;
		else
			left -= (size_t)n;
	}
	if (src != -1)
		close(src);
	return rc;
}

static int file_do(unsigned worker, int fd, const struct step *s)
{
	switch (s->kind) {
	case STEP_WRITE:
	case STEP_APPEND:
		model_content(s->serial, bytes, s->len);
		return write_all(fd, bytes, s->len, s->kind == STEP_APPEND ? -1 : (off_t)s->off);
	case STEP_TRUNCATE:
		return result(ftruncate(fd, s->len));
	case STEP_ALLOC:
		return alloc_range(fd, s, 0);
	case STEP_ALLOC_KEEP:
		return alloc_range(fd, s, FALLOC_FL_KEEP_SIZE);
	case STEP_PUNCH:
		return alloc_range(fd, s, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
	case STEP_ZERO:
		return alloc_range(fd, s, FALLOC_FL_ZERO_RANGE);
	case STEP_COLLAPSE:
		return alloc_range(fd, s, FALLOC_FL_COLLAPSE_RANGE);
	case STEP_INSERT:
		return alloc_range(fd, s, FALLOC_FL_INSERT_RANGE);
	case STEP_UNSHARE:
		return alloc_range(fd, s, FALLOC_FL_UNSHARE_RANGE);
	case STEP_CLONE:
		return clone_range(fd, place_path(worker, s->a), s, 0);
	case STEP_CLONE_RANGE:
		return clone_range(fd, place_path(worker, s->a), s, s->len);
	case STEP_CLONE_BASE:
		return clone_range(fd, "base", s, s->len);
	case STEP_COPY:
		return copy_range(fd, place_path(worker, s->a), s);
	case STEP_DEDUPE:
		return dedupe_range(fd, s);
	case STEP_MMAP:
		return mmap_write(fd, s);
	default:
		return result(fsync(fd));
	}
}

static int file_step(const struct place *p, const struct step *s)
{
	bool to_b = s->kind == STEP_CLONE || s->kind == STEP_CLONE_RANGE || s->kind == STEP_COPY;
	int fd = open(place_path(p->worker, to_b ? s->b : s->a),
		      O_RDWR | O_CLOEXEC | (s->kind == STEP_APPEND ? O_APPEND : 0));
	struct stat st;
	int rc;

	if (fd == -1)
		return -errno;
	rc = result(fstat(fd, &st)); /* the kernel asks how large it is now: see <umbra/ioctl.h> */
	if (!rc)
		rc = file_do(p->worker, fd, s);
	close(fd);
	return rc;
}

/* ---- steps on names ---- */

static int tmpfile_step(const struct place *p, const struct step *s)
{
	char self[40];
	int fd = open("common", O_TMPFILE | O_RDWR | O_CLOEXEC, s->which);
	int rc;

	if (fd == -1)
		return -errno;
	snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	model_content(s->serial, bytes, s->len);
	rc = write_all(fd, bytes, s->len, 0);
	if (!rc)
		rc = result(linkat(AT_FDCWD, self, AT_FDCWD, place_path(p->worker, s->a), AT_SYMLINK_FOLLOW));
	close(fd);
	return rc;
}

/* Some stay open, without a name, for a while. */
static int unlink_step(struct place *p, struct model *m, const struct step *s)
{
	const char *path = place_path(p->worker, s->a);

	if (model_object(m, s->a)->kind == OBJECT_DIR)
		return result(rmdir(path));
	if (s->serial % 4 == 0) {
		if (p->held != -1)
			close(p->held);
		p->held = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	}
	return result(unlink(path));
}

static int xattr_step(const struct place *p, const struct step *s)
{
	const char *path = place_path(p->worker, s->a);
	char name[20];

	snprintf(name, sizeof(name), "user.%u", s->which);
	if (s->kind == STEP_REMOVEXATTR)
		return result(removexattr(path, name));
	model_content(s->serial, bytes, s->len);
	return result(setxattr(path, name, bytes, s->len, 0));
}

int steps_run(struct place *p, struct model *m, const struct step *s)
{
	const char *a = place_path(p->worker, s->a);
	const char *b = place_path(p->worker, s->b);
	char target[MODEL_TARGET_MAX + 61];
	int fd;

	switch (s->kind) {
	case STEP_CREATE:
		fd = open(a, O_CREAT | O_EXCL | O_WRONLY, s->which);
		return fd == -1 ? -errno : (close(fd), 0);
	case STEP_TMPFILE:
		return tmpfile_step(p, s);
	case STEP_SYMLINK:
		model_target(s->serial, target);
		return result(symlink(target, a));
	case STEP_MKDIR:
		return result(mkdir(a, s->which));
	case STEP_RENAME:
		return result(rename(a, b));
	case STEP_EXCHANGE:
		return result(renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE));
	case STEP_LINK:
		return result(link(a, b));
	case STEP_UNLINK:
		return unlink_step(p, m, s);
	case STEP_SETXATTR:
	case STEP_REMOVEXATTR:
		return xattr_step(p, s);
	case STEP_CHMOD:
		return result(chmod(a, s->which));
	default:
		return file_step(p, s);
	}
}

/* ---- comparison ---- */

/* What of the object at path is not as it should be; NULL: all is well. */
static const char *attributes_differ(const char *path, const struct object *o)
{
	static const mode_t types[] = {
		[OBJECT_FILE] = S_IFREG, [OBJECT_DIR] = S_IFDIR, [OBJECT_LINK] = S_IFLNK
	};
	static uint8_t value[MODEL_XATTR_MAX + 1];
	char target[MODEL_TARGET_MAX + 61], got[MODEL_TARGET_MAX + 61] = "", name[20];
	struct stat st;

	if (lstat(path, &st) == -1)
		return "it is not there";
	if ((st.st_mode & S_IFMT) != types[o->kind])
		return "another type";
	if (o->kind == OBJECT_LINK) {
		model_target(o->serial, target);
		if (readlink(path, got, sizeof(got) - 1) == -1 || strcmp(got, target) != 0)
			return "another target";
	} else if ((st.st_mode & 07777) != o->mode) {
		return "another mode";
	}
	if (st.st_nlink != (o->kind == OBJECT_DIR ? 2 : o->links))
		return "another link count";
	for (unsigned i = 0; i < MODEL_XATTRS && o->kind != OBJECT_LINK; i++) {
		snprintf(name, sizeof(name), "user.%u", i);
		model_content(o->xattr_serial[i], value, o->xattr_size[i]);
		ssize_t n = getxattr(path, name, bytes, sizeof(bytes));

		if (n != (o->xattr_size[i] ? (ssize_t)o->xattr_size[i] : -1) ||
		    (n > 0 && memcmp(bytes, value, (size_t)n) != 0))
			return "another attribute";
	}
	return NULL;
}

/* Into bytes; how many there are, or -1. */
static ssize_t content_read(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd == -1 ? -1 : read(fd, bytes, sizeof(bytes));

	if (fd != -1)
		close(fd);
	return n;
}

static const char *object_differs(const char *path, const struct object *o)
{
	static char why[100];
	const char *differs = attributes_differ(path, o);
	ssize_t n;

	if (differs || o->kind != OBJECT_FILE)
		return differs;
	n = content_read(path);
	if (n != o->size) {
		snprintf(why, sizeof(why), "%zd bytes, not %u", n, o->size);
		return why;
	}
	for (ssize_t i = 0; i < n; i++) {
		if (bytes[i] != o->data[i]) {
			snprintf(why, sizeof(why), "byte %zd of %zd is not what it was", i, n);
			return why;
		}
	}
	return NULL;
}

static unsigned strangers(unsigned worker, struct model *m, const char *dir, bool loud)
{
	char prefix[20], path[300];
	DIR *d = opendir(dir);
	struct dirent *e;
	unsigned count = 0;
	bool known;

	snprintf(prefix, sizeof(prefix), "w%u-", worker);
	while (d && (e = readdir(d))) {
		snprintf(path, sizeof(path), "%.30s/%.255s", dir, e->d_name);
		known = e->d_name[0] == '.' ||
			(strcmp(dir, "common") == 0 && strncmp(e->d_name, prefix, strlen(prefix)) != 0);
		for (unsigned n = 0; n < MODEL_NAMES && !known; n++)
			known = m->names[n] >= 0 && strcmp(path, place_path(worker, n)) == 0;
		if (!known && loud)
			printf("# worker %u: nobody made %s, or it was removed\n", worker, path);
		count += !known;
	}
	if (d)
		closedir(d);
	return count;
}

unsigned steps_differ(unsigned worker, struct model *m, bool loud)
{
	char own[20];
	unsigned count = 0;

	for (unsigned n = 0; n < MODEL_NAMES; n++) {
		const char *path = place_path(worker, n);
		struct object *o = model_object(m, n);
		const char *why = o ? object_differs(path, o) : NULL;

		if (why && loud)
			printf("# worker %u: %s: %s\n", worker, path, why);
		count += why != NULL;
	}
	snprintf(own, sizeof(own), "w%u", worker);
	return count + strangers(worker, m, own, loud) + strangers(worker, m, "common", loud);
}

bool steps_is_between(unsigned worker, struct model *before, struct model *after, const struct step *s)
{
	unsigned name = s->kind == STEP_COPY ? s->b : s->a;
	struct object *o = model_object(before, name), *new = model_object(after, name);
	ssize_t n;

	if (s->kind != STEP_WRITE && s->kind != STEP_APPEND && s->kind != STEP_MMAP && s->kind != STEP_COPY &&
	    s->kind != STEP_PUNCH && s->kind != STEP_ZERO)
		return false;
	n = content_read(place_path(worker, name));
	/* The kernel makes two calls of a write(2) that begins in the middle of a page which it has not got. */
	if (n != o->size && n != new->size && (n % MODEL_BLOCK != 0 || n < o->size || n > new->size))
		return false;
	for (ssize_t i = 0; i < n; i++)
		if (bytes[i] != o->data[i] && bytes[i] != new->data[i])
			return false;
	memset(o->data, 0, MODEL_SIZE_MAX);
	memcpy(o->data, bytes, (size_t)n);
	o->size = (uint32_t)n;
	return steps_differ(worker, before, false) == 0;
}
