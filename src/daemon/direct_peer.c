/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A connection: who it is, its socket, its end.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "daemon/direct_priv.h"
#include "dax/dax.h"
#include "util/log.h"
#include "util/sabotage.h"

#define SEND_BYTES (1 << 20) /* answers that a process has not read yet, at most about */
#define GROUPS_FIRST 32u
#define AT_ONCE_MAX 32u /* messages of one process, then it is others' turn */

/* ---- who ---- */

static int groups_get(struct peer *peer)
{
	socklen_t size = GROUPS_FIRST * sizeof(*peer->groups);

	for (;;) {
		gid_t *groups = malloc(size ? size : 1);

		if (!groups)
			return -ENOMEM;
		if (getsockopt(peer->fd, SOL_SOCKET, SO_PEERGROUPS, groups, &size) == 0) {
			peer->groups = groups;
			peer->groups_count = size / (unsigned)sizeof(*groups);
			return 0;
		}
		free(groups);
		if (errno != ERANGE)
			return -errno;
	}
}

static bool peer_has_group(void *arg, uint32_t gid)
{
	const struct peer *peer = arg;
	bool found = peer->gid == gid;

	for (unsigned i = 0; i < peer->groups_count && !found; i++)
		found = peer->groups[i] == gid;
	return found;
}

static int who_get(struct peer *peer)
{
	struct ucred cred;
	socklen_t size = sizeof(cred);
	int rc;

	if (getsockopt(peer->fd, SOL_SOCKET, SO_PEERCRED, &cred, &size))
		return -errno;
	peer->pid = cred.pid;
	peer->uid = cred.uid;
	peer->gid = cred.gid;
	rc = groups_get(peer);
	if (rc == 0)
		peer->rights = direct_rights_of(&peer->server->opts.rights, peer->uid, peer_has_group, peer);
	if (peer->server->opts.readonly)
		peer->rights &= ~UMBRA_DIRECT_WRITE;
	return rc;
}

struct fs_cred peer_cred(struct peer *peer)
{
	return (struct fs_cred){
		.uid = peer->uid,
		.gid = peer->gid,
		.kill_priv_exempt = peer->uid == 0,
		.has_group = peer_has_group,
		.group_arg = peer,
	};
}

/* ---- begin ---- */

static void peer_free(struct peer *peer)
{
	if (peer->fd >= 0)
		close(peer->fd);
	dax_shared_free(peer->slots, UMBRA_SLOTS * sizeof(*peer->slots));
	pthread_mutex_destroy(&peer->lock);
	free(peer->groups);
	free(peer->orphan);
	free(peer);
}

static struct peer **bucket_of(struct server *s, uint64_t number)
{
	return &s->buckets[number % SERVER_BUCKETS];
}

/* Among all others. -EMFILE: there are too many. */
static int peer_link(struct server *s, struct peer *peer)
{
	uint32_t of_user = 0;
	int rc = 0;

	pthread_mutex_lock(&s->lock);
	for (const struct peer *other = peer->uid ? s->peers : NULL; other; other = other->next)
		of_user += other->uid == peer->uid;
	if (s->is_stopping || s->peers_count >= s->opts.peers_max || of_user >= s->opts.peers_user) {
		rc = -EMFILE;
	} else {
		peer->number = ++s->last_number;
		peer->next = s->peers;
		peer->link = &s->peers;
		if (peer->next)
			peer->next->link = &peer->next;
		s->peers = peer;
		peer->next_of_bucket = *bucket_of(s, peer->number);
		*bucket_of(s, peer->number) = peer;
		s->peers_count++;
		tick_set(s);
	}
	pthread_mutex_unlock(&s->lock);
	return rc;
}

static void peer_unlink(struct server *s, struct peer *peer)
{
	struct peer **at = bucket_of(s, peer->number);

	pthread_mutex_lock(&s->lock);
	while (*at != peer)
		at = &(*at)->next_of_bucket;
	*at = peer->next_of_bucket;
	*peer->link = peer->next;
	if (peer->next)
		peer->next->link = peer->link;
	s->peers_count--;
	pthread_mutex_unlock(&s->lock);
}

struct peer *peer_find(struct server *s, uint64_t number)
{
	struct peer *peer;
	uint32_t count;

