/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The talk with the daemon of a mount: one session for each mount and process. A thread of the library's reads all messages in their order, answers revokes and wakes
 * whoever has asked. When the socket ends everything of the session is void.
 */
#ifndef UMBRA_CLIENT_SESSION_H
#define UMBRA_CLIENT_SESSION_H

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <umbra/direct.h>

#include "client/file.h"
#include "util/util.h"

#define SESSION_RETRY_NS \
	100000000 /* not more often a session, or what has failed for a file, is tried again */

/* The daemon gives this user no session for a while, since one of his processes has let others wait: the kernel serves, and it is asked again now and then. */
#define SESSION_LATER (-EUSERS)
#define SESSION_LATER_NS 1000000000ll

struct mount;

struct request {
	struct umbra_file *file; /* of ATTACH */
	struct holding *holding; /* of MAP */
	uint64_t lo, hi;         /* of MAP */
	void (*meanwhile)(void); /* called before the answer is waited for; may be NULL */
	/* Of the session, under client_lock */
	uint64_t id;
	uint16_t expected;
	bool done;
	int rc;
	struct view *old; /* replaced by the answer: views_retire() */
	uint64_t lost_lines;
	struct request *next;
	pthread_cond_t cond;
};

struct session {
	struct mount *mount;
	const struct home *home; /* NULL: it is not known where it is mounted */
	int sock;
	uint8_t *base;      /* of the device, as the rights are */
	uint8_t *read_base; /* the same, for reading only */
	uint64_t device_bytes, align_bytes;
	bool is_device; /* else a plain file */
	struct umbra_slot *slots;
	uint32_t slot_count, rights;
	/* Under client_lock */
	bool ended;
	bool full;      /* a store has waited for space in vain, and none has got any since */
	unsigned users; /* whoever uses sock just now */
	uint64_t id_last;
	struct request *requests;
	unsigned requests_count;
	struct session *next; /* of those of the parent, in a child */
	union {
		struct umbra_msg head;
		uint8_t bytes[UMBRA_MSG_MAX];
	} message; /* of the listener */
};

/* Before all else, if not by session_get(): false, if a fork() could not be heard of. Whoever has locks of his own around it registers after this. */
bool session_init(void);
/*
 * The session of fd's mount, connected if it is not; to be put. wait: for others who connect just now, and without regard to when it was last tried.
 * -EOPNOTSUPP: the mount has nothing for us; -EAGAIN: not now; SESSION_LATER; other errors of ioctl(2), connect(2), mmap(2).
 */
must_check int session_get(int fd, bool wait, struct session **out);
void session_put(struct session *s);
/* The same under client_lock, for one that has not ended. */
void session_get_locked(struct session *s);
void session_put_locked(struct session *s);

/* Sends msg with an id and waits for the answer, as long as it takes. 0, -errno of the answer, -ENOTCONN. The caller has got the session. */
must_check int session_ask(struct session *s, struct umbra_msg *msg, uint16_t expected, struct request *r);

/* The listener's: it reads until the socket ends, and then makes all void and frees the session. */
void *session_listen(void *arg);
void session_end(struct session *s);

/* For who keeps the application away from our sockets, NULL: nobody. The first may move it and says where it is; the second comes before it is closed. */
extern int (*client_socket_made)(int sock);
extern void (*client_socket_ends)(int sock);

int64_t client_now_ns(void);
/* What the mount says of direct mappings; -errno. It waits for as long as nobody serves the mount: when it last had to is client_answered_ns. */
must_check int mount_ask(int fd, struct umbra_direct *direct);
extern _Atomic int64_t client_answered_ns;
extern _Atomic uint64_t client_maps, client_revokes, client_lost;

#endif
