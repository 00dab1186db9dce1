/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the parts of the server of direct mappings share.
 *
 * Locks, in this order, none of them held around a call of the file system, the registry or the mount: server->lock; peer->lock; stored->lock.
 */
#ifndef UMBRA_DAEMON_DIRECT_PRIV_H
#define UMBRA_DAEMON_DIRECT_PRIV_H

#include <pthread.h>
#include <stdatomic.h>

#include "daemon/direct_server.h"
#include "daemon/direct_stored.h"
#include "registry/registry.h"

#define PEER_BUCKETS 256u
#define SERVER_BUCKETS 1024u
/* Twice what is promised: a request still counts when the process reads its answer. */
#define PEER_REQUESTS_MAX (2 * UMBRA_REQUESTS_MAX)
#define SPACE_SHORT 16u  /* less than one part in so many is free */
#define MESSAGE_MAX 128u /* of those that come in */

/* An open of the process's that does not count as one of somebody else's (opens.h). */
struct excuse {
	uint64_t open;
	struct excuse *next;
};

/*
 * A file that a process has attached, perhaps more than once: it has one handle then, and the rights of all. Counted: the peer's, and requests on it.
 */
struct file {
	_Atomic uint32_t count;
	_Atomic uint32_t rights; /* UMBRA_DIRECT_* */
	uint32_t handle;
	uint64_t ino;
	uint32_t slot;     /* of the peer's lock, as what follows. UMBRA_SLOT_NONE: none yet */
	uint32_t attached; /* 0: not any more */
	struct excuse *excuses;
	struct file *next;
	struct stored_file stored;
};

/* A connection. Counted: by who watches its socket, by requests in work, by who looks at all of them. */
struct peer {
	struct server *server;
	int fd;
	pid_t pid;
	uid_t uid;
	gid_t gid;
	gid_t *groups;
	unsigned groups_count;
	uint32_t rights;       /* that it may have; then that it has */
	uint64_t number;       /* of its lock on the device */
	uint64_t until_ms;     /* HELLO has to come */
	struct orphan *orphan; /* what it may become */
	_Atomic uint32_t count, requests;
	_Atomic bool is_told; /* HELLO has come */
	_Atomic bool is_bye, is_over;
	_Atomic bool is_read;            /* somebody is alone with what it sends (direct_server.c) */
	struct session *_Atomic session; /* of the registry; NULL: not yet */
	struct umbra_slot *slots;
	pthread_mutex_t lock; /* of all that follows */
	struct file *files[PEER_BUCKETS];
	uint64_t slots_used[UMBRA_SLOTS / 64];
	struct peer *next, **link;   /* (server->lock) */
	struct peer *next_of_bucket; /* (server->lock) */
};

/* A request that waits for somebody to work on it. The last reference of a peer is such a one too: size 0. */
struct work {
	struct work *next;
	struct peer *peer;
	uint32_t size;
	union {
		struct umbra_msg msg;
		uint8_t bytes[MESSAGE_MAX];
	} in;
};

/* A session that has ended, but perhaps not its mappings. */
struct orphan {
	pid_t pid;
	uint64_t number;
	bool is_ended;             /* the registry knows */
	bool is_in_round, is_held; /* this time: the registry knew before it was asked; has to keep it */
	struct orphan *next;
};

struct server {
	struct server_opts opts;
	int epoll_fd, stop_fd, timer_fd;
	struct stored *stored;
	pthread_mutex_t lock; /* of all that follows */
	pthread_cond_t changed;
	unsigned threads, idle, working;
	bool is_stopping, is_listening;
	struct work *queue, **queue_last;
	struct peer *peers;
	struct peer *buckets[SERVER_BUCKETS]; /* the same by number */
	uint32_t peers_count;
	uint64_t last_number;
	struct orphan *orphans;
	unsigned orphans_ms;  /* how long until they are looked at again */
	uint64_t tick_due_ms; /* 0: the timer is not set */
	uint64_t refused;     /* lines that were not logged */
	uint64_t refused_ms;
};

uint64_t clock_ms(void);

/* ---- direct_server.c ---- */

/* What epoll says of a descriptor; of a peer's its number is added. */
enum { EVENT_STOP, EVENT_TIMER, EVENT_CONNECTION, EVENT_PEER };

/* True: the caller is alone with what the peer sends, until it is watched again. */
bool server_read_begin(struct peer *peer);
/* The socket is watched again. By who has a reference of the peer, or keeps its session from ending: the peer is not the caller's any more. */
void server_watch(struct peer *peer);
/* Nobody is told what comes, until it is watched again. */
void server_unwatch(struct peer *peer);
/* Worked on by whoever may, after the socket is watched again. A reference is given away. size 0: only that. */
void server_work(struct server *s, struct peer *peer, const void *in, uint32_t size);
/* One line for what a process should not do, not too often. */
void server_refuse(struct server *s, const struct peer *peer, const char *why);

/* ---- direct_tick.c: what is to be done now and then ---- */
void tick(struct server *s);
/* What is only taken in the hope that it will be used is not to be. */
bool server_space_is_short(const struct server *s);
/* There is something to be done, or more of it. Under the server's lock. */
void tick_set(struct server *s);
/* Before the session ends, and after it. It is given away. */
void server_orphan_add(struct server *s, struct orphan *orphan);
void server_orphan_ended(struct server *s, struct orphan *orphan);

/* ---- direct_peer.c: connections ---- */

must_check int peer_new(struct server *s, int fd);
void peer_hold(struct peer *peer);
/* Who it is, for the file system; as long as the peer is there. */
struct fs_cred peer_cred(struct peer *peer);
/* The last one ends the session. May take time. */
void peer_drop(struct peer *peer);
/* The same on a thread that has no time. */
void peer_drop_later(struct peer *peer);
/* The one of that number, held. NULL: there is none any more. */
struct peer *peer_find(struct server *s, uint64_t number);
/* The socket is readable: a message, or its end. By who has begun to read; a reference is given away. */
void peer_read(struct peer *peer);
/* Of the registry's session_ops: who waits for an acknowledgement reads the socket. */
bool peer_listen(void *peer);
void peer_hear(void *peer, uint64_t id, const struct timespec *until);
/* The connection ends; who watches it comes to see it. */
void peer_end(struct peer *peer);
/* Without waiting. fds may be NULL. -errno: it cannot be reached, and ends. */
int peer_send(struct peer *peer, const void *message, uint32_t size, const int *fds, unsigned fds_count);

/* ---- direct_serve.c: messages ---- */

/* What has to be right of any message that comes in: the reason why it is not, or NULL. */
const char *message_check(const void *in, uint32_t size);
/* Takes no time: ACK, RELEASE, BYE. False: it is a request. */
bool message_at_once(struct peer *peer, const struct umbra_msg *msg);
/* A request, answered. */
void message_serve(struct peer *peer, const struct umbra_msg *msg);
void message_error(struct peer *peer, uint64_t id, int rc);

/* ---- direct_files.c: attached files ---- */

must_check int peer_file_attach(struct peer *peer, const struct umbra_token *token, struct file **out);
/* The file of a handle; NULL: none. */
struct file *peer_file_get(struct peer *peer, uint32_t handle);
void peer_file_put(struct file *file);
must_check int peer_file_detach(struct peer *peer, uint32_t handle);
/* At the end of the session: all, without a word to the registry. */
void peer_files_end(struct peer *peer);
/* Before pieces that may be stored to are granted, and after. -EBUSY: others have it open through the page cache. */
must_check int peer_store_begin(struct peer *peer, struct file *file);
void peer_store_end(struct peer *peer, const struct file *file);

#endif
