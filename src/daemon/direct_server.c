/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Threads and their work. See direct_server.h, direct_priv.h.
 *
 * A socket is watched with EPOLLONESHOT. Whoever sets peer->is_read is alone with what comes, until he has it watched again: a thread that has seen that it is readable, or one that waits for an
 * acknowledgement of just this process (registry/revoke.c). An event that somebody else has been faster than is passed over; there may be one of a peer that is not there any more, so
 * that events have its number. Whoever watches has a reference of the peer, which goes when the connection ends; that is seen by threads of ours alone.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "daemon/direct_priv.h"
#include "util/log.h"

#define WORK_MAX 16u               /* requests in work */
#define THREADS_MAX (WORK_MAX + 1) /* one who reads */
#define CONNECTIONS_AT_ONCE 32u
#define IDLE_MS 10000
#define LOG_AGAIN_MS 10000u

uint64_t clock_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void server_refuse(struct server *s, const struct peer *peer, const char *why)
{
	uint64_t now = clock_ms(), unlogged;
	bool log;

	pthread_mutex_lock(&s->lock);
	log = s->refused_ms == 0 || now - s->refused_ms >= LOG_AGAIN_MS;
	unlogged = s->refused;
	s->refused = log ? 0 : s->refused + 1;
	if (log)
		s->refused_ms = now;
	pthread_mutex_unlock(&s->lock);
	if (log)
		log_warn("direct mappings of process %d (user %u): %s (%" PRIu64 " more such lines before)",
			 (int)peer->pid, (unsigned)peer->uid, why, unlogged);
}

/* ---- work ---- */

static void work_do(struct work *work)
{
	if (work->size == 0) {
		peer_drop(work->peer);
		return;
	}
	message_serve(work->peer, &work->in.msg);
	atomic_fetch_sub(&work->peer->requests, 1);
	peer_drop(work->peer);
}

/* What has been waiting; the caller goes on to count as working. */
static void queue_do(struct server *s)
{
	struct work *work;

	for (;;) {
		pthread_mutex_lock(&s->lock);
		work = s->queue;
		if (work) {
			s->queue = work->next;
			if (!s->queue)
				s->queue_last = &s->queue;
		} else {
			s->working--;
		}
		pthread_mutex_unlock(&s->lock);
		if (!work)
			return;
		work_do(work);
		free(work);
	}
}

static bool may_work(struct server *s)
{
	bool may;

	pthread_mutex_lock(&s->lock);
	may = s->working < WORK_MAX;
	s->working += may;
	pthread_mutex_unlock(&s->lock);
	return may;
}

bool server_read_begin(struct peer *peer)
{
	return !atomic_exchange(&peer->is_read, true);
}

static void watch(struct peer *peer, uint32_t events)
{
	struct epoll_event event = { .events = events | EPOLLONESHOT, .data.u64 = EVENT_PEER + peer->number };

	(void)epoll_ctl(peer->server->epoll_fd, EPOLL_CTL_MOD, peer->fd, &event);
}

void server_watch(struct peer *peer)
{
	/* In this order: who hears of what is there already may read it. */
	atomic_store(&peer->is_read, false);
	watch(peer, EPOLLIN | EPOLLRDHUP);
}

void server_unwatch(struct peer *peer)
{
	watch(peer, 0);
}

/* False: out of memory. */
static bool queue_add(struct server *s, const struct work *work)
{
	struct work *copy = malloc(sizeof(*copy));

	if (!copy)
		return false;
	*copy = *work;
	copy->next = NULL;
	pthread_mutex_lock(&s->lock);
	*s->queue_last = copy;
	s->queue_last = &copy->next;
	pthread_mutex_unlock(&s->lock);
	return true;
}

void server_work(struct server *s, struct peer *peer, const void *in, uint32_t size)
{
	struct work work = { .peer = peer, .size = size };

	memcpy(work.in.bytes, in, size);
	if (size)
		server_watch(peer);
	if (may_work(s)) {
		work_do(&work);
	} else if (queue_add(s, &work)) {
		/* Somebody may have left the queue between the look and now. */
		if (!may_work(s))
			return;
	} else {
		if (size) {
			message_error(peer, work.in.msg.id, -ENOMEM);
			atomic_fetch_sub(&peer->requests, 1);
		}
		peer_drop(peer);
		return;
	}
	queue_do(s);
}

