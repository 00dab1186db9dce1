/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests about file contents, but for writes. A reply's data always lies in ordinary memory: the kernel must never copy straight out of the
 * device, where a bad line would stop it.
 *
 * FLUSH and FSYNCDIR have no handler: the kernel learns once that the request is not known, and from then on does not ask.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/holders.h"
#include "fuse/again.h"
#include "fuse/ops.h"
#include "util/sabotage.h"

/* FS_OPEN_* of an open, but for truncation. */
static unsigned open_flags(const struct fuse_file_info *fi)
{
	switch (fi->flags & O_ACCMODE) {
	case O_RDONLY:
		return 0;
	case O_WRONLY:
		return FS_OPEN_WRITE;
	default:
		return FS_OPEN_WRITE | FS_OPEN_MAP;
	}
}

/* FS_OPEN_* of what open_fill() noted. */
static unsigned open_noted(const struct fuse_file_info *fi)
{
	unsigned flags = 0;

	if (fi->fh & OPS_FH_WRITE)
		flags |= fi->fh & OPS_FH_READ ? FS_OPEN_WRITE | FS_OPEN_MAP : FS_OPEN_WRITE;
	if (!(fi->fh & OPS_FH_DIRECT))
		flags |= fi->fh & OPS_FH_WRITE ? FS_OPEN_CACHED | FS_OPEN_THROUGH : FS_OPEN_CACHED;
	else if (fi->fh & OPS_FH_READ)
		flags |= FS_OPEN_BYPASS;
	return flags;
}

static enum fs_way open_way(const struct session *session, const struct inode_attr *attr,
			    const struct fuse_file_info *fi)
{
	switch (session->opts.dax) {
	case SESSION_DAX_ALWAYS:
		return FS_WAY_BYPASS;
	case SESSION_DAX_NEVER:
		return FS_WAY_CACHED;
	case SESSION_DAX_INODE:
		break;
	}
	/* A page of the cache is lost as a whole; around it only the lost lines are. */
	if (attr->flags & INODE_LOST && wire_direct_mmap(&session->wire))
		return FS_WAY_BYPASS;
	/* Bulk data as a rule, half as fast again without the page cache. What appends are logs, with readers at their ends. */
	if (wire_direct_bulk(&session->wire) && (fi->flags & (O_ACCMODE | O_APPEND)) == O_WRONLY)
		return FS_WAY_BYPASS;
	/* Before 6.6 the two ways do not know of each other: while somebody has it open through the page cache everybody has. */
	if (attr->flags & INODE_DAX &&
	    (wire_direct_mmap(&session->wire) || !fs_cached_opens(session->fs, attr->ino)))
		return FS_WAY_WANTS;
	return FS_WAY_CACHED;
}

/*
 * Whether it bypasses the page cache. It has been counted: whoever wants to store directly sees it, or we see him. So does whoever holds the file and would have pages dropped, for which a write
 * through pages is not safe.
 */
static bool open_bypasses(struct session *session, uint64_t ino, const struct fuse_file_info *fi,
			  enum fs_way way)
{
	bool writes = open_flags(fi) & FS_OPEN_WRITE, may_map = (fi->flags & O_ACCMODE) != O_WRONLY;
	bool is_held = fs_is_held(session->fs, ino), can = !may_map || wire_direct_mmap(&session->wire);
	unsigned flags = (writes ? FS_OPEN_THROUGH : 0) | (may_map ? FS_OPEN_BYPASS : 0);
	bool bypasses;

	if (way == FS_WAY_BYPASS && !may_map)
		return true;
	if (way == FS_WAY_CACHED && ((writes && is_held && can) || direct_is_stored(session, ino)))
		way = FS_WAY_WANTS;
	if (way == FS_WAY_CACHED && !writes)
		return false;
	bypasses = fs_open_way(session->fs, ino, flags, way,
			       is_held ? opens_excused(session->opens, ino, true) : 0);
	/* Attached before it counted. */
	if (!bypasses && writes && !is_held && can && fs_is_held(session->fs, ino) &&
	    !sabotage_point("open-counted")) {
		fs_open_way_again(session->fs, ino);
		bypasses = fs_open_way(session->fs, ino, flags, FS_WAY_WANTS,
				       opens_excused(session->opens, ino, true));
	}
	if (bypasses && way != FS_WAY_BYPASS)
		fs_uncached(session->fs, ino);
	return bypasses;
}

