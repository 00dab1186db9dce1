/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The life of a mount: open, workers, end.
 *
 * A worker reads a request and carries it out; libfuse parses it and puts the answer together. The end comes from the kernel (the mount is gone:
 * read gives ENODEV to all workers) or from session_stop(), which detaches the mount first, so that the same happens, and if somebody
 * still uses it stops the workers by a signal. session->lock is only held to look at and change the fields marked (lock).
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fuse.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "dax/dax.h"
#include "fuse/events.h"
#include "fuse/again.h"
#include "fuse/ops.h"
#include "fuse/resend_wire.h"
#include "fuse/workers.h"
#include "util/log.h"

#define DEFER_THREADS 2u
#define TELLERS (DEFER_THREADS + 1) /* one for each thread that has something to tell */
#define GRACE_MS 2000
#define BACKGROUND_MAX 64
#define READAHEAD_KIB 512u
#define REPLY_SMALL 512u
#define KICK_MS 20
#define QUIET_TIMES 5u

_Thread_local struct worker *worker_now;

static void want(struct fuse_conn_info *conn, unsigned caps)
{
	conn->want |= caps & conn->capable;
}

static void ops_init(void *userdata, struct fuse_conn_info *conn)
{
	(void)userdata;

	want(conn, FUSE_CAP_ASYNC_READ | FUSE_CAP_EXPORT_SUPPORT | FUSE_CAP_DONT_MASK | FUSE_CAP_IOCTL_DIR |
			   FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_PARALLEL_DIROPS |
			   FUSE_CAP_POSIX_ACL | FUSE_CAP_HANDLE_KILLPRIV | FUSE_CAP_CACHE_SYMLINKS |
			   FUSE_CAP_EXPLICIT_INVAL_DATA);
	/*
	 * Copying wins over splicing; the cache is told what changed, it need not guess from times. An open that truncates as well would have
	 * done so by the time that the kernel refuses it (ETXTBSY): it comes in two steps. Of a direct write that is asynchronous the kernel
	 * drops the pages when it is sent and never after, and its pieces come in any order.
	 */
	conn->want &= ~(unsigned)(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE |
				  FUSE_CAP_ASYNC_DIO | FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_WRITEBACK_CACHE |
				  FUSE_CAP_ATOMIC_O_TRUNC);
	conn->max_write = OPS_WRITE_MAX;
	conn->max_readahead = OPS_WRITE_MAX;
	conn->max_background = BACKGROUND_MAX;
	conn->congestion_threshold = BACKGROUND_MAX * 3 / 4;
	conn->time_gran = 1;
}

const struct fuse_lowlevel_ops ops_all = {
	.init = ops_init,
	.lookup = ops_lookup,
	.forget = ops_forget,
	.forget_multi = ops_forget_multi,
	.getattr = ops_getattr,
	.setattr = ops_setattr,
	.readlink = ops_readlink,
	.mknod = ops_mknod,
	.mkdir = ops_mkdir,
	.unlink = ops_unlink,
	.rmdir = ops_rmdir,
	.symlink = ops_symlink,
	.rename = ops_rename,
	.link = ops_link,
	.open = ops_open,
	.create = ops_create,
	.read = ops_read,
	.write = ops_write,
	.release = ops_release,
	.fsync = ops_fsync,
	.opendir = ops_opendir,
	.readdir = ops_readdir,
	.readdirplus = ops_readdirplus,
	.statfs = ops_statfs,
	.setxattr = ops_setxattr,
	.getxattr = ops_getxattr,
	.listxattr = ops_listxattr,
	.removexattr = ops_removexattr,
	.ioctl = ops_ioctl,
	.fallocate = ops_fallocate,
	.copy_file_range = ops_copy_file_range,
	.lseek = ops_lseek,
};

/* ---- between libfuse and the kernel ---- */

void session_init_over(struct session *session, int rc)
{
	pthread_mutex_lock(&session->lock);
	session->is_init_over = true;
	session->init_rc = rc;
	pthread_cond_broadcast(&session->changed);
	pthread_mutex_unlock(&session->lock);
}

