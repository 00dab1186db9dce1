/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * See carry.h. One thread carries them out; while it waits another one does, which is started for that. A thread that has waited goes on where it was, and then takes what is left, as the others.
 */
#include "fuse/carry.h"

#include <errno.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "fuse/ops.h"
#include "fuse/place.h"
#include "fuse/resend_wire.h"
#include "util/log.h"
#include "util/sabotage.h"

#define TRIES_MAX 3u                 /* daemons that have ended at one request */
#define THREADS_MAX (KEPT_TRIES / 2) /* a daemon before may have left as many tries */

struct carry {
	struct session *session;
	uint32_t short_count; /* receipts that were short when it began */
	pthread_attr_t attr;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct again *next; /* (lock) the first one that nobody has begun */
	unsigned threads;   /* (lock) */
	unsigned waiting;   /* (lock) of these */
};

/* A thread. */
struct carrier {
	struct worker worker;
	uint64_t trying; /* the request that it is at; 0: one whose tries are not counted */
};

static const struct fuse_in_header *head_of(const struct again *a)
{
	return (const void *)a->bytes;
}

bool carry_is_aside(const struct fuse_in_header *in)
{
	return in->opcode == FUSE_FORGET || in->opcode == FUSE_BATCH_FORGET || in->opcode == FUSE_INTERRUPT;
}

/* ---- how often each has been tried ---- */

/* (lock) NULL: more are tried at once than can be counted. */
static struct kept_try *try_of(struct kept_head *head, uint64_t unique)
{
	struct kept_try *none = NULL;

	for (unsigned i = 0; i < KEPT_TRIES; i++) {
		struct kept_try *t = &head->tries[i];

		if (t->unique == unique)
			return t;
		if (!t->unique)
			none = t;
	}
	if (none)
		*none = (struct kept_try){ unique, 0 };
	return none;
}

/* False: it has ended too many daemons, and is not to be tried again. */
static bool try_begin(struct carry *carry, uint64_t unique)
{
	struct kept_head *head = kept_head(carry->session->kept);
	struct kept_try *t;
	bool ok;

	pthread_mutex_lock(&carry->lock);
	atomic_store(&head->trying, unique);
	t = try_of(head, unique);
	ok = !t || ++t->count <= TRIES_MAX;
	pthread_mutex_unlock(&carry->lock);
	return ok;
}

/* It has come to its end; or waits, and what becomes of the daemon is not its fault. */
static void try_end(struct carry *carry, uint64_t unique, bool waits)
{
	struct kept_head *head = kept_head(carry->session->kept);
	struct kept_try *t;

	pthread_mutex_lock(&carry->lock);
	t = try_of(head, unique);
	if (t && (!waits || t->count <= 1))
		*t = (struct kept_try){ 0, 0 };
	else if (t)
		t->count--;
	if (atomic_load(&head->trying) == unique)
		atomic_store(&head->trying, 0);
	pthread_mutex_unlock(&carry->lock);
}

static int unique_compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* Those that have been answered meanwhile. */
static void tries_sweep(struct kept_head *head, const uint64_t *uniques, size_t count)
{
	for (unsigned i = 0; i < KEPT_TRIES; i++) {
		struct kept_try *t = &head->tries[i];

		if (t->unique &&
		    !(count && bsearch(&t->unique, uniques, count, sizeof(*uniques), unique_compare)))
			*t = (struct kept_try){ 0, 0 };
	}
}

/* ---- one request ---- */

/* -ENOENT: the caller has gone. */
static int reply_raw(struct session *session, uint64_t unique, int error, void *body, size_t size)
{
	struct fuse_out_header out = { (uint32_t)(sizeof(out) + size), error, unique };
	struct iovec iov[2] = { { &out, sizeof(out) }, { body, size } };

	return session_send(session, iov, size ? 2 : 1);
}

static void again_serve(struct carry *carry, struct carrier *carrier, struct again *a)
{
	struct session *session = carry->session;
	struct kept_head *head = kept_head(session->kept);
	const struct fuse_in_header *in = head_of(a);
	uint64_t unique = in->unique & ~RESEND_UNIQUE;

	if (in->opcode == FUSE_INIT) {
		(void)!reply_raw(session, in->unique, 0, head->answer, head->answer_size);
	} else if (carry_is_aside(in) || !(in->unique & RESEND_UNIQUE)) {
		session_serve(&carrier->worker, a->bytes, a->size);
	} else if (try_begin(carry, unique)) {
		carrier->trying = unique;
		session_serve(&carrier->worker, a->bytes, a->size);
		carrier->trying = 0;
		try_end(carry, unique, false);
	} else {
		log_error("request %u of process %u ended %u daemons: it is answered with EIO", in->opcode,
			  in->pid, TRIES_MAX);
		(void)!reply_raw(session, in->unique, -EIO, NULL, 0);
		try_end(carry, unique, false);
	}
}

