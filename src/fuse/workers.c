/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * See workers.h. In session->workers those of the mount come first, then stand-ins, then those of rings (uring.c), which have spares of their own.
 *
 * Of n who wait, stand-ins that wait themselves among them, all but the first (threads - 1) have one in their place.
 */
#include "fuse/workers.h"

#include <errno.h>
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "dax/dax.h"
#include "fuse/place.h"
#include "util/log.h"
#include "util/sabotage.h"

#define PAGE 4096u
#define REQUEST_SIZE (OPS_WRITE_MAX + PAGE)
#define WRITE_HEAD 80u /* header and arguments of a WRITE: its data shall start at a page */
#define KICK_SIGNAL SIGUSR1
#define PLUS_ENTRY_MIN 128u /* bytes of a READDIRPLUS entry, at least */
#define FORGETS_STEP_NS 200000
#define FORGETS_STEPS 500u
#define FORGETS_GATHER_NS 1000000 /* less than a tick of who watches the readers (place.c) */
#define STANDINS_MAX 32u

struct standins {
	pthread_attr_t attr;
	pthread_mutex_t lock;
	pthread_cond_t turn;
	unsigned waiting; /* (lock) of those who read requests */
	unsigned started; /* (lock) */
	bool is_ended;    /* (lock) */
};

static unsigned readers_count(const struct session *session)
{
	return session->opts.threads + STANDINS_MAX;
}

/* ---- forgets ---- */

static bool is_forget(const struct fuse_in_header *in)
{
	return in->opcode == FUSE_FORGET || in->opcode == FUSE_BATCH_FORGET;
}

/*
 * Where requests come over io_uring nobody waits for what comes here: so those that come soon after one are left to the kernel, which makes one
 * request of them. Woken for each, on another core, the reader costs more than what it does.
 */
static void forgets_gather(const struct session *session)
{
	struct timespec a_moment = { 0, FORGETS_GATHER_NS };

	if (atomic_load_explicit(&session->is_uring, memory_order_relaxed))
		nanosleep(&a_moment, NULL);
}

static bool forgets_are_there(const struct session *session)
{
	struct pollfd pfd = { .fd = session->fd, .events = POLLIN };

	if (poll(&pfd, 1, 0) > 0 && pfd.revents & POLLIN)
		return true;
	for (unsigned i = 0; i < readers_count(session); i++)
		if (atomic_load(&session->workers[i].is_busy))
			return true;
	return false;
}

bool session_forgets_wait(struct session *session, unsigned before_count)
{
	struct timespec a_moment = { 0, FORGETS_STEP_NS };

	for (unsigned i = 0; i < FORGETS_STEPS; i++) {
		if (atomic_load(&session->forgets_count) != before_count && !forgets_are_there(session))
			return true;
		nanosleep(&a_moment, NULL);
	}
	return atomic_load(&session->forgets_count) != before_count;
}

/* ---- a worker ---- */

static void worker_ended(struct session *session)
{
	pthread_mutex_lock(&session->lock);
	if (atomic_fetch_sub(&session->running, 1) == 1)
		pthread_cond_broadcast(&session->changed);
	pthread_mutex_unlock(&session->lock);
}

static void worker_begin(struct worker *worker)
{
	sigset_t kicks;

	worker_now = worker;
	sigemptyset(&kicks);
	sigaddset(&kicks, KICK_SIGNAL);
	pthread_sigmask(SIG_UNBLOCK, &kicks, NULL);
}

/* One request. False: there will be none any more. */
static bool worker_read(struct worker *worker)
{
	struct session *session = worker->session;
	ssize_t n = read(session->fd, worker->request, REQUEST_SIZE);
	bool was_forget;

	if (n > 0) {
		atomic_store(&worker->is_busy, true);
		if (worker->seat)
			place_took(worker->seat, (const void *)worker->request);
		session_serve(worker, worker->request, (size_t)n);
		was_forget = is_forget((const void *)worker->request);
		if (was_forget)
			atomic_fetch_add(&session->forgets_count, 1);
		atomic_store(&worker->is_busy, false);
		if (worker->seat)
			place_done(worker->seat);
		if (was_forget)
			forgets_gather(session);
	} else if (n < 0 && errno == ENODEV) {
		fuse_session_exit(session->se); /* unmounted */
		return false;
	} else if (n == 0 || (errno != EINTR && errno != ENOENT && errno != EAGAIN)) {
		log_error("reading requests: %s", n ? strerror(errno) : "end of file");
		return false;
	}
	return !atomic_load_explicit(&session->exiting, memory_order_acquire);
}

static void standins_end(struct session *session)
{
	struct standins *all = session->standins;

	pthread_mutex_lock(&all->lock);
	all->is_ended = true;
	pthread_cond_broadcast(&all->turn);
	pthread_mutex_unlock(&all->lock);
}

static void *worker_run(void *arg)
{
	struct worker *worker = arg;
	struct session *session = worker->session;

	worker_begin(worker);
	place_enter(worker->seat);
	while (!atomic_load_explicit(&session->exiting, memory_order_acquire) && worker_read(worker))
		;
	place_leave(worker->seat);
	if (fuse_session_exited(session->se))
		standins_end(session);
	atomic_store(&worker->done, true);
	worker_ended(session);
	return NULL;
}

/* ---- stand-ins ---- */

/* (lock) */
static unsigned standins_needed(const struct session *session)
{
	unsigned waiting = session->standins->waiting, threads = session->opts.threads;

	return waiting >= threads ? waiting - threads + 1 : 0;
}