/* ---- threads ---- */

static void *thread_run(void *arg);

/* Under the lock. */
static int thread_add(struct server *s)
{
	pthread_attr_t attr;
	pthread_t thread;
	int rc;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	rc = -pthread_create(&thread, &attr, thread_run, s);
	pthread_attr_destroy(&attr);
	if (rc == 0) {
		s->threads++;
		s->idle++;
	}
	return rc;
}

/* Connections wait until there is a descriptor for them: then no more than a look now and then. Some at a time: they may come as fast as they are taken. */
static bool connections_take(struct server *s)
{
	for (unsigned i = 0; i < CONNECTIONS_AT_ONCE; i++) {
		int fd = accept4(s->opts.listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd < 0 && (errno == ECONNABORTED || errno == EINTR))
			continue;
		if (fd < 0)
			return errno == EAGAIN;
		(void)!peer_new(s, fd);
	}
	return true;
}

static int listener_watch(struct server *s, int op)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLONESHOT, .data.u64 = EVENT_CONNECTION };

	return epoll_ctl(s->epoll_fd, op, s->opts.listen_fd, &event) ? -errno : 0;
}

static void timer_see(struct server *s)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLONESHOT, .data.u64 = EVENT_TIMER };
	uint64_t times;
	bool listen;

	(void)!read(s->timer_fd, &times, sizeof(times));
	/* It calls the file system: a tick that finds nobody free is left out. */
	if (may_work(s)) {
		tick(s);
		queue_do(s);
	}
	pthread_mutex_lock(&s->lock);
	listen = !s->is_listening && s->opts.listen_fd >= 0;
	s->is_listening = true;
	s->tick_due_ms = 0;
	tick_set(s);
	pthread_mutex_unlock(&s->lock);
	if (listen)
		(void)listener_watch(s, EPOLL_CTL_MOD);
	(void)epoll_ctl(s->epoll_fd, EPOLL_CTL_MOD, s->timer_fd, &event);
}

static void event_see(struct server *s, const struct epoll_event *event)
{
	if (event->data.u64 == EVENT_TIMER) {
		timer_see(s);
	} else if (event->data.u64 == EVENT_CONNECTION) {
		bool more = connections_take(s);

		if (more) {
			(void)listener_watch(s, EPOLL_CTL_MOD);
			return;
		}
		log_warn("direct mappings: no descriptor for a connection: %s", strerror(errno));
		pthread_mutex_lock(&s->lock);
		s->is_listening = false;
		tick_set(s);
		pthread_mutex_unlock(&s->lock);
	} else if (event->data.u64 >= EVENT_PEER) {
		struct peer *peer = peer_find(s, event->data.u64 - EVENT_PEER);

		if (peer && server_read_begin(peer))
			peer_read(peer);
		else if (peer)
			peer_drop_later(peer);
	}
}

static void *thread_run(void *arg)
{
	struct server *s = arg;

	pthread_mutex_lock(&s->lock);
	while (!s->is_stopping) {
		struct epoll_event event;
		int n;

		pthread_mutex_unlock(&s->lock);
		n = epoll_wait(s->epoll_fd, &event, 1, IDLE_MS);
		pthread_mutex_lock(&s->lock);
		if (s->is_stopping || (n == 0 && s->idle > 1))
			break;
		if (n <= 0)
			continue;
		s->idle--;
		if (s->idle == 0 && s->threads < THREADS_MAX && thread_add(s))
			log_debug("direct mappings: no thread more");
		pthread_mutex_unlock(&s->lock);
		event_see(s, &event);
		pthread_mutex_lock(&s->lock);
		s->idle++;
	}
	s->idle--;
	s->threads--;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

/* ---- start and end ---- */

/* A connection is a descriptor, and there may be more of them than the usual limit; but half of all stay for the rest. */
static void limit_raise(struct server_opts *opts)
{
	struct rlimit limit;
	uint32_t room;

	if (getrlimit(RLIMIT_NOFILE, &limit))
		return;
	if (limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &limit);
	}
	room = (uint32_t)u64_min(limit.rlim_cur / 2, UINT32_MAX);
	opts->peers_max = (uint32_t)u64_min(opts->peers_max, room);
	opts->peers_user = (uint32_t)u64_min(opts->peers_user, room / 4 + 1);
}