/* ---- threads ---- */

/* NULL: there is none, and the calling thread counts no more. */
static struct again *again_take(struct carry *carry)
{
	struct again *a;

	pthread_mutex_lock(&carry->lock);
	a = carry->next;
	if (a) {
		carry->next = a->next;
	} else {
		/* A lack of long ago must not have requests refused that nobody had begun. */
		if (--carry->threads == 0)
			kept_settled(carry->session->kept, carry->short_count);
		pthread_cond_broadcast(&carry->changed);
	}
	pthread_mutex_unlock(&carry->lock);
	return a;
}

static void carrier_free(struct carrier *carrier)
{
	if (carrier)
		worker_free(&carrier->worker);
	free(carrier);
}

static void *carrier_run(void *arg)
{
	struct carrier *carrier = arg;
	struct carry *carry = carrier->worker.carry;
	struct again *a;

	worker_now = &carrier->worker;
	while ((a = again_take(carry))) {
		again_serve(carry, carrier, a);
		free(a);
	}
	worker_now = NULL;
	carrier_free(carrier);
	return NULL;
}

/* (lock) */
static int carrier_start(struct carry *carry)
{
	struct carrier *carrier = carry->threads < THREADS_MAX ? calloc(1, sizeof(*carrier)) : NULL;
	pthread_t thread;
	int rc = carrier ? worker_init(carry->session, &carrier->worker) : -ENOMEM;

	if (!rc) {
		carrier->worker.carry = carry;
		rc = -pthread_create(&thread, &carry->attr, carrier_run, carrier);
	}
	if (rc)
		carrier_free(carrier);
	else
		carry->threads++;
	return rc;
}

void carry_wait(struct worker *worker, bool begins)
{
	struct carrier *carrier = container_of(worker, struct carrier, worker);
	struct carry *carry = worker->carry;

	if (sabotage_point("carry-aside"))
		return;
	if (carrier->trying && begins && !sabotage_point("carry-tries"))
		try_end(carry, carrier->trying, true);
	pthread_mutex_lock(&carry->lock);
	if (!begins)
		carry->waiting--;
	else
		carry->waiting++;
	/* Without one more they are carried out after the wait. */
	if (begins && carry->next && carry->waiting == carry->threads)
		(void)!carrier_start(carry);
	pthread_cond_broadcast(&carry->changed);
	pthread_mutex_unlock(&carry->lock);
	if (carrier->trying && !begins && !sabotage_point("carry-tries"))
		(void)!try_begin(carry, carrier->trying);
}

/* ---- all ---- */

static int carry_open(struct session *session, struct carry **out)
{
	struct carry *carry = calloc(1, sizeof(*carry));
	int rc = carry ? place_attr(&carry->attr) : -ENOMEM;

	if (rc) {
		free(carry);
		return rc;
	}
	pthread_attr_setdetachstate(&carry->attr, PTHREAD_CREATE_DETACHED);
	pthread_mutex_init(&carry->lock, NULL);
	pthread_cond_init(&carry->changed, NULL);
	carry->session = session;
	carry->short_count = atomic_load(&kept_head(session->kept)->receipts_short);
	*out = carry;
	return 0;
}

int carry_all(struct session *session, struct again **first, uint64_t *uniques, size_t count,
	      struct carry **out)
{
	struct carry *carry;
	int rc = carry_open(session, out);

	if (rc)
		return rc;
	carry = *out;
	qsort(uniques, count, sizeof(*uniques), unique_compare);
	kept_sweep(session->kept, uniques, count);
	tries_sweep(kept_head(session->kept), uniques, count);
	if (count)
		log_debug("%zu requests are asked again", count);
	pthread_mutex_lock(&carry->lock);
	carry->next = *first;
	*first = NULL;
	rc = carrier_start(carry);
	while (!rc && (carry->next || carry->waiting < carry->threads))
		pthread_cond_wait(&carry->changed, &carry->lock);
	if (!rc && carry->threads)
		log_debug("%u of them wait", carry->threads);
	pthread_mutex_unlock(&carry->lock);
	return rc;
}

void carry_close(struct carry *carry)
{
	if (!carry)
		return;
	pthread_mutex_lock(&carry->lock);
	while (carry->threads > 0)
		pthread_cond_wait(&carry->changed, &carry->lock);
	pthread_mutex_unlock(&carry->lock);
	while (carry->next) {
		struct again *a = carry->next;

		carry->next = a->next;
		free(a);
	}
	pthread_cond_destroy(&carry->changed);
	pthread_mutex_destroy(&carry->lock);
	pthread_attr_destroy(&carry->attr);
	free(carry);
}
