/* SPDX-License-Identifier: BSD-3-Clause */
#include "client/fds_own.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/calls.h"
#include "client/fds.h"
#include "client/next.h"
#include "client/session.h"

NEXT(close, int, (int))
NEXT(dup3, int, (int, int, int))

#define SOCKETS 32u /* of the descriptors that there may be */
#define KEPT_MAX 2u /* for reading; for both */

/* A file of which the process has taken a record lock by some descriptor that it has not closed. */
struct locked {
	uint32_t major, minor;
	uint64_t ino;
	int kept[KEPT_MAX]; /* -1: none */
	struct locked *next;
};

static _Atomic uint64_t own[FDS_MAX / 64];
static _Atomic unsigned own_count;
static pthread_mutex_t locks_lock = PTHREAD_MUTEX_INITIALIZER;
static struct locked *locked_all;
static _Atomic unsigned locked_count;
static atomic_bool locks_unknown; /* one was taken where nothing could be noted */

bool own_is(int fd)
{
	return atomic_load_explicit(&own_count, memory_order_relaxed) > 0 && fd >= 0 &&
	       (unsigned)fd < FDS_MAX &&
	       (atomic_load_explicit(&own[(unsigned)fd / 64], memory_order_relaxed) >> ((unsigned)fd % 64)) &
		       1;
}

unsigned own_from(unsigned first)
{
	for (unsigned fd = first; fd < FDS_MAX; fd++) {
		uint64_t word = atomic_load(&own[fd / 64]) >> (fd % 64);

		if (word)
			return fd + (unsigned)__builtin_ctzll(word);
		fd |= 63;
	}
	return UINT_MAX;
}

/* fd, or -1: out of the range that is known. It is closed then. */
static int own_add(int fd)
{
	if (fd < 0)
		return -1;
	if ((unsigned)fd >= FDS_MAX) {
		close(fd);
		errno = EMFILE;
		return -1;
	}
	atomic_fetch_or(&own[(unsigned)fd / 64], 1ull << ((unsigned)fd % 64));
	atomic_fetch_add(&own_count, 1);
	return fd;
}

static void own_remove(int fd)
{
	if (!own_is(fd))
		return;
	atomic_fetch_and(&own[(unsigned)fd / 64], ~(1ull << ((unsigned)fd % 64)));
	atomic_fetch_sub(&own_count, 1);
}

/* A copy of it in the last part of what may be open. -1: none is to be had there. */
static int far_up(int fd, unsigned part, unsigned at_least)
{
	struct rlimit limit;
	unsigned max, back;

	if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur <= 2 * (rlim_t)at_least)
		return -1;
	max = limit.rlim_cur < FDS_MAX ? (unsigned)limit.rlim_cur : FDS_MAX;
	back = part && max / part > at_least ? max / part : at_least;
	return fcntl(fd, F_DUPFD_CLOEXEC, (int)(max - back));
}

static int socket_made(int sock)
{
	int moved = far_up(sock, 0, SOCKETS);

	if (moved >= 0) {
		close(sock);
		sock = moved;
	}
	return own_add(sock);
}

int own_copy(int fd)
{
	return own_add(far_up(fd, 0, SOCKETS));
}

static void socket_ends(int sock)
{
	own_remove(sock);
}

/* ---- record locks ---- */

/* Without a question to the file system. */
static bool name_of(int fd, struct locked *name)
{
	struct statx st;

	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_INO, &st))
		return false;
	*name = (struct locked){ .major = st.stx_dev_major, .minor = st.stx_dev_minor, .ino = st.stx_ino };
	return true;
}

/* Under locks_lock */
static struct locked **locked_at(const struct locked *name)
{
	struct locked **at = &locked_all;

	while (*at && ((*at)->ino != name->ino || (*at)->minor != name->minor || (*at)->major != name->major))
		at = &(*at)->next;
	return at;
}

static void own_close(int fd)
{
	own_remove(fd);
	close(fd);
}

static void locked_free(struct locked *l)
{
	for (unsigned i = 0; l && i < KEPT_MAX; i++)
		if (l->kept[i] >= 0)
			own_close(l->kept[i]);
	free(l);
}