static void open_fill(struct session *session, bool direct, struct fuse_file_info *fi)
{
	fi->fh = 0;
	if ((fi->flags & O_ACCMODE) != O_RDONLY)
		fi->fh |= OPS_FH_WRITE;
	if ((fi->flags & O_ACCMODE) != O_WRONLY)
		fi->fh |= OPS_FH_READ;
	if (fi->flags & O_APPEND)
		fi->fh |= OPS_FH_APPEND;
	fi->direct_io = direct;
	if (direct)
		fi->fh |= OPS_FH_DIRECT;
	fi->fh |= (atomic_fetch_add_explicit(&session->open_count, 1, memory_order_relaxed) + 1)
		  << OPS_FH_OPEN_SHIFT;
	fi->keep_cache = 1;
	fi->noflush = 1;
}

void ops_create(fuse_req_t req, fuse_ino_t dir, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	struct session *session = req_session(req);
	struct fs *fs = session->fs;
	struct fs_cred cred = ops_cred(req);
	struct fuse_entry_param entry;
	struct inode_attr attr;
	unsigned flags = open_flags(fi), was_open;
	enum fs_way way;
	int rc;

	mode = (mode & 07777) | S_IFREG;
	if (again_is_made(fs, &attr, &rc))
		;
	else if (wire_now.tmpfile)
		rc = fs_tmpfile(fs, &cred, dir, mode, &attr);
	else
		rc = fs_mknod(fs, &cred, dir, name, strlen(name), mode, 0, &attr);
	/* A name that came behind the kernel's back: it must look again. */
	if (rc == -EEXIST && !(fi->flags & O_EXCL))
		rc = -ESTALE;
	if (rc)
		goto out;
	if (again_is_opened(&was_open))
		fs_closed(fs, attr.ino, was_open);
	way = open_way(session, &attr, fi);
	if (way != FS_WAY_BYPASS)
		flags |= FS_OPEN_CACHED;
	rc = fs_opened(fs, attr.ino, flags, &cred);
	if (rc) {
		fs_forget(fs, attr.ino, 1);
		goto out;
	}
	again_opened(flags);
	ops_entry(session, &attr, &entry);
	open_fill(session, open_bypasses(session, attr.ino, fi, way), fi);
	again_opened(open_noted(fi));
	if (fuse_reply_create(req, &entry, fi) < 0) {
		fs_closed(fs, attr.ino, open_noted(fi));
		fs_forget(fs, attr.ino, 1);
	}
	return;
out:
	ops_reply(req, rc);
}

static void open_reply(fuse_req_t req, uint64_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = req_session(req)->fs;

	if (fuse_reply_open(req, fi) < 0)
		fs_closed(fs, ino, open_noted(fi));
}

/* An open that waits for holders of the file. */
struct open_work {
	struct defer_work work;
	fuse_req_t req;
	uint64_t ino;
	struct fuse_file_info fi;
};

static void open_deferred(struct defer_work *work)
{
	struct open_work *w = container_of(work, struct open_work, work);

	if (fs_lend_all(req_session(w->req)->fs, w->ino))
		w->fi.keep_cache = 0;
	open_reply(w->req, w->ino, &w->fi);
	free(w);
}

/*
 * Pages that it may store to without a word are there already: their holders give up what they have, or else the pages are dropped. True: it is answered when they have.
 */
static bool open_lend(fuse_req_t req, uint64_t ino, struct fuse_file_info *fi)
{
	struct session *session = req_session(req);
	int rc = fs_lend_all_now(session->fs, ino);
	struct open_work *w;

	if (rc == -EUSERS && asks_here(session->asks)) {
		rc = fs_lend_all(session->fs, ino);
		asks_here_end(session->asks);
	} else if (rc == -EUSERS) {
		w = malloc(sizeof(*w));
		if (w) {
			*w = (struct open_work){ { .fn = open_deferred }, req, ino, *fi };
			if (asks_add(session->asks, ino, &w->work))
				return true;
			free(w);
		}
		rc = fs_lend_all(session->fs, ino);
	}
	if (rc)
		fi->keep_cache = 0;
	return false;
}

