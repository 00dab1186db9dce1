/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Taking over a mount: what the daemon before this one had read and not answered is carried out, or answered from its receipt (kept.h).
 *
 * First INIT: the kernel has had its answer, so libfuse is told of a kernel that offers what was agreed, and what it answers goes nowhere. Then the kernel
 * is asked for all requests that nobody has answered; it puts them before all others. They are read before anything is done, so that it is known which receipts are
 * of requests that have been answered. Then they are carried out one after the other, before any new one: nobody sees
 * the file system without what has been asked before. A request at which a daemon has ended again and again is answered with EIO.
 */
#include <errno.h>
#include <linux/fuse.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dax/dax.h"
#include "fuse/ops.h"
#include "fuse/resend_wire.h"
#include "util/log.h"

#define PAGE 4096u
#define REQUEST_SIZE (OPS_WRITE_MAX + PAGE)
#define TRIES_MAX 3u /* daemons that have ended at one request */

struct again {
	struct again *next;
	size_t size;
	_Alignas(8) char bytes[];
};

struct agains {
	struct again *first, **last;
	uint64_t *uniques; /* without the kernel's mark */
	size_t count, room;
};

static const struct fuse_in_header *head_of(const struct again *a)
{
	return (const void *)a->bytes;
}

/* Whether there may be one that is sent again behind it: these are read before all others, in any order. */
static bool is_aside(const struct fuse_in_header *in)
{
	return in->opcode == FUSE_FORGET || in->opcode == FUSE_BATCH_FORGET || in->opcode == FUSE_INTERRUPT;
}

static int again_add(struct agains *all, const char *request, size_t size)
{
	struct again *a = malloc(sizeof(*a) + size);

	if (all->count == all->room) {
		size_t room = all->room ? all->room * 2 : 64;
		uint64_t *more = realloc(all->uniques, room * sizeof(*more));

		if (!more) {
			free(a);
			return -ENOMEM;
		}
		all->uniques = more;
		all->room = room;
	}
	if (!a)
		return -ENOMEM;
	a->next = NULL;
	a->size = size;
	memcpy(a->bytes, request, size);
	*all->last = a;
	all->last = &a->next;
	if (!is_aside(head_of(a)))
		all->uniques[all->count++] = head_of(a)->unique & ~RESEND_UNIQUE;
	return 0;
}

/* Up to the first one that is new, which is among them. */
static int agains_read(struct session *session, struct agains *all)
{
	struct pollfd pfd = { .fd = session->fd, .events = POLLIN };
	char *request = malloc(REQUEST_SIZE);
	int rc = request ? 0 : -ENOMEM;

	if (request)
		dax_buffer_hold(request, REQUEST_SIZE);
	while (!rc && poll(&pfd, 1, 0) > 0 && pfd.revents & POLLIN) {
		const struct fuse_in_header *in = (const void *)request;
		ssize_t n = read(session->fd, request, REQUEST_SIZE);

		if (n < 0 && (errno == EINTR || errno == ENOENT || errno == EAGAIN))
			continue;
		if (n < (ssize_t)sizeof(*in)) {
			rc = n < 0 ? -errno : -EIO;
			break;
		}
		rc = again_add(all, request, (size_t)n);
		if (!is_aside(in) && !(in->unique & RESEND_UNIQUE))
			break;
	}
	free(request);
	return rc == -ENODEV ? 0 : rc; /* unmounted: the workers see it too */
}

/* -ENOENT: the caller has gone. */
static int reply_raw(struct session *session, uint64_t unique, int error, void *body, size_t size)
{
	struct fuse_out_header out = { (uint32_t)(sizeof(out) + size), error, unique };
	struct iovec iov[2] = { { &out, sizeof(out) }, { body, size } };

	return session_send(session, iov, size ? 2 : 1);
}

/* False: it has ended too many daemons, and is not to be tried again. */
static bool again_try(struct kept_head *head, uint64_t unique)
{
	if (head->trying != unique) {
		head->trying_count = 0;
		head->trying = unique;
	}
	return ++head->trying_count <= TRIES_MAX;
}