static int fds_open(struct server *s)
{
	struct epoll_event stop = { .events = EPOLLIN, .data.u64 = EVENT_STOP };
	struct epoll_event timer = { .events = EPOLLIN | EPOLLONESHOT, .data.u64 = EVENT_TIMER };

	s->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	s->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	s->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (s->epoll_fd < 0 || s->stop_fd < 0 || s->timer_fd < 0 ||
	    epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, s->stop_fd, &stop) ||
	    epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, s->timer_fd, &timer))
		return -errno;
	return 0;
}

int server_open(const struct server_opts *opts, struct server **out)
{
	struct server *s = calloc(1, sizeof(*s));
	int rc;

	if (!s)
		return -ENOMEM;
	s->opts = *opts;
	if (!s->opts.hello_ms)
		s->opts.hello_ms = SERVER_HELLO_MS;
	if (!s->opts.peers_max)
		s->opts.peers_max = SERVER_PEERS_MAX;
	if (!s->opts.peers_user)
		s->opts.peers_user = SERVER_PEERS_USER;
	s->epoll_fd = s->stop_fd = s->timer_fd = -1;
	s->queue_last = &s->queue;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->changed, NULL);
	rc = stored_new(opts->fs, &s->stored);
	if (rc == 0)
		rc = fds_open(s);
	if (rc) {
		server_close(s);
		return rc;
	}
	limit_raise(&s->opts);
	*out = s;
	return 0;
}

int server_run(struct server *s)
{
	int rc;

	pthread_mutex_lock(&s->lock);
	s->is_listening = true;
	rc = thread_add(s);
	pthread_mutex_unlock(&s->lock);
	if (rc == 0 && s->opts.listen_fd >= 0)
		rc = listener_watch(s, EPOLL_CTL_ADD);
	return rc;
}

int server_adopt(struct server *s, int fd)
{
	return peer_new(s, fd);
}

static struct peer *peer_first(struct server *s)
{
	struct peer *peer;

	pthread_mutex_lock(&s->lock);
	peer = s->peers;
	pthread_mutex_unlock(&s->lock);
	return peer;
}

void server_stop(struct server *s)
{
	const uint64_t one = 1;
	struct peer *peer;

	pthread_mutex_lock(&s->lock);
	s->is_stopping = true;
	(void)!write(s->stop_fd, &one, sizeof(one));
	while (s->threads > 0)
		pthread_cond_wait(&s->changed, &s->lock);
	s->working++;
	pthread_mutex_unlock(&s->lock);
	queue_do(s);
	/* Nobody else is here: what is left of each is the reference of who watched it. */
	while ((peer = peer_first(s))) {
		peer_end(peer);
		peer_drop(peer);
	}
}

void server_close(struct server *s)
{
	while (s->orphans) {
		struct orphan *orphan = s->orphans;

		s->orphans = orphan->next;
		free(orphan);
	}
	for (unsigned i = 0; i < 3; i++) {
		int fd = (int[]){ s->epoll_fd, s->stop_fd, s->timer_fd }[i];

		if (fd >= 0)
			close(fd);
	}
	stored_free(s->stored);
	pthread_cond_destroy(&s->changed);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

bool server_is_stored(struct server *s, uint64_t ino)
{
	return stored_has(s->stored, ino) || registry_is_stored(s->opts.registry, ino);
}

void server_unready(struct server *s, uint64_t ino)
{
	stored_unready(s->stored, ino);
}

void server_look(struct server *s, uint64_t ino)
{
	stored_look(s->stored, ino);
}
