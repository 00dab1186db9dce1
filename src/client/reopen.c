/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A file is found again by its name, as the dead mount still knows it, and proved by number and generation. Opening it by name is what proves the right to it.
 */
#include "client/reopen.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <umbra/direct.h>

#include "client/calls.h"
#include "client/home.h"
#include "client/mapping.h"
#include "client/session.h"
#include "util/sabotage.h"

#define WAIT_DEFAULT_S 60
#define WAIT_MAX_S 1000000000ll
#define PAUSE_NS 20000000
#define ENDS_NS 2000000000ll
#define DELETED " (deleted)"
/* Of those of the application's open. */
#define FLAGS_KEPT (O_ACCMODE | O_APPEND | O_SYNC | O_DSYNC | O_DIRECT)

struct reopening {
	const struct umbra_file *file;
	char name[PATH_MAX]; /* as the dead mount has it */
	int flags;
	int fd; /* out */
};

int file_fd(const struct umbra_file *f)
{
	int own = atomic_load_explicit(&f->own_fd, memory_order_acquire);

	return own >= 0 ? own : f->fd;
}

bool fd_is_dead(int fd)
{
	struct umbra_direct direct;

	return mount_is_gone(mount_ask(fd, &direct));
}

/* ---- which file ---- */

int file_is_same(const struct home *home, uint64_t ino, uint64_t generation, int fd)
{
	long version = 0;
	struct stat st;
	int rc;

	if (fstat(fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_ino != ino)
		return 0;
	if (sabotage_point("reopen-same"))
		return 1;
	rc = home_has(home, fd);
	if (rc <= 0)
		return rc;
	if (ioctl(fd, FS_IOC_GETVERSION, &version))
		return -errno;
	return (uint32_t)version == (uint32_t)generation;
}

/* What name has after folder; NULL: it is not in there. */
static const char *within(const char *name, const char *folder)
{
	size_t len = strlen(folder);

	while (len > 0 && folder[len - 1] == '/')
		len--;
	return strncmp(name, folder, len) == 0 && (name[len] == '/' || name[len] == '\0') ? name + len : NULL;
}

/* The name in the pool, looked for where root of it is mounted. */
static int open_name(struct reopening *r, int dir, const char *root, const char *name)
{
	const struct holding *h = r->file->holding;
	const char *below = within(name, root);
	int fd, rc;

	while (below && *below == '/')
		below++;
	if (!below || !*below)
		return -ESTALE;
	fd = openat(dir, below, r->flags | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT || errno == ENOTDIR || errno == ELOOP || errno == EISDIR ? -ESTALE :
												  -errno;
	rc = file_is_same(h->home, h->ino, h->generation, fd);
	if (rc <= 0) {
		close(fd);
		/* The next daemon may end before it has answered: the one after it has the file. */
		return rc < 0 && !sabotage_point("reopen-error") ? -ENOTCONN : -ESTALE;
	}
	(void)!fcntl(fd, F_SETFL, r->flags & ~O_ACCMODE);
	r->fd = fd;
	return 0;
}

/*
 * A mount that is still somewhere shows names from there on; one that was taken away (umount -l) shows them from its own first folder on. Which of the two it is cannot be seen: both are tried.
 */
static int open_either(struct reopening *r, int dir, const char *root)
{
	const struct home *home = r->file->holding->home;
	int rc = -ESTALE;

	for (unsigned i = 0; i < 2 * home->count && rc; i++) {
		const char *below = r->name;
		char *name;
		int failed;

		if (i < home->count)
			below = within(r->name, home->points[i].at);
		if (!below)
			continue;
		name = malloc(strlen(home->points[i % home->count].root) + strlen(below) + 1);
		if (!name)
			return -ENOTCONN;
		strcpy(stpcpy(name, home->points[i % home->count].root), below);
		failed = open_name(r, dir, root, name);
		free(name);
		if (failed != -ESTALE)
			rc = failed;
	}
	return rc;
}

/* Names of deleted files end in a word of the kernel's. So do those that somebody has asked a dead mount about in vain, and some that are called so. */
static int open_at(void *arg, int dir, const char *root)
{
	struct reopening *r = arg;
	size_t len = strlen(r->name);
	int rc = open_either(r, dir, root), failed;
	char *end;

	if (rc == 0 || len < strlen(DELETED))
		return rc;
	end = r->name + len - strlen(DELETED);
	if (strcmp(end, DELETED) != 0 || sabotage_point("reopen-deleted"))
		return rc;
	*end = '\0';
	failed = open_either(r, dir, root);
	*end = DELETED[0];
	return failed == -ESTALE ? rc : failed;
}

/* Others may use its number meanwhile: it stays the same from the first one on. */
static int fd_install(struct umbra_file *f, int fd)
{
	int own = f->own_fd;

	fd = client_calls.fd_own(fd);
	if (fd < 0)
		return -errno;
	if (own >= 0)
		return client_calls.fd_move(fd, own);
	atomic_store_explicit(&f->own_fd, fd, memory_order_release);
	return 0;
}

static int reopen_by_name(struct reopening *r, struct umbra_file *f)
{
	char link[40];
	struct stat st;
	ssize_t len;
	int rc;

	r->flags = fcntl(f->fd, F_GETFL);
	snprintf(link, sizeof(link), "/proc/thread-self/fd/%d", file_fd(f));
	len = readlink(link, r->name, sizeof(r->name) - 1);
	if (r->flags < 0 || len < 0)
		return -ENOTCONN;
	r->name[len] = '\0';
	r->flags &= FLAGS_KEPT;
	if (f->can_write && !sabotage_point("reopen-bypass"))
		r->flags |= O_DIRECT; /* umbra-run hides it */
	rc = home_next(f->holding->home, open_at, r);
	if (rc)
		return rc;
	if (fstat(r->fd, &st)) {
		close(r->fd);
		return -ENOTCONN;
	}
	pthread_mutex_lock(&client_lock);
	f->holding->dev = st.st_dev;
	pthread_mutex_unlock(&client_lock);
	return fd_install(f, r->fd);
}

/* A thread that has met a fault may be on a small stack for signals: names are not put on it. */
static int reopen(struct umbra_file *f)
{
	struct reopening *r = calloc(1, sizeof(*r));
	int rc;

	if (!r)
		return -ENOTCONN;
	r->file = f;
	r->fd = -1;
	rc = reopen_by_name(r, f);
	free(r);
	return rc;
}

int file_reopen(struct umbra_file *f)
{
	struct holding *h = f->holding;
	int rc;

	if (f->closed || !h->home)
		return -ENOTCONN;
	if (!fd_is_dead(file_fd(f)))
		return 0;
	rc = reopen(f);
	atomic_store(&f->away_rc, rc);
	/* What is not here today may be tomorrow. */
	return rc == -ESTALE || rc == 0 ? rc : -ENOTCONN;
}

/* ---- waiting ---- */

static int64_t wait_ns;

static void wait_init(void)
{
	const char *text = getenv("UMBRA_RESTART");
	int64_t wait_s = WAIT_DEFAULT_S;

	if (text && strcmp(text, "fail") == 0)
		wait_s = 0;
	if (text && strncmp(text, "wait:", 5) == 0) {
		char *end;
		long long given = strtoll(text + 5, &end, 10);

		if (end > text + 5 && *end == '\0' && given >= 0)
			wait_s = given < WAIT_MAX_S ? given : WAIT_MAX_S;
	}
	wait_ns = wait_s * 1000000000ll;
}

/* Since it was noticed. */
static bool waited_long(struct holding *h)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	int64_t none = 0, now_ns = client_now_ns();

	pthread_once(&once, wait_init);
	atomic_compare_exchange_strong(&h->away_ns, &none, now_ns);
	return now_ns - (none ? none : now_ns) >= wait_ns;
}

int file_away(struct umbra_file *f, int rc)
{
	const struct timespec pause = { .tv_nsec = PAUSE_NS };
	struct holding *h = f->holding;

	if (!mount_is_gone(rc) && rc != -ESTALE && (rc != -EAGAIN || !h->away_ns))
		return 1;
	if (sabotage_point("reopen-wait"))
		return 1;
	if (f->closed || !h->home || !fd_is_dead(file_fd(f)))
		return 1;
	/* Nothing of a file is attached while a mapping of it is the kernel's. */
	(void)mappings_take_back_dead();
	holding_begin(h);
	rc = file_ready(f, false);
	holding_end(h);
	if (rc == 0 || !fd_is_dead(file_fd(f))) {
		/* Perhaps its end has not been heard of yet. */
		nanosleep(&pause, NULL);
		return 0;
	}
	if (atomic_load(&f->away_rc) == -ESTALE)
		return -ESTALE;
	if (waited_long(h))
		return -ENOTCONN;
	nanosleep(&pause, NULL);
	return 0;
}

/* ---- mappings that are the kernel's ---- */

/* The next one of the kernel's from addr on, with a user of its file. NULL: there is none. */
static struct mapped *kernels_next(uintptr_t *addr, struct mapping *seen)
{
	struct mapped *mapped = NULL;
	struct mapping *m;

	pthread_mutex_lock(&client_lock);
	while ((m = mapping_next(*addr)) && !m->by_kernel)
		*addr = m->hi;
	if (m) {
		*addr = m->hi;
		*seen = *m;
		mapped = m->mapped;
		mapped->users++;
	}
	pthread_mutex_unlock(&client_lock);
	return mapped;
}

/* As addresses_reserve() has left it; with the last one of a file that is no longer the kernel's: what it had of that died with the mount. */
static void take_back(const struct mapping *seen)
{
	struct mapping *m, *other;
	struct holding *h;

	pthread_mutex_lock(&client_lock);
	m = mapping_find(seen->lo);
	if (m && m->by_kernel && m->lo == seen->lo && m->hi == seen->hi &&
	    client_calls.mmap((void *)m->lo, m->hi - m->lo, PROT_NONE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != MAP_FAILED) {
		m->by_kernel = false;
		h = m->mapped->file->holding;
		for (other = h->mappings; other && !other->by_kernel;)
			other = other->next;
		h->by_kernel = other != NULL;
	}
	pthread_mutex_unlock(&client_lock);
}

bool mappings_take_back_dead(void)
{
	struct mapping seen;
	struct mapped *mapped;
	uintptr_t addr = 0;
	bool more = false;

	while ((mapped = kernels_next(&addr, &seen))) {
		if (fd_is_dead(file_fd(mapped->file)))
			take_back(&seen);
		else
			more = true;
		mapped_put(mapped);
	}
	return more;
}

void mappings_take_back(void)
{
	const struct timespec pause = { .tv_nsec = PAUSE_NS / 10 };
	int64_t since_ns = client_now_ns();

	/* Its socket ends a little before its mount does. */
	while (mappings_take_back_dead() && client_now_ns() - since_ns < ENDS_NS)
		nanosleep(&pause, NULL);
}
