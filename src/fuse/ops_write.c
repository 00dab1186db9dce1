/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Writes, and how those that go around the page cache get on with those who use it.
 *
 * The kernel drops the pages of the range before it sends a direct write, but another process may have such a page read again before
 * the write is carried out. Stored to through a mapping, it would be written back with old bytes over those of the write; and where the
 * write makes the file longer, others would see zeroes in it. So if pages have been read since (fs_write_direct() says -EAGAIN), a
 * deferred thread makes the kernel drop the pages, which writes dirty ones first, and then writes, unless pages were read meanwhile:
 * then it starts over. No lock is held while pages are dropped and no read is held back, as dropping a page waits for its read. The
 * kernel itself holds the inode's lock from sending a direct write to its end, so no write through the cache is on its way. Direct writes are
 * never asynchronous (session.c): they take no place among the requests that the kernel has in flight, so those that wait here cannot
 * keep a read from being sent.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "fuse/again.h"
#include "fuse/ops.h"

struct direct_write {
	struct defer_work work;
	struct session *session;
	fuse_req_t req;
	struct fs_cred cred;
	uint64_t ino, off;
	size_t size_bytes, before_bytes; /* before: written at once */
	unsigned flags;                  /* FS_WRITE_* */
	char bytes[];
};

static void pages_drop(const struct direct_write *w, uint64_t off, size_t len_bytes)
{
	uint64_t start = u64_align_down(off, BLOCK_SIZE), end = u64_align_up(off + len_bytes, BLOCK_SIZE);

	if (w->flags & FS_WRITE_APPEND)
		end = start; /* where the end is, is not known yet: all from here on */
	(void)session_drop(w->session, w->ino, (off_t)start, (off_t)(end - start));
}

/* The kernel would go on running a program as set-user-ID. Without pages to drop this waits for nothing. */
static void mode_tell(struct session *session, uint64_t ino, const struct fs_direct *direct)
{
	if (direct->mode_changed)
		(void)session_drop(session, ino, -1, 0);
}

/* Bytes written, or -errno if none. The pieces become smaller while others read as fast as pages are dropped. */
static ssize_t direct_write(const struct direct_write *w)
{
	struct fs *fs = w->session->fs;
	size_t done = 0, piece = w->size_bytes;
	ssize_t n;

	do {
		size_t size = piece < w->size_bytes - done ? piece : w->size_bytes - done;
		struct fs_direct direct = { .page_reads = fs_page_reads(fs, w->ino) };

		pages_drop(w, w->off + done, size);
		n = fs_write_direct(fs, &w->cred, w->ino, w->bytes + done, size, w->off + done, w->flags,
				    &direct);
		mode_tell(w->session, w->ino, &direct);
		if (n > 0)
			done += (size_t)n;
		else if (n == -EAGAIN && piece > BLOCK_SIZE)
			piece = u64_align_up(piece / 2, BLOCK_SIZE);
	} while ((n > 0 || n == -EAGAIN) && done < w->size_bytes);
	return done > 0 ? (ssize_t)done : n;
}

static void write_reply(fuse_req_t req, ssize_t n)
{
	if (n < 0)
		ops_reply(req, (int)n);
	else
		fuse_reply_write(req, (size_t)n);
}

static void write_deferred(struct defer_work *work)
{
	struct direct_write *w = container_of(work, struct direct_write, work);
	ssize_t n = direct_write(w);

	if (n < 0 && w->before_bytes > 0)
		n = 0;
	write_reply(w->req, n < 0 ? n : n + (ssize_t)w->before_bytes);
	free(w);
}

/* What is left after before_bytes of it. */
static int write_defer(fuse_req_t req, const struct fs_cred *cred, fuse_ino_t ino, const char *buf,
		       size_t size_bytes, uint64_t off, unsigned flags, size_t before_bytes)
{
	struct session *session = req_session(req);
	struct direct_write *w = malloc(sizeof(*w) + size_bytes - before_bytes);

	if (!w)
		return -ENOMEM;
	*w = (struct direct_write){
		.work = { .fn = write_deferred },
		.session = session,
		.req = req,
		.cred = *cred,
		.ino = ino,
		.off = off + before_bytes,
		.size_bytes = size_bytes - before_bytes,
		.before_bytes = before_bytes,
		.flags = flags,
	};
	memcpy(w->bytes, buf + before_bytes, w->size_bytes);
	if (defer_add(session->defer, &w->work))
		return 0;
	free(w);
	return -ENOTCONN;
}

void ops_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
	       struct fuse_file_info *fi)
{
	struct session *session = req_session(req);
	struct fs_cred cred = ops_cred(req);
	struct fs_direct direct = { 0 };
	unsigned flags = 0;
	size_t before = u64_min(again_so_far(), size); /* of an append */
	ssize_t n;

	if (fi->writepage) /* a dirty page of a mapping; who dirtied it is not known */
		flags |= FS_WRITE_CACHED;
	else if (fi->flags & O_APPEND)
		flags |= FS_WRITE_APPEND;
	if (!wire_now.direct && !fi->writepage)
		flags |= FS_WRITE_PAGES;
	if (fi->fh & OPS_FH_DIRECT) /* for cached writes the kernel does it */
		flags |= FS_WRITE_DROP_CAPS;
	if (wire_kill_flags(&session->wire) ? wire_now.kill_suidgid : !fi->writepage && cred.uid != 0)
		flags |= FS_WRITE_KILLPRIV;
	if (before == size && size > 0) {
		n = 0;
	} else if (!wire_now.direct) {
		n = fs_write(session->fs, &cred, ino, buf + before, size - before, (uint64_t)off, flags);
	} else {
		n = fs_write_direct(session->fs, &cred, ino, buf + before, size - before, (uint64_t)off,
				    flags, &direct);
		mode_tell(session, ino, &direct);
	}
	if (n > 0) {
		worker_count(&worker_now->written_bytes, (uint64_t)n);
		before += (size_t)n;
	}
	if (wire_now.direct && (n == -EAGAIN || (n > 0 && before < size))) {
		int rc = write_defer(req, &cred, ino, buf, size, (uint64_t)off, flags, before);

		if (rc == 0)
			return;
		n = rc;
	}
	write_reply(req, before > 0 || n >= 0 ? (ssize_t)before : n);
}