/* In one piece if it is small: the kernel pins the pages of each piece, which costs more than to copy these bytes. */
static ssize_t reply_write(int fd, const struct iovec *iov, int count)
{
	char reply[REPLY_SMALL];
	size_t size = 0;

	for (int i = 0; i < count; i++) {
		if (iov[i].iov_len > sizeof(reply) - size)
			return writev(fd, iov, count);
		memcpy(reply + size, iov[i].iov_base, iov[i].iov_len);
		size += iov[i].iov_len;
	}
	return write(fd, reply, size);
}

/* What goes over io_uring does so here; the rest is about to be written. */
static bool session_replied(struct session *session, const struct iovec *iov, int count)
{
	if (session->uring && uring_reply(session->uring, iov, count))
		return true;
	if (worker_now && worker_now->seat)
		place_replied(worker_now->seat);
	return false;
}

/* The kernel has had this answer from another daemon: is it the same? */
static bool init_is_same(struct session *session, const struct iovec *iov, int count)
{
	const struct kept_head *head = kept_head(session->kept);
	struct fuse_init_out was = { 0 }, now = { 0 };

	if (count < 2)
		return false;
	memcpy(&was, head->answer, u64_min(head->answer_size, sizeof(was)));
	memcpy(&now, iov[1].iov_base, u64_min(iov[1].iov_len, sizeof(now)));
	return was.major == now.major && was.flags == now.flags && was.flags2 == now.flags2;
}

static ssize_t init_answer(struct session *session, int fd, struct iovec *iov, int count)
{
	const struct fuse_out_header *out = iov[0].iov_base;
	ssize_t n = out->len;

	if (session->kept && atomic_load(&kept_head(session->kept)->is_agreed)) {
		session_init_over(session, init_is_same(session, iov, count) ? out->error : -EPROTO);
		return n;
	}
	if (session->kept && !out->error)
		kept_agree(session->kept, iov, count);
	n = reply_write(fd, iov, count);
	session_init_over(session, n < 0 ? -errno : out->error);
	return n;
}

/* The receipt of what has been answered is of no use any more. */
static void receipt_over(uint64_t unique)
{
	if (!kept_now || atomic_load_explicit(&kept_now->unique, memory_order_relaxed) != unique)
		return;
	kept_release(kept_now);
	kept_now = NULL;
	fs_receipt_set(NULL);
}

static ssize_t io_writev(int fd, struct iovec *iov, int count, void *userdata)
{
	const struct fuse_out_header *out = iov[0].iov_base;
	struct session *session = userdata;
	ssize_t n;

	if (session_replied(session, iov, count))
		return 1;
	if (wire_reply(&session->wire, iov, count))
		return init_answer(session, fd, iov, count);
	n = reply_write(fd, iov, count);
	if (kept_now) {
		int error = errno;

		receipt_over(out->unique & ~RESEND_UNIQUE);
		errno = error;
	}
	return n;
}

static ssize_t io_read(int fd, void *buf, size_t size, void *userdata)
{
	(void)userdata;
	return read(fd, buf, size);
}

int session_send(struct session *session, struct iovec *iov, int count)
{
	if (session_replied(session, iov, count))
		return 0;
	return reply_write(session->fd, iov, count) < 0 ? -errno : 0;
}

void session_serve(struct worker *worker, char *request, size_t size)
{
	struct session *session = worker->session;
	struct fuse_buf buf = { .size = size };
	enum wire_verdict verdict;

	worker_count(&worker->requests, 1);
	verdict = wire_request(&session->wire, &request, &buf.size);
	if (session->kept && !again_begin(session, request, buf.size))
		return;
	switch (verdict) {
	case WIRE_DROP:
		break;
	case WIRE_STATX:
		ops_statx(session, request);
		break;
	case WIRE_PASS:
		buf.mem = request;
		fuse_session_process_buf(session->se, &buf);
		break;
	}
	if (session->kept)
		again_end();
}

/* ---- open ---- */

static void libfuse_log(enum fuse_log_level level, const char *fmt, va_list ap)
{
	char line[256];

	vsnprintf(line, sizeof(line), fmt, ap);
	line[strcspn(line, "\n")] = '\0';
	if (level <= FUSE_LOG_ERR)
		log_warn("libfuse: %s", line);
	else
		log_debug("libfuse: %s", line);
}