void ops_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct session *session = req_session(req);
	struct fs *fs = session->fs;
	struct fs_cred cred = ops_cred(req);
	struct inode_attr attr;
	unsigned flags = open_flags(fi), was_open;
	enum fs_way way = FS_WAY_CACHED;
	int rc = fs_getattr(fs, ino, &attr);

	if (again_is_opened(&was_open))
		fs_closed(fs, ino, was_open);

	if (wire_kill_flags(&session->wire))
		cred.kill_priv_exempt = !wire_now.kill_suidgid;
	if (rc == 0 && attr.flags & INODE_APPEND && flags && !(fi->flags & O_APPEND))
		rc = -EPERM; /* the kernel does not know of the flag */
	if (rc == 0) {
		way = open_way(session, &attr, fi);
		if (flags && fi->flags & O_TRUNC)
			flags |= FS_OPEN_TRUNCATE;
		if (way != FS_WAY_BYPASS)
			flags |= FS_OPEN_CACHED;
		rc = fs_opened(fs, ino, flags, &cred);
	}
	if (rc) {
		ops_reply(req, rc);
		return;
	}
	again_opened(flags);
	open_fill(session, open_bypasses(session, ino, fi, way), fi);
	again_opened(open_noted(fi));
	/* Pages that it may store to without a word are there already, perhaps: dropped, where nobody writes through them. */
	if (flags & FS_OPEN_MAP && fs_is_lent(fs, ino)) {
		if (fi->direct_io && way != FS_WAY_BYPASS)
			fi->keep_cache = 0;
		else if (open_lend(req, ino, fi))
			return;
	}
	open_reply(req, ino, fi);
}

void ops_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct session *session = req_session(req);

	bool has_pages = direct_closed(session, fi->fh);

	if (again_release())
		fs_closed(session->fs, ino, has_pages ? open_noted(fi) | FS_OPEN_PAGED : open_noted(fi));
	ops_reply(req, 0);
}

/* A read into pages that waits for holders of the file. */
struct read_work {
	struct defer_work work;
	fuse_req_t req;
	uint64_t ino, off;
	size_t size_bytes;
	char bytes[];
};

static void read_deferred(struct defer_work *work)
{
	struct read_work *w = container_of(work, struct read_work, work);
	ssize_t n = fs_read_pages(req_session(w->req)->fs, w->ino, w->bytes, w->size_bytes, w->off);

	if (n < 0)
		ops_reply(w->req, (int)n);
	else
		fuse_reply_buf(w->req, w->bytes, (size_t)n);
	free(w);
}

static bool read_defer(fuse_req_t req, uint64_t ino, size_t size_bytes, uint64_t off)
{
	struct read_work *w = malloc(sizeof(*w) + size_bytes);

	if (!w)
		return false;
	*w = (struct read_work){ { .fn = read_deferred }, req, ino, off, size_bytes };
	if (asks_add(req_session(req)->asks, ino, &w->work))
		return true;
	free(w);
	return false;
}

/* -EINPROGRESS: it is answered by another thread. */
static ssize_t read_pages(fuse_req_t req, uint64_t ino, size_t size_bytes, uint64_t off)
{
	struct session *session = req_session(req);
	char *buf = worker_now->buf;
	ssize_t n = fs_read_pages_now(session->fs, ino, buf, size_bytes, off);

	/* The other one waits for memory. */
	if (n != -EUSERS && n != -ENOMEM)
		return n;
	if (asks_here(session->asks)) {
		n = fs_read_pages(session->fs, ino, buf, size_bytes, off);
		asks_here_end(session->asks);
		return n;
	}
	return read_defer(req, ino, size_bytes, off) ? -EINPROGRESS :
						       fs_read_pages(session->fs, ino, buf, size_bytes, off);
}

void ops_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct fs *fs = req_session(req)->fs;
	struct worker *worker = worker_now;
	ssize_t n;

	if (!wire_now.direct && fi->fh & OPS_FH_DIRECT)
		direct_paged(req_session(req), ino, fi->fh);
	if (size > OPS_WRITE_MAX)
		n = -EINVAL;
	else if (wire_now.direct)
		n = fs_read(fs, ino, worker->buf, size, (uint64_t)off);
	else
		n = read_pages(req, ino, size, (uint64_t)off);
	if (n == -EINPROGRESS)
		return;
	if (n < 0) {
		ops_reply(req, (int)n);
		return;
	}
	worker_count(&worker->read_bytes, (uint64_t)n);
	fuse_reply_buf(req, worker->buf, (size_t)n);
}

void ops_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	/*
	 * Nothing is left to do, but to be asked: a kernel that has once heard ENOSYS answers by itself, and says that all is
	 * well even when the pages that it wrote before met a dead daemon.
	 */
	(void)ino;
	(void)datasync;
	(void)fi;
	fuse_reply_err(req, 0);
}

