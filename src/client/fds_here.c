/* SPDX-License-Identifier: BSD-3-Clause */
/* Calls at the offset of the description: which of them are worth an entry, and the entry kept while they last. */
#include <errno.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/fds.h"
#include "client/fds_entry.h"
#include "client/fds_others.h"
#include "client/file.h"
#include "client/next.h"
#include "client/session.h"

NEXT(lseek64, off_t, (int, off_t, int))

/* The kernel does as well what goes past the end, and a file that is read in one piece. */
static bool is_worth(int fd, size_t size, off_t off, bool store)
{
	int before = errno;
	off_t at = next_of_lseek64()(fd, 0, SEEK_CUR);
	struct stat st;
	bool worth = true;

	(void)off;
	if (at >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
		worth = store ? at < st.st_size : size < (uint64_t)st.st_size;
	errno = before;
	return worth;
}

static void refused(struct fd_entry *e)
{
	const struct holding *h = e->file->holding;
	struct slow s;

	if (!atomic_load_explicit(&h->refused, memory_order_relaxed) ||
	    client_now_ns() < atomic_load_explicit(&h->look_ns, memory_order_relaxed))
		return;
	s = slow_begin();
	others_look(e);
	slow_end(&s);
}

bool fds_call_here(int fd, const struct iovec *parts, int count, bool store, int flags, ssize_t *rc)
{
	struct offset_call c = { .fd = fd, .parts = parts, .count = count, .flags = flags, .store = store };
	struct fd_entry *e;
	bool by_others;

	for (int i = 0; i < count; i++)
		c.size += parts[i].iov_len;
	if (c.size == 0 || !fds_begin(fd, store))
		return false;
	e = fds_pin(fd);
	if (!e && fds_learn(fd, is_worth, c.size, store))
		e = fds_pin(fd);
	if (e) {
		c.file = e->file;
		c.offset = &e->offset;
		*rc = offset_call(&c, &by_others);
		if (by_others)
			fds_tell(BY_OFFSET);
		refused(e);
		atomic_fetch_sub(&e->pins, 1);
	}
	fds_done();
	return e;
}

bool fds_seek(int fd, off_t off, int whence, off_t *to)
{
	struct fd_entry *e;

	if (!fds_begin(fd, false))
		return false;
	e = fds_pin(fd);
	if (e) {
		*to = offset_seek(fd, &e->offset, off, whence);
		atomic_fetch_sub(&e->pins, 1);
	}
	fds_done();
	return e;
}