static int session_attach(struct session *session, char *why, size_t why_size)
{
	static const struct fuse_custom_io io = { .writev = io_writev, .read = io_read };
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	struct statx sx;
	int rc;

	fuse_set_log_func(libfuse_log);
	if (fuse_opt_add_arg(&args, "umbrafs") == 0)
		session->se = fuse_session_new(&args, &ops_all, sizeof(ops_all), session);
	fuse_opt_free_args(&args);
	if (!session->se) {
		snprintf(why, why_size, "out of memory");
		return -ENOMEM;
	}
	rc = session->is_taken ? 0 : mount_attach(session, why, why_size);
	if (rc)
		return rc;
	if (session->is_taken) {
		session->dev_major = kept_head(session->kept)->dev_major;
		session->dev_minor = kept_head(session->kept)->dev_minor;
	} else if (statx(AT_FDCWD, session->opts.mountpoint, AT_STATX_DONT_SYNC, STATX_TYPE, &sx) == 0) {
		session->dev_major = sx.stx_dev_major;
		session->dev_minor = sx.stx_dev_minor;
	}
	if (session->kept) {
		kept_head(session->kept)->dev_major = session->dev_major;
		kept_head(session->kept)->dev_minor = session->dev_minor;
	}
	if (fuse_session_custom_io(session->se, &io, session->fd)) {
		mount_detach(session);
		snprintf(why, why_size, "libfuse refused the connection");
		return -EIO;
	}
	return 0;
}

/* -errno: the one that is asked for cannot be had. */
static int transport_open(struct session *session, char *why, size_t why_size)
{
	int rc;

	/* What a dead daemon had read over io_uring is not sent again. */
	if (session->opts.transport == SESSION_TRANSPORT_DEV || session->kept)
		return 0;
	rc = uring_open(session, &session->uring, session->transport_why, sizeof(session->transport_why));
	session->wire.want_uring = rc == 0;
	if (rc == 0 || session->opts.transport == SESSION_TRANSPORT_AUTO)
		return 0;
	snprintf(why, why_size, "transport=uring: %s", session->transport_why);
	return rc;
}

int session_open(struct fs *fs, const struct session_opts *opts, struct session **out, char *why,
		 size_t why_size)
{
	struct session *session = calloc(1, sizeof(*session));
	int rc;

	if (!session) {
		snprintf(why, why_size, "out of memory");
		return -ENOMEM;
	}
	session->fs = fs;
	session->opts = *opts;
	session->fd = -1;
	session->kept = opts->kept;
	session->is_taken = kept_is_taken(opts->kept);
	if (session->is_taken)
		session->fd = opts->connection_fd;
	if (session->kept) /* opens of different daemons have different numbers */
		session->open_count = (uint64_t)atomic_fetch_add(&kept_head(session->kept)->starts, 1) << 32;
	session->wire.want_direct_mmap = opts->dax != SESSION_DAX_NEVER;
	pthread_mutex_init(&session->lock, NULL);
	pthread_cond_init(&session->changed, NULL);
	if (transport_open(session, why, why_size)) {
		session_close(session);
		return -EOPNOTSUPP;
	}
	rc = place_open(opts->threads, opts->placement == SESSION_PLACE_CALLER, &session->place);
	if (rc == 0)
		rc = workers_alloc(session);
	if (rc == 0)
		rc = token_open(session->kept ? kept_tokens(session->kept) : NULL, &session->tokens);
	if (rc == 0)
		rc = opens_new(&session->opens);
	if (rc == 0) {
		session->scrub = scrub_new(fs);
		rc = session->scrub ? 0 : -ENOMEM;
	}
	if (rc == 0)
		rc = events_new(session, &session->events);
	if (rc)
		snprintf(why, why_size, "%s", strerror(-rc));
	else
		rc = session_attach(session, why, why_size);
	if (rc) {
		session_close(session);
		return rc;
	}
	*out = session;
	return 0;
}

/* ---- run and end ---- */

enum session_placement session_placement(const struct session *session)
{
	return place_at_caller(session->place) ? SESSION_PLACE_CALLER : SESSION_PLACE_SPREAD;
}

unsigned session_dev_minor(const struct session *session)
{
	return session->dev_minor;
}

