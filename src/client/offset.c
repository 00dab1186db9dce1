/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading: the bytes first, from where the offset is believed to be, then the step over them. If it was there all is done; else they are read again where it was. So at
 * the end of the file it goes no further than there are bytes.
 *
 * Writing: the step first, then the bytes, where the offset was. If the file turns out to end before, the kernel writes them there, by pwrite().
 *
 * A step is taken back only over what is not there: when a call has raced another one and met the end of the file, or failed. Who reads by that offset meanwhile meets the end too, and
 * takes back his step as well: in sum nothing has moved. A write would leave a gap: so descriptions that are open for both are the kernel's once somebody else has been seen to move them.
 */
#include "client/offset.h"

#include <errno.h>
#include <unistd.h>

#include "client/data.h"
#include "client/fds.h"
#include "client/file.h"
#include "client/next.h"
#include "client/section.h"

NEXT(lseek64, off_t, (int, off_t, int))
NEXT(preadv64v2, ssize_t, (int, const struct iovec *, int, off_t, int))
NEXT(pwritev64v2, ssize_t, (int, const struct iovec *, int, off_t, int))

void offset_init(struct offset *o)
{
	*o = (struct offset){ .lock = PTHREAD_MUTEX_INITIALIZER, .at = -1, .end = INT64_MAX };
}

/* A handler that has come in between has closed it; its number may be another file's. */
static bool is_closed(const struct offset_call *c)
{
	return atomic_load_explicit(&c->file->closed, memory_order_relaxed);
}

/* Where it was; -1: it cannot be there. */
static int64_t step(const struct offset_call *c, int64_t bytes)
{
	int before = errno;
	int64_t to = is_closed(c) ? -1 : next_of_lseek64()(c->fd, bytes, SEEK_CUR);

	errno = before;
	return to < 0 ? -1 : to - bytes;
}

static void step_back(const struct offset_call *c, size_t bytes)
{
	if (bytes > 0)
		(void)step(c, -(int64_t)bytes);
}

/* -errno */
static ssize_t part_at(const struct offset_call *c, void *buf, size_t len, int64_t off)
{
	struct section *section = section_mine();
	struct slow s;
	ssize_t rc;

	if (section && len <= DATA_AT_ONCE_MAX && data_touch(buf, len, c->store)) {
		bool done;

		section_enter(section);
		done = data_at_once(c->file, section, buf, len, off, c->store);
		section_leave(section);
		if (done)
			return (ssize_t)len;
	}
	s = slow_begin();
	rc = data_call(c->file, buf, len, off, c->store);
	slow_end(&s);
	return rc;
}

/* The first bytes of the call, at an offset: how many, or -errno if none. */
static ssize_t parts_at(const struct offset_call *c, size_t size, int64_t off)
{
	size_t done = 0;

	for (int i = 0; i < c->count && done < size; i++) {
		size_t len = c->parts[i].iov_len < size - done ? c->parts[i].iov_len : size - done;
		ssize_t n;

		if (len == 0)
			continue;
		n = part_at(c, c->parts[i].iov_base, len, off + (int64_t)done);
		if (n < 0)
			return done > 0 ? (ssize_t)done : n;
		done += (size_t)n;
		if ((size_t)n < len)
			break;
	}
	return (ssize_t)done;
}

/* No cancellation within: the lock is held. */
static ssize_t kernel_call(const struct offset_call *c)
{
	struct section *section = section_mine();
	struct offset *o = c->offset;
	struct slow s = slow_begin();
	ssize_t n = -1;

	if (is_closed(c))
		errno = EBADF;
	else if (c->store)
		n = next_of_pwritev64v2()(c->fd, c->parts, c->count, -1, c->flags);
	else
		n = next_of_preadv64v2()(c->fd, c->parts, c->count, -1, c->flags);
	if (n < 0)
		s.error = errno;
	if (section)
		section_count(c->store ? &section->kernel_writes : &section->kernel_reads, 1);
	if (n > 0 && o->at >= 0) {
		o->at += n;
		if (c->store && section) {
			o->end = o->at;
			data_written_to(c->file, section, (uint64_t)o->at);
		}
	} else if (n > 0 && c->store) {
		holding_size_open(c->file->holding);
	}
	slow_end(&s);
	return n;
}

static void others_move_it(const struct offset_call *c)
{
	c->offset->moved = true;
	c->offset->by_kernel = c->file->can_read && c->file->can_write;
}

/* It was not where the bytes have been read that it has been moved by: those behind off are ours now. */
static ssize_t read_elsewhere(const struct offset_call *c, size_t size, int64_t off)
{
	ssize_t done = parts_at(c, size, off);

	others_move_it(c);
	c->offset->at = -1;
	step_back(c, size - (size_t)(done > 0 ? done : 0));
	return done > 0 ? done : kernel_call(c);
}

static ssize_t read_here(const struct offset_call *c)
{
	struct offset *o = c->offset;
	ssize_t done = parts_at(c, c->size, o->at);
	int64_t off;

	/* The end, if it is there. The kernel says what else is wrong. */
	if (done < (ssize_t)c->size) {
		off = step(c, 0);
		if (off != o->at) {
			others_move_it(c);
			o->at = off;
			return kernel_call(c);
		}
		if (done <= 0)
			return done == 0 ? 0 : kernel_call(c);
	}
	off = step(c, done);
	if (off < 0)
		return kernel_call(c);
	if (off != o->at)
		return read_elsewhere(c, (size_t)done, off);
	o->at += done;
	return done;
}

/* What makes the file longer is the kernel's. If it may be that long by now it is tried, but not by who made it longer himself just now. */
static bool is_within(const struct offset_call *c)
{
	struct section *section = section_mine();
	int64_t end = c->offset->at + (int64_t)c->size;
	bool open;

	if (!section || end < 0)
		return false;
	return data_within(c->file, section, (uint64_t)end, &open) || (open && end <= c->offset->end);
}

static ssize_t write_here(const struct offset_call *c)
{
	struct offset *o = c->offset;
	ssize_t done;
	int64_t off;

	if (!is_within(c))
		return kernel_call(c);
	off = step(c, (int64_t)c->size);
	if (off < 0)
		return kernel_call(c);
	if (off != o->at)
		others_move_it(c);
	done = parts_at(c, c->size, off);
	step_back(c, c->size - (size_t)(done > 0 ? done : 0));
	o->at = off + (done > 0 ? done : 0);
	if (done >= 0)
		return done;
	errno = (int)-done;
	return -1;
}

ssize_t offset_call(const struct offset_call *c, bool *by_others)
{
	struct offset *o = c->offset;
	bool can = c->store ? c->file->can_write && !c->file->appends : c->file->can_read;
	ssize_t rc;

	pthread_mutex_lock(&o->lock);
	if (o->at < 0 || o->moved)
		o->at = o->by_kernel ? -1 : step(c, 0);
	if (!can || o->at < 0 || o->at > INT64_MAX - (int64_t)c->size)
		rc = kernel_call(c);
	else
		rc = c->store ? write_here(c) : read_here(c);
	*by_others = o->by_kernel;
	pthread_mutex_unlock(&o->lock);
	return rc;
}

off_t offset_seek(int fd, struct offset *o, off_t off, int whence)
{
	off_t to;

	pthread_mutex_lock(&o->lock);
	to = next_of_lseek64()(fd, off, whence);
	o->at = to < 0 ? -1 : to;
	pthread_mutex_unlock(&o->lock);
	return to;
}