/* Waits until it is to read. False: there will be nothing any more. */
static bool standin_turn(struct worker *worker)
{
	struct session *session = worker->session;
	struct standins *all = session->standins;
	unsigned number = (unsigned)(worker - session->workers) - session->opts.threads;
	bool is_ended;

	pthread_mutex_lock(&all->lock);
	while (!all->is_ended && number >= standins_needed(session))
		pthread_cond_wait(&all->turn, &all->lock);
	is_ended = all->is_ended;
	pthread_mutex_unlock(&all->lock);
	return !is_ended;
}

static void *standin_run(void *arg)
{
	struct worker *worker = arg;

	worker_begin(worker);
	while (standin_turn(worker) && worker_read(worker))
		;
	atomic_store(&worker->done, true);
	worker_ended(worker->session);
	return NULL;
}

static int reader_init(struct session *session, struct worker *worker)
{
	char *request = aligned_alloc(PAGE, PAGE + REQUEST_SIZE);

	if (!request)
		return -ENOMEM;
	worker->request = request + PAGE - WRITE_HEAD;
	/* Killed while the kernel waits for a page to copy a request to, it would have that one fail. */
	if (session->kept)
		dax_buffer_hold(request, PAGE + REQUEST_SIZE);
	return worker_init(session, worker);
}

/* (lock) One more, if that is possible. */
static void standin_start(struct session *session)
{
	struct standins *all = session->standins;
	struct worker *worker = &session->workers[session->opts.threads + all->started];

	if (all->is_ended || all->started == STANDINS_MAX || sabotage_point("standins"))
		return;
	if (!worker->refs && reader_init(session, worker)) {
		worker_free(worker);
		worker->request = worker->buf = NULL;
		worker->refs = NULL;
		return;
	}
	atomic_fetch_add(&session->running, 1);
	if (pthread_create(&worker->thread, &all->attr, standin_run, worker)) {
		worker->thread = 0;
		worker_ended(session);
		return;
	}
	all->started++;
}

void workers_wait(struct session *session, bool begins)
{
	struct standins *all = session->standins;

	if (worker_now < session->workers || worker_now >= session->workers + readers_count(session))
		return;
	pthread_mutex_lock(&all->lock);
	if (begins)
		all->waiting++;
	else
		all->waiting--;
	while (begins && standins_needed(session) > all->started) {
		unsigned before = all->started;

		standin_start(session);
		if (all->started == before)
			break;
	}
	if (begins && standins_needed(session) > 0)
		pthread_cond_broadcast(&all->turn);
	pthread_mutex_unlock(&all->lock);
}

/* ---- all ---- */

int worker_init(struct session *session, struct worker *worker)
{
	worker->session = session;
	worker->buf = dax_buffer_alloc(OPS_WRITE_MAX + PAGE);
	worker->refs = calloc(OPS_WRITE_MAX / PLUS_ENTRY_MIN, sizeof(*worker->refs));
	return worker->buf && worker->refs ? 0 : -ENOMEM;
}

void worker_free(struct worker *worker)
{
	if (worker->request)
		free(worker->request - (PAGE - WRITE_HEAD));
	free(worker->buf);
	free(worker->refs);
}

static int standins_alloc(struct session *session)
{
	struct standins *all = calloc(1, sizeof(*all));
	int rc = all ? place_attr(&all->attr) : -ENOMEM;

	if (rc) {
		free(all);
		return rc;
	}
	pthread_mutex_init(&all->lock, NULL);
	pthread_cond_init(&all->turn, NULL);
	session->standins = all;
	return 0;
}

int workers_alloc(struct session *session)
{
	unsigned readers = readers_count(session);
	int rc = standins_alloc(session);

	if (rc)
		return rc;
	session->workers_count = readers + (session->uring ? uring_workers_count(session->uring) : 0);
	session->workers = calloc(session->workers_count, sizeof(*session->workers));
	if (!session->workers)
		return -ENOMEM;
	for (unsigned i = 0; i < session->workers_count && rc == 0; i++) {
		struct worker *worker = &session->workers[i];

		worker->session = session;
		if (i < session->opts.threads) {
			worker->seat = place_seat(session->place, i);
			rc = reader_init(session, worker);
		} else if (i >= readers) {
			rc = worker_init(session, worker);
		}
	}
	if (rc == 0 && session->uring)
		uring_workers_set(session->uring, session->workers + readers);
	return rc;
}

void workers_free(struct session *session)
{
	for (unsigned i = 0; session->workers && i < session->workers_count; i++)
		worker_free(&session->workers[i]);
	free(session->workers);
	if (!session->standins)
		return;
	pthread_cond_destroy(&session->standins->turn);
	pthread_mutex_destroy(&session->standins->lock);
	pthread_attr_destroy(&session->standins->attr);
	free(session->standins);
}

static void kick(int signal)
{
	(void)signal; /* its use is that read(2) returns */
}

int workers_start(struct session *session)
{
	struct sigaction action = { .sa_handler = kick };
	int rc = 0;

	sigaction(KICK_SIGNAL, &action, NULL);
	for (unsigned i = 0; i < session->opts.threads && rc == 0; i++) {
		struct worker *worker = &session->workers[i];

		atomic_fetch_add(&session->running, 1);
		rc = -pthread_create(&worker->thread, NULL, worker_run, worker);
		if (rc) {
			worker->thread = 0;
			worker_ended(session);
		}
	}
	return rc;
}

void workers_kick(struct session *session)
{
	standins_end(session);
	/* No stand-in is started any more. */
	for (unsigned i = 0; i < readers_count(session); i++) {
		struct worker *worker = &session->workers[i];

		if (worker->thread && !atomic_load(&worker->done))
			pthread_kill(worker->thread, KICK_SIGNAL);
	}
}

void workers_join(struct session *session)
{
	if (!session->workers)
		return;
	standins_end(session);
	for (unsigned i = 0; i < readers_count(session); i++)
		if (session->workers[i].thread)
			pthread_join(session->workers[i].thread, NULL);
}