/*
 * Larger reads ahead than the kernel's default of 128 KiB: fewer requests for a stream. Only root may say so, and it is no loss if it
 * cannot be said.
 */
static void readahead_set(const struct session *session)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", session->dev_major,
		 session->dev_minor);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (dprintf(fd, "%u\n", READAHEAD_KIB) < 0)
		log_debug("%s: %s", path, strerror(errno));
	close(fd);
}

/*
 * Until the kernel has our answer to INIT, and so sends all others. Asks nothing of the mount: who is killed meanwhile can go. rc is what went wrong
 * before: then the kernel must not wait for queues.
 */
static int init_wait(struct session *session, int rc)
{
	bool is_over;

	pthread_mutex_lock(&session->lock);
	while (!session->is_init_over && atomic_load(&session->running) > 0)
		pthread_cond_wait(&session->changed, &session->lock);
	is_over = session->is_init_over;
	if (rc == 0)
		rc = is_over ? session->init_rc : -ENOTCONN;
	pthread_mutex_unlock(&session->lock);
	if (rc && is_over && wire_uring(&session->wire))
		uring_refuse(session->uring);
	return rc;
}

/* No requests are on their way before this is over, one way or the other. */
static int transport_go(struct session *session)
{
	struct uring *uring = session->uring;
	char *why = session->transport_why;
	int rc = -EOPNOTSUPP;

	if (!uring)
		return 0;
	if (wire_uring(&session->wire))
		rc = uring_go(uring, why, sizeof(session->transport_why));
	else
		snprintf(why, sizeof(session->transport_why), "the kernel does not offer it");
	if (rc == 0) {
		atomic_store(&session->is_uring, true);
		return 0;
	}
	uring_end(uring);
	return session->opts.transport == SESSION_TRANSPORT_AUTO ? 0 : rc;
}

bool session_is_uring(const struct session *session, const char **why)
{
	*why = session->transport_why;
	return atomic_load(&session->is_uring);
}

/* Somebody else reads requests meanwhile. */
static void wait_for_holders(void *arg, bool begins)
{
	struct session *session = arg;

	/* Of the file system's own threads, which may live longer than the mount. */
	if (!worker_now)
		return;
	if (worker_now->ring_seat)
		uring_wait(session->uring, worker_now->ring_seat, begins);
	else
		workers_wait(session, begins);
}

int session_run(struct session *session)
{
	int rc = defer_open(DEFER_THREADS, &session->defer);

	if (rc == 0)
		rc = defer_open(1, &session->mover);
	if (rc == 0 && session->kept)
		rc = defer_open_alone(TELLERS, session->fd, &session->tellers);
	if (rc == 0)
		rc = asks_open(session->opts.threads > 1, &session->asks);
	if (rc == 0) {
		fs_on_poison(session->fs, events_note, session->events);
		fs_on_wait(session->fs, wait_for_holders, session);
	}
	if (rc == 0 && session->uring)
		rc = uring_start(session->uring);
	if (rc == 0)
		place_watch(session->place, session->fd);
	if (rc == 0 && session->is_taken)
		rc = resend_all(session);
	if (rc == 0)
		rc = workers_start(session);
	rc = init_wait(session, rc);
	if (rc == 0 && session->kept && !session->is_taken && !wire_resends(&session->wire))
		rc = -EOPNOTSUPP;
	if (rc == 0)
		rc = transport_go(session);
	if (rc == 0 && !session->is_taken) /* once: root may have changed it since */
		readahead_set(session);
	if (rc == 0 && session->opts.dax == SESSION_DAX_ALWAYS && !wire_direct_mmap(&session->wire))
		log_warn("dax=always: this kernel cannot map files shared that bypass its cache");
	/* Without a worker there is nobody whom session_stop() could end. A mount that is taken over goes on with another daemon. */
	if (rc && atomic_load(&session->running) == 0 && !session->is_taken)
		mount_detach(session);
	return rc;
}

int session_connection(const struct session *session)
{
	return session->fd;
}

void session_wait(struct session *session)
{
	pthread_mutex_lock(&session->lock);
	while (atomic_load(&session->running) > 0 && !atomic_load(&session->leave_path))
		pthread_cond_wait(&session->changed, &session->lock);
	pthread_mutex_unlock(&session->lock);
}

