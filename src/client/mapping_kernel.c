/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Mappings that become the kernel's. All those of one file do so together: what is stored through the kernel's page cache and what is stored directly would not see each
 * other. Nothing is in place from the first to the last of them, and as long as they are there nothing of the file is attached: data calls go by the kernel too, and other processes
 * are asked to, as by any open through the page cache.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <time.h>

#include "client/calls.h"
#include "client/mapping.h"
#include "client/reopen.h"

#define PAUSE_NS 1000000

/* False: somebody else does it. */
static bool leave_begin(struct holding *h)
{
	bool mine;

	pthread_mutex_lock(&client_lock);
	mine = !h->leaving;
	if (mine)
		h->leaving = true;
	pthread_mutex_unlock(&client_lock);
	return mine;
}

static void leave_wait(const struct holding *h)
{
	const struct timespec pause = { .tv_nsec = PAUSE_NS };
	bool leaving;

	do {
		nanosleep(&pause, NULL);
		pthread_mutex_lock(&client_lock);
		leaving = h->leaving;
		pthread_mutex_unlock(&client_lock);
	} while (leaving);
}

static bool is_same(const struct mapping *m, const struct mapping *seen)
{
	return m && !m->by_kernel && m->lo == seen->lo && m->hi == seen->hi && m->off == seen->off &&
	       m->prot == seen->prot && m->dont_fork == seen->dont_fork && m->mapped == seen->mapped;
}

/* The kernel may have to write pages first, and the daemon to hear from us before: no lock is held. */
static int leave_map(const struct mapping *seen, void **at)
{
	int fd = file_fd(seen->mapped->file), flags = seen->shared ? MAP_SHARED : MAP_PRIVATE;
	size_t len = seen->hi - seen->lo;

	/* Pages from before what has been stored directly. */
	(void)!posix_fadvise(fd, (off_t)seen->off, (off_t)len, POSIX_FADV_DONTNEED);
	*at = client_calls.mmap(NULL, len, seen->prot, flags | MAP_NORESERVE, fd, (off_t)seen->off);
	if (*at == MAP_FAILED)
		return -errno;
	if (seen->dont_fork)
		(void)client_calls.madvise(*at, len, MADV_DONTFORK);
	return 0;
}

/* One mapping. 1: there is none (any more). */
static int leave_one(struct holding *h)
{
	struct mapping *m, seen;
	bool is_left = false;
	void *at = NULL;
	size_t len;
	int rc;

	pthread_mutex_lock(&client_lock);
	m = h->mappings;
	while (m && m->by_kernel)
		m = m->next;
	if (m) {
		seen = *m;
		m->mapped->users++;
	}
	pthread_mutex_unlock(&client_lock);
	if (!m)
		return 1;
	len = seen.hi - seen.lo;
	rc = leave_map(&seen, &at);
	if (rc == 0) {
		pthread_mutex_lock(&client_lock);
		m = mapping_find(seen.lo);
		/* If it has changed meanwhile: again. */
		if (is_same(m, &seen)) {
			whole_void(seen.lo, seen.hi);
			if (client_calls.mremap(at, len, len, MREMAP_MAYMOVE | MREMAP_FIXED,
						(void *)seen.lo) == MAP_FAILED)
				rc = -errno;
			m->by_kernel = is_left = rc == 0;
		}
		pthread_mutex_unlock(&client_lock);
		/* Nobody else knows of it, and the listener needs the lock while this takes long. */
		if (!is_left)
			(void)client_calls.munmap(at, len);
	}
	mapped_put(seen.mapped);
	return rc;
}

int mappings_leave(struct holding *h)
{
	int rc = 0;

	if (!leave_begin(h)) {
		leave_wait(h);
		return 0;
	}
	if (client_calls.file_left)
		client_calls.file_left(h->dev, h->ino);
	holding_leave(h);
	while (rc == 0)
		rc = leave_one(h);
	pthread_mutex_lock(&client_lock);
	h->leaving = false;
	pthread_mutex_unlock(&client_lock);
	return rc < 0 ? rc : 0;
}

/* Of the first mapping in [*lo, hi), or of that file: its file, with a user. NULL: none. */
static struct mapped *next_in_range(uintptr_t lo, uintptr_t hi)
{
	struct mapping *m;

	pthread_mutex_lock(&client_lock);
	m = mapping_next(lo);
	while (m && m->by_kernel && m->lo < hi)
		m = mapping_next(m->hi);
	if (m && m->lo < hi)
		m->mapped->users++;
	else
		m = NULL;
	pthread_mutex_unlock(&client_lock);
	return m ? m->mapped : NULL;
}

int mappings_leave_range(uintptr_t lo, uintptr_t hi)
{
	struct mapped *mapped;
	int rc = 0;

	while (rc == 0 && mappings_touch(lo, hi) && (mapped = next_in_range(lo, hi))) {
		rc = mappings_leave(mapped->file->holding);
		mapped_put(mapped);
	}
	return rc;
}

void mappings_leave_file(uint64_t dev, uint64_t ino)
{
	struct mapped *mapped = NULL;
	struct holding *h;

	pthread_mutex_lock(&client_lock);
	for (h = client_holdings; h && (h->dev != dev || h->ino != ino); h = h->next)
		;
	if (h && h->mappings && !h->by_kernel) {
		mapped = h->mappings->mapped;
		mapped->users++;
	}
	pthread_mutex_unlock(&client_lock);
	if (!mapped)
		return;
	(void)!mappings_leave(mapped->file->holding);
	mapped_put(mapped);
}