	pthread_mutex_lock(&s->lock);
	for (peer = *bucket_of(s, number); peer && peer->number != number; peer = peer->next_of_bucket)
		;
	/* One that nobody has any more ends just now. */
	count = peer ? atomic_load(&peer->count) : 0;
	while (count > 0 && !atomic_compare_exchange_weak(&peer->count, &count, count + 1))
		;
	pthread_mutex_unlock(&s->lock);
	return count > 0 ? peer : NULL;
}

static int peer_watch(struct server *s, struct peer *peer)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLRDHUP | EPOLLONESHOT,
				     .data.u64 = EVENT_PEER + peer->number };

	return epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, peer->fd, &event) ? -errno : 0;
}

int peer_new(struct server *s, int fd)
{
	struct peer *peer = calloc(1, sizeof(*peer));
	int bytes = SEND_BYTES, rc;

	if (!peer) {
		close(fd);
		return -ENOMEM;
	}
	peer->server = s;
	peer->fd = fd;
	atomic_store(&peer->count, 1);
	pthread_mutex_init(&peer->lock, NULL);
	/* Beyond the system's limit if we may. */
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)))
		(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
	peer->until_ms = clock_ms() + s->opts.hello_ms;
	peer->orphan = calloc(1, sizeof(*peer->orphan));
	rc = peer->orphan ? who_get(peer) : -ENOMEM;
	if (rc == 0) {
		rc = peer_link(s, peer);
		if (rc)
			server_refuse(s, peer, "too many connections");
	}
	if (rc) {
		peer_free(peer);
		return rc;
	}
	rc = peer_watch(s, peer);
	if (rc) {
		peer_unlink(s, peer);
		peer_free(peer);
	}
	return rc;
}

/* ---- end ---- */

void peer_hold(struct peer *peer)
{
	atomic_fetch_add(&peer->count, 1);
}

/* Nothing of it is mapped any more: it has said so, or nobody has its descriptor. */
static bool peer_is_clean(const struct peer *peer)
{
	return atomic_load(&peer->is_bye) || sabotage_point("direct-lent") ||
	       !dax_is_lent(peer->server->opts.device_fd, peer->number);
}

static void session_over(struct peer *peer, struct session *session)
{
	struct server *s = peer->server;
	struct orphan *orphan = peer->orphan;

	if (peer_is_clean(peer)) {
		session_end(session, true);
		return;
	}
	*orphan = (struct orphan){ .pid = peer->pid, .number = peer->number };
	peer->orphan = NULL;
	/* It is in the list before anybody can ask whether it is gone. */
	server_orphan_add(s, orphan);
	session_end(session, false);
	server_orphan_ended(s, orphan);
}

void peer_drop(struct peer *peer)
{
	struct session *session;

	if (atomic_fetch_sub(&peer->count, 1) > 1)
		return;
	session = atomic_load(&peer->session);
	if (session)
		session_over(peer, session);
	/* Only now: the registry says by itself what an orphan may store to. */
	peer_files_end(peer);
	peer_unlink(peer->server, peer);
	peer_free(peer);
}

void peer_drop_later(struct peer *peer)
{
	uint32_t count = atomic_load(&peer->count);

	/* The last one is never given back here, whoever else gives back his meanwhile. */
	while (count > 1)
		if (atomic_compare_exchange_weak(&peer->count, &count, count - 1))
			return;
	server_work(peer->server, peer, "", 0);
}

void peer_end(struct peer *peer)
{
	atomic_store(&peer->is_over, true);
	(void)shutdown(peer->fd, SHUT_RDWR);
}

/* ---- messages ---- */