/* An answer that has to wait for the kernel. */
struct falloc_work {
	struct defer_work work;
	fuse_req_t req;
	uint64_t ino;
	off_t start, len;
	int rc;
};

static void falloc_deferred(struct defer_work *work)
{
	struct falloc_work *w = container_of(work, struct falloc_work, work);

	(void)session_drop(req_session(w->req), w->ino, w->start, w->len);
	ops_reply(w->req, w->rc);
	free(w);
}

/* Some of the range may be zero when there is no space for the rest; the kernel keeps its pages after an error. */
static bool falloc_defer(fuse_req_t req, uint64_t ino, uint64_t off, uint64_t len, int rc)
{
	struct falloc_work *w = malloc(sizeof(*w));
	uint64_t start = u64_align_down(off, BLOCK_SIZE);

	if (!w)
		return false;
	*w = (struct falloc_work){ { .fn = falloc_deferred },  req, ino, (off_t)start,
				   (off_t)(off + len - start), rc };
	if (defer_add(req_session(req)->defer, &w->work))
		return true;
	free(w);
	return false;
}

void ops_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len, struct fuse_file_info *fi)
{
	struct fs_cred cred = ops_cred(req);
	int rc = fs_fallocate(req_session(req)->fs, &cred, ino, mode, (uint64_t)off, (uint64_t)len);

	(void)fi;
	if (rc == 0 || !(mode & (FALLOC_FL_ZERO_RANGE | FALLOC_FL_PUNCH_HOLE)) ||
	    !falloc_defer(req, ino, (uint64_t)off, (uint64_t)len, rc))
		ops_reply(req, rc);
}

void ops_copy_file_range(fuse_req_t req, fuse_ino_t src, off_t src_off, struct fuse_file_info *src_fi,
			 fuse_ino_t dst, off_t dst_off, struct fuse_file_info *dst_fi, size_t len, int flags)
{
	struct fs_cred cred = ops_cred(req);
	unsigned how = cred.kill_priv_exempt ? 0 : FS_CLONE_KILLPRIV;
	int64_t n;

	(void)src_fi;
	(void)dst_fi;
	if (flags) {
		ops_reply(req, -EINVAL);
		return;
	}
	n = fs_clone(req_session(req)->fs, &cred, src, (uint64_t)src_off, dst, (uint64_t)dst_off, len, how,
		     NULL);
	if (n < 0) {
		/*
		 * Somebody who maps the source does not let go of it (he is stopped, perhaps): it cannot be shared, but read. This is the error after which callers do that. (EXDEV: the kernel
		 * would try to, by pages, which it cannot be given.)
		 */
		ops_reply(req, n == -EBUSY ? -EINVAL : (int)n);
		return;
	}
	worker_count(&worker_now->cloned_bytes, (uint64_t)n);
	if (wire_now.copy_64)
		fuse_reply_buf(req, (const char *)&n, sizeof(n));
	else
		fuse_reply_write(req, (size_t)n);
}

static void seek(fuse_req_t req, uint64_t ino, uint64_t off, int whence)
{
	uint64_t found;
	int rc = fs_seek(req_session(req)->fs, ino, off, whence, &found);

	if (rc)
		ops_reply(req, rc);
	else
		fuse_reply_lseek(req, (off_t)found);
}

/* A seek that has to wait for the kernel. */
struct seek_work {
	struct defer_work work;
	fuse_req_t req;
	uint64_t ino, off;
	int whence;
};

static void seek_deferred(struct defer_work *work)
{
	struct seek_work *w = container_of(work, struct seek_work, work);
	off_t start = (off_t)u64_align_down(w->off, BLOCK_SIZE);

	(void)session_drop(req_session(w->req), w->ino, start, 0);
	seek(w->req, w->ino, w->off, w->whence);
	free(w);
}

/*
 * The kernel does not write dirty pages of a mapping before it asks where data is, so what was stored into a hole would be taken for
 * a hole still. While somebody could have such pages it is made to write them.
 */
void ops_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
	struct session *session = req_session(req);
	struct seek_work *w = NULL;

	(void)fi;
	if (fs_is_mappable(session->fs, ino))
		w = malloc(sizeof(*w));
	if (w) {
		*w = (struct seek_work){ { .fn = seek_deferred }, req, ino, (uint64_t)off, whence };
		if (defer_add(session->defer, &w->work))
			return;
		free(w);
	}
	seek(req, ino, (uint64_t)off, whence);
}
