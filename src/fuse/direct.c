/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * See direct.h. And the private ioctls about it.
 */
#include "fuse/direct.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "fs/holders.h"
#include "fuse/ops.h"

void session_set_direct(struct session *session, const struct session_direct *direct)
{
	session->direct = direct;
}

bool direct_is_stored(const struct session *session, uint64_t ino)
{
	const struct session_direct *d = session->direct;

	return d && d->is_stored(d->arg, ino);
}

void direct_look(const struct session *session, uint64_t ino)
{
	const struct session_direct *d = session->direct;

	if (d && d->is_stored(d->arg, ino))
		d->look(d->arg, ino);
}

void direct_paged(const struct session *session, uint64_t ino, uint64_t fh)
{
	const struct session_direct *d = session->direct;

	if (!direct_is_stored(session, ino) || !opens_add_pages(session->opens, ino, fh >> OPS_FH_OPEN_SHIFT))
		return;
	/* In this order: whoever is ready after this has seen that it counts. */
	fs_cached(session->fs, ino);
	d->unready(d->arg, ino);
}

bool direct_closed(const struct session *session, uint64_t fh)
{
	return session->direct && fh >> OPS_FH_OPEN_SHIFT &&
	       opens_remove(session->opens, fh >> OPS_FH_OPEN_SHIFT);
}

bool session_excuse_open(struct session *session, uint64_t open)
{
	return opens_excuse(session->opens, open);
}

bool session_accuse_open(struct session *session, uint64_t open)
{
	return opens_accuse(session->opens, open);
}

uint32_t session_cached_opens(struct session *session, uint64_t ino)
{
	/* In this order: an open that is closed in between counts. */
	uint32_t count = fs_cached_opens(session->fs, ino);
	uint32_t excused = count ? opens_excused(session->opens, ino, false) : 0;

	return count > excused ? count - excused : 0;
}

uint32_t session_through_opens(struct session *session, uint64_t ino)
{
	uint32_t count = fs_through_opens(session->fs, ino);
	uint32_t excused = count ? opens_excused(session->opens, ino, true) : 0;

	return count > excused ? count - excused : 0;
}

int session_take_token(struct session *session, const struct umbra_token *token, pid_t pid,
		       struct token_file *file)
{
	struct inode_attr attr;
	int rc = token_use(session->tokens, token, pid, file);

	if (!rc)
		rc = fs_getattr(session->fs, file->ino, &attr);
	if (!rc && attr.gen != file->gen)
		rc = -ESTALE;
	return rc;
}

/* ---- pages of the kernel ---- */

struct drop_work {
	struct defer_work work;
	struct session *session;
	uint64_t ino;
	pthread_mutex_t lock;
	pthread_cond_t over;
	bool is_over; /* (lock) */
};

static void drop_deferred(struct defer_work *work)
{
	struct drop_work *w = container_of(work, struct drop_work, work);

	uint64_t drop = fs_drop_begin(w->session->fs, w->ino);
	int rc = session_drop(w->session, w->ino, 0, 0);

	/* -ENOENT: it knows none. Anything else: it is going away. */
	if (rc == 0 || rc == -ENOENT)
		fs_drop_end(w->session->fs, w->ino, drop);
	pthread_mutex_lock(&w->lock);
	w->is_over = true;
	pthread_cond_signal(&w->over);
	pthread_mutex_unlock(&w->lock);
}

int session_drop_pages(struct session *session, uint64_t ino)
{
	struct drop_work w = { .work = { .fn = drop_deferred }, .session = session, .ino = ino };
	int rc = 0;

	pthread_mutex_init(&w.lock, NULL);
	pthread_cond_init(&w.over, NULL);
	if (defer_add(session->defer, &w.work)) {
		pthread_mutex_lock(&w.lock);
		while (!w.is_over)
			pthread_cond_wait(&w.over, &w.lock);
		pthread_mutex_unlock(&w.lock);
	} else {
		rc = -ESHUTDOWN;
	}
	pthread_cond_destroy(&w.over);
	pthread_mutex_destroy(&w.lock);
	return rc;
}

/* ---- ioctls ---- */

void ops_direct(fuse_req_t req)
{
	const struct session_direct *d = req_session(req)->direct;
	struct umbra_direct about = { .version = UMBRA_DIRECT_VERSION };
	struct fs_cred cred = ops_cred(req);

	if (d)
		d->about(d->arg, &cred, &about);
	fuse_reply_ioctl(req, 0, &about, sizeof(about));
}

void ops_shadows(fuse_req_t req, const void *in)
{
	const struct session_direct *d = req_session(req)->direct;
	struct umbra_shadows *reply = (void *)worker_now->buf;
	uid_t uid = fuse_req_ctx(req)->uid;
	int rc = 0;

	memset(reply, 0, sizeof(*reply));
	memcpy(reply, in, offsetof(struct umbra_shadows, shadows));
	if (uid != 0 && uid != getuid())
		rc = -EPERM;
	else if (reply->count != 0 || reply->len > UINT64_MAX - reply->dev_off)
		rc = -EINVAL;
	else if (d)
		rc = d->shadows(d->arg, reply);
	if (rc)
		ops_reply(req, rc);
	else
		fuse_reply_ioctl(req, 0, reply, sizeof(*reply));
}