/* False: they are still running after ms. */
static bool session_wait_ms(struct session *session, long ms)
{
	struct timespec until;
	int rc = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += ms / 1000;
	until.tv_nsec += ms % 1000 * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	pthread_mutex_lock(&session->lock);
	while (atomic_load(&session->running) > 0 && rc != ETIMEDOUT)
		rc = pthread_cond_clockwait(&session->changed, &session->lock, CLOCK_MONOTONIC, &until);
	pthread_mutex_unlock(&session->lock);
	return rc == 0;
}

/* So many times 20 ms at most; some may be at something longer. */
static void readers_stop(struct session *session, unsigned times)
{
	fuse_session_exit(session->se);
	atomic_store(&session->exiting, true);
	place_end(session->place);
	do {
		/* One may be just about to read: once is not enough. */
		workers_kick(session);
	} while (!session_wait_ms(session, KICK_MS) && --times > 0);
}

/* Somebody still has files open: they get ENOTCONN from now on. */
static void workers_stop(struct session *session)
{
	defer_close(session->defer);
	defer_close(session->mover);
	if (session->tellers)
		defer_close(session->tellers);
	readers_stop(session, UINT_MAX);
}

void session_leave(struct session *session, const char *path)
{
	char *copy = strdup(path), *none = NULL;

	if (!copy || !atomic_compare_exchange_strong(&session->leave_path, &none, copy)) {
		free(copy);
		return;
	}
	pthread_mutex_lock(&session->lock);
	pthread_cond_broadcast(&session->changed);
	pthread_mutex_unlock(&session->lock);
}

const char *session_leaving(const struct session *session)
{
	return atomic_load(&session->leave_path);
}

void session_stay(struct session *session)
{
	free(atomic_exchange(&session->leave_path, NULL));
}

void session_quiet(struct session *session)
{
	tellings_end(session);
	readers_stop(session, QUIET_TIMES);
}

void session_stop(struct session *session)
{
	bool first;
	int rc;

	pthread_mutex_lock(&session->lock);
	first = !session->stop;
	session->stop = true;
	pthread_mutex_unlock(&session->lock);
	if (!first || atomic_load(&session->running) == 0)
		return;
	rc = mount_sync(session);
	if (rc)
		log_warn("%s: flushing: %s", session->opts.mountpoint, strerror(-rc));
	mount_detach(session);
	if (!session_wait_ms(session, GRACE_MS)) {
		log_warn("%s: still in use; its users get 'Transport endpoint is not connected'",
			 session->opts.mountpoint);
		workers_stop(session);
	}
}

static void defer_end(struct defer *defer)
{
	if (!defer)
		return;
	defer_close(defer);
	defer_free(defer);
}

void session_close(struct session *session)
{
	workers_join(session);
	defer_end(session->defer);
	defer_end(session->mover);
	defer_end(session->tellers);
	if (session->uring)
		uring_end(session->uring);
	asks_close(session->asks);
	fs_on_poison(session->fs, NULL, NULL);
	fs_on_wait(session->fs, NULL, NULL);
	if (session->place)
		place_close(session->place);
	if (session->uring)
		uring_close(session->uring);
	if (session->se)
		fuse_session_destroy(session->se); /* closes the connection */
	scrub_free(session->scrub);
	events_free(session->events);
	if (session->tokens)
		token_close(session->tokens);
	opens_free(session->opens);
	workers_free(session);
	free(session->leave_path);
	pthread_cond_destroy(&session->changed);
	pthread_mutex_destroy(&session->lock);
	free(session);
}

void session_counts(struct session *session, struct session_counts *counts)
{
	*counts = (struct session_counts){ 0 };
	for (unsigned i = 0; i < session->workers_count; i++) {
		struct worker *worker = &session->workers[i];

		counts->requests += atomic_load_explicit(&worker->requests, memory_order_relaxed);
		counts->read_bytes += atomic_load_explicit(&worker->read_bytes, memory_order_relaxed);
		counts->written_bytes += atomic_load_explicit(&worker->written_bytes, memory_order_relaxed);
		counts->cloned_bytes += atomic_load_explicit(&worker->cloned_bytes, memory_order_relaxed);
	}
}