int peer_send(struct peer *peer, const void *message, uint32_t size, const int *fds, unsigned fds_count)
{
	struct iovec iov = { .iov_base = (void *)(uintptr_t)message, .iov_len = size };
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(2 * sizeof(int))];
	} control = { 0 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (fds_count) {
		msg.msg_control = control.bytes;
		msg.msg_controllen = CMSG_SPACE(fds_count * sizeof(int));
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(fds_count * sizeof(int));
		memcpy(CMSG_DATA(&control.header), fds, fds_count * sizeof(int));
	}
	if (atomic_load(&peer->is_over))
		return -ENOTCONN;
	if (sendmsg(peer->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
		int rc = -errno;

		/* Who does not read what it asked for, or is gone. */
		peer_end(peer);
		return rc;
	}
	return 0;
}

/* The next message; NULL: there is none now, or the connection is over. */
static const struct umbra_msg *message_get(struct peer *peer, uint8_t *in, uint32_t *size, bool *is_over)
{
	/* Without room for control messages: descriptors that come with it are closed by the kernel. */
	ssize_t n = recv(peer->fd, in, MESSAGE_MAX, MSG_DONTWAIT | MSG_TRUNC);
	const char *why;

	*is_over = atomic_load(&peer->is_over) || n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
	if (n <= 0 || *is_over)
		return NULL;
	why = n > (ssize_t)MESSAGE_MAX ? "a message that is too long" : message_check(in, (uint32_t)n);
	if (why) {
		server_refuse(peer->server, peer, why);
		peer_end(peer);
		*is_over = true;
		return NULL;
	}
	*size = (uint32_t)n;
	return (const void *)in;
}

void peer_read(struct peer *peer)
{
	struct server *s = peer->server;
	_Alignas(struct umbra_msg) uint8_t in[MESSAGE_MAX];
	const struct umbra_msg *msg;
	uint32_t size = 0;
	bool is_over;

	/* Whoever writes as fast as this reads must not keep the thread. */
	for (unsigned i = 0; (msg = message_get(peer, in, &size, &is_over)) && message_at_once(peer, msg);) {
		msg = NULL;
		if (++i == AT_ONCE_MAX || atomic_load(&peer->is_bye))
			break;
	}
	if (is_over || atomic_load(&peer->is_bye)) {
		struct session *session = atomic_load(&peer->session);

		/* Nobody reads it any more: it stays ours. Nor does a request of it wait for somebody who waits for it. */
		peer_end(peer);
		if (session)
			session_grants_end(session);
		(void)epoll_ctl(s->epoll_fd, EPOLL_CTL_DEL, peer->fd, NULL);
		peer_drop_later(peer);
	} else if (msg && atomic_fetch_add(&peer->requests, 1) < PEER_REQUESTS_MAX) {
		server_work(s, peer, msg, size);
		return;
	} else {
		if (msg) {
			message_error(peer, msg->id, -EBUSY);
			atomic_fetch_sub(&peer->requests, 1);
		}
		server_watch(peer);
	}
	peer_drop_later(peer);
}

/* ---- acknowledgements, read by who waits for them ---- */

bool peer_listen(void *arg)
{
	struct peer *peer = arg;

	if (!server_read_begin(peer))
		return false;
	server_unwatch(peer);
	return true;
}

/* Whether something has come. */
static bool message_wait(struct peer *peer, const struct timespec *until)
{
	struct pollfd in = { .fd = peer->fd, .events = POLLIN };
	struct timespec now, left;

	clock_gettime(CLOCK_MONOTONIC, &now);
	left.tv_sec = until->tv_sec - now.tv_sec;
	left.tv_nsec = until->tv_nsec - now.tv_nsec;
	if (left.tv_nsec < 0) {
		left.tv_sec--;
		left.tv_nsec += 1000000000;
	}
	return left.tv_sec >= 0 && ppoll(&in, 1, &left, NULL) > 0;
}

/* The number of an acknowledgement, which is gone then. False: there is something else, or nothing. */
static bool ack_get(struct peer *peer, const struct timespec *until, uint64_t *id)
{
	struct umbra_msg msg;
	bool is_ack;
	ssize_t n;

	do
		n = recv(peer->fd, &msg, sizeof(msg), MSG_PEEK | MSG_DONTWAIT | MSG_TRUNC);
	while (n < 0 && errno == EAGAIN && message_wait(peer, until));
	is_ack = n == sizeof(msg) && !message_check(&msg, sizeof(msg)) && msg.type == UMBRA_MSG_ACK;
	if (n <= 0 || (!is_ack && !sabotage_point("revoke-other")))
		return false;
	*id = msg.id;
	return recv(peer->fd, &msg, sizeof(msg), MSG_DONTWAIT) > 0;
}

void peer_hear(void *arg, uint64_t id, const struct timespec *until)
{
	struct peer *peer = arg;
	struct session *session = atomic_load(&peer->session);
	uint64_t heard = 0;

	for (unsigned i = 0; session && i < AT_ONCE_MAX && heard != id && ack_get(peer, until, &heard); i++)
		session_ack(session, heard);
	if (!sabotage_point("revoke-watch"))
		server_watch(peer);
}