void own_lock_taken(int fd)
{
	struct locked name, *new;
	struct slow s;

	if (!fds_is_quiet()) {
		atomic_store(&locks_unknown, true);
		return;
	}
	if (!name_of(fd, &name))
		return;
	s = slow_begin();
	new = malloc(sizeof(*new));
	pthread_mutex_lock(&locks_lock);
	if (!*locked_at(&name) && new) {
		*new = name;
		new->kept[0] = new->kept[1] = -1;
		new->next = locked_all;
		locked_all = new;
		new = NULL;
		atomic_fetch_add(&locked_count, 1);
	} else if (!*locked_at(&name)) {
		atomic_store(&locks_unknown, true);
	}
	pthread_mutex_unlock(&locks_lock);
	free(new);
	slow_end(&s);
}

static void lock_ends(int fd)
{
	struct locked name, **at, *l;

	if (!name_of(fd, &name))
		return;
	pthread_mutex_lock(&locks_lock);
	at = locked_at(&name);
	l = *at;
	if (l) {
		*at = l->next;
		atomic_fetch_sub(&locked_count, 1);
	}
	pthread_mutex_unlock(&locks_lock);
	locked_free(l);
}

bool own_has_locks(void)
{
	return atomic_load_explicit(&locked_count, memory_order_relaxed) > 0;
}

void own_lock_ends(int fd)
{
	struct slow s;

	if (!own_has_locks() || !fds_is_quiet())
		return;
	s = slow_begin();
	lock_ends(fd);
	slow_end(&s);
}

void own_locks_end(unsigned first, unsigned last)
{
	for (unsigned fd = first; fd <= last && fd < FDS_MAX && own_has_locks(); fd++)
		if (!own_is((int)fd))
			own_lock_ends((int)fd);
}

static unsigned kind_of(int fd)
{
	return (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY ? 0 : 1;
}

/* One that has been kept serves as well. */
static int fd_dup(int fd)
{
	struct locked name, *l;
	int found = -1;

	if (name_of(fd, &name)) {
		pthread_mutex_lock(&locks_lock);
		l = *locked_at(&name);
		if (l) {
			found = l->kept[kind_of(fd)];
			l->kept[kind_of(fd)] = -1;
		}
		pthread_mutex_unlock(&locks_lock);
	}
	return found >= 0 ? found : own_add(far_up(fd, 4, SOCKETS));
}

static void fd_close(int fd)
{
	struct locked name, *l;
	bool keep = atomic_load(&locks_unknown);

	if (!keep && name_of(fd, &name)) {
		pthread_mutex_lock(&locks_lock);
		l = *locked_at(&name);
		if (l) {
			int *at = &l->kept[kind_of(fd)];

			/* Of the same kind there is one already: the file has been mapped in different ways. It stays open. */
			if (*at < 0)
				*at = fd;
			keep = true;
		}
		pthread_mutex_unlock(&locks_lock);
	}
	if (!keep)
		own_close(fd);
}

/* Without a look at slots: no call of the program's is made on them. */
static int fd_own(int fd)
{
	struct locked name;
	int moved = -1;

	pthread_mutex_lock(&locks_lock);
	/* Closing one would end them: it stays where it is. */
	if (!atomic_load(&locks_unknown) && name_of(fd, &name) && !*locked_at(&name))
		moved = far_up(fd, 4, SOCKETS);
	if (moved >= 0)
		next_of_close()(fd);
	pthread_mutex_unlock(&locks_lock);
	return own_add(moved >= 0 ? moved : fd);
}

static int fd_move(int fd, int to)
{
	int rc = next_of_dup3()(fd, to, O_CLOEXEC) < 0 ? -errno : 0;

	fd_close(fd);
	return rc;
}

void own_fork_prepare(void)
{
	pthread_mutex_lock(&locks_lock);
}

void own_fork_parent(void)
{
	pthread_mutex_unlock(&locks_lock);
}

void own_fork_child(void)
{
	for (struct locked *l = locked_all; l; l = l->next)
		for (unsigned i = 0; i < KEPT_MAX; i++)
			if (l->kept[i] >= 0)
				own_close(l->kept[i]);
	locked_all = NULL; /* nothing is freed here */
	atomic_store(&locked_count, 0);
	atomic_store(&locks_unknown, false);
	pthread_mutex_unlock(&locks_lock);
}

void own_init(void)
{
	client_socket_made = socket_made;
	client_socket_ends = socket_ends;
	client_calls.fd_dup = fd_dup;
	client_calls.fd_close = fd_close;
	client_calls.fd_own = fd_own;
	client_calls.fd_move = fd_move;
}