static void again_serve(struct session *session, struct worker *worker, struct again *a)
{
	struct kept_head *head = kept_head(session->kept);
	const struct fuse_in_header *in = head_of(a);
	uint64_t unique = in->unique;

	if (in->opcode == FUSE_INIT) {
		(void)!reply_raw(session, unique, 0, head->answer, head->answer_size);
	} else if (is_aside(in) || !(unique & RESEND_UNIQUE)) {
		session_serve(worker, a->bytes, a->size);
	} else if (again_try(head, unique & ~RESEND_UNIQUE)) {
		session_serve(worker, a->bytes, a->size);
		head->trying = 0;
	} else {
		log_error("request %u of process %u ended %u daemons: it is answered with EIO", in->opcode,
			  in->pid, TRIES_MAX);
		(void)!reply_raw(session, unique, -EIO, NULL, 0);
		head->trying = 0;
	}
}

static int unique_compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static int agains_serve(struct session *session, struct agains *all)
{
	uint32_t short_count = atomic_load(&kept_head(session->kept)->receipts_short);
	struct worker *worker = calloc(1, sizeof(*worker));
	int rc = worker ? worker_init(session, worker) : -ENOMEM;

	if (!rc) {
		qsort(all->uniques, all->count, sizeof(*all->uniques), unique_compare);
		kept_sweep(session->kept, all->uniques, all->count);
		if (all->count)
			log_debug("%zu requests are asked again", all->count);
		worker_now = worker;
		for (struct again *a = all->first; a; a = a->next)
			again_serve(session, worker, a);
		worker_now = NULL;
		/* A lack of long ago must not have requests refused that nobody had begun. */
		kept_settled(session->kept, short_count);
	}
	if (worker)
		worker_free(worker);
	free(worker);
	return rc;
}

/* ---- INIT ---- */

/* In the layout that the kernel has sent: what was not agreed is not offered. */
struct init_in {
	uint32_t major, minor, max_readahead, flags, flags2;
};

static int agree_again(struct session *session)
{
	struct kept_head *head = kept_head(session->kept);
	struct fuse_init_out agreed = { 0 };
	struct worker *worker;
	char request[KEPT_INIT_MAX];
	struct init_in *in = (void *)(request + sizeof(struct fuse_in_header));
	int rc;

	if (head->init_size < sizeof(struct fuse_in_header) + sizeof(*in) || head->answer_size < 24)
		return -EPROTO;
	memcpy(request, head->init, head->init_size);
	memcpy(&agreed, head->answer, u64_min(head->answer_size, sizeof(agreed)));
	if (agreed.max_write > OPS_WRITE_MAX)
		return -EPROTO;
	in->flags &= agreed.flags;
	in->flags2 &= agreed.flags2;
	worker = calloc(1, sizeof(*worker));
	rc = worker ? worker_init(session, worker) : -ENOMEM;
	if (!rc) {
		worker_now = worker;
		session_serve(worker, request, head->init_size);
		worker_now = NULL;
	}
	if (worker)
		worker_free(worker);
	free(worker);
	pthread_mutex_lock(&session->lock);
	if (!rc)
		rc = session->is_init_over ? session->init_rc : -EPROTO;
	pthread_mutex_unlock(&session->lock);
	return rc;
}

int resend_all(struct session *session)
{
	struct fuse_out_header notify = { sizeof(notify), RESEND_NOTIFY, 0 };
	struct iovec iov = { &notify, sizeof(notify) };
	struct agains all = { .last = &all.first };
	int rc = 0;

	/* Else INIT itself comes again. */
	if (atomic_load(&kept_head(session->kept)->is_agreed))
		rc = agree_again(session);
	if (!rc && writev(session->fd, &iov, 1) < 0)
		rc = errno == ENODEV ? 0 : -errno;
	if (!rc && atomic_load(&kept_head(session->kept)->is_agreed))
		rc = agains_read(session, &all);
	if (!rc && atomic_load(&kept_head(session->kept)->is_agreed))
		rc = agains_serve(session, &all);
	while (all.first) {
		struct again *a = all.first;

		all.first = a->next;
		free(a);
	}
	free(all.uniques);
	return rc;
}
