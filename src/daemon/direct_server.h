/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The server of direct mappings: processes connect, attach files, get pieces of them, are asked to let go. docs/PROTOCOL.md says what is spoken.
 *
 * Threads wait at one epoll instance. Each of them reads a message; what takes no time (an acknowledgement) it does at once, for a request it has the
 * socket watched again first, so that somebody else reads the acknowledgements of that session meanwhile. So many may work on requests at a
 * time, one fewer than there can be threads; further requests wait in a queue, and there is always somebody who reads.
 */
#ifndef UMBRA_DAEMON_DIRECT_SERVER_H
#define UMBRA_DAEMON_DIRECT_SERVER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <umbra/direct.h>

#include "daemon/direct_rights.h"
#include "fs/fs.h"
#include "fuse/token.h"
#include "util/util.h"

struct registry;
struct server;

/* What the mount is asked for: see fuse/direct.h, whose functions these are. */
struct server_mount {
	void *arg;
	int (*take_token)(void *arg, const struct umbra_token *token, pid_t pid, struct token_file *file);
	bool (*excuse_open)(void *arg, uint64_t open);
	bool (*accuse_open)(void *arg, uint64_t open);
	uint32_t (*cached_opens)(void *arg, uint64_t ino);
	uint32_t (*through_opens)(void *arg, uint64_t ino);
	int (*drop_pages)(void *arg, uint64_t ino);
};

struct server_opts {
	struct fs *fs;
	struct registry *registry;
	struct server_mount mount;
	struct direct_rights rights;
	int device_fd; /* of the pool; processes get others, of the same file */
	int listen_fd; /* -1: none, see server_adopt() */
	bool readonly; /* nobody may store */
	uint64_t unit; /* what is mapped are multiples of it; 0, or less than the device needs: as that does */
	unsigned revoke_ms;  /* told to the processes */
	unsigned hello_ms;   /* HELLO has to come within; 0: SERVER_HELLO_MS */
	uint32_t peers_max;  /* connections in all; 0: SERVER_PEERS_MAX */
	uint32_t peers_user; /* and of one user but root; 0: SERVER_PEERS_USER */
};
#define SERVER_HELLO_MS 5000u
#define SERVER_PEERS_MAX 65536u
#define SERVER_PEERS_USER 4096u

must_check int server_open(const struct server_opts *opts, struct server **out);
/* Begins to serve. */
must_check int server_run(struct server *s);
/* Ends all sessions and threads; what is asked below may still be asked. */
void server_stop(struct server *s);
void server_close(struct server *s);

/* One more connection, of a socket that is given away. As if it had been accepted. */
must_check int server_adopt(struct server *s, int fd);

/* Whether pages of the file may be stored to directly. Takes a lock only if some file's may. */
bool server_is_stored(struct server *s, uint64_t ino);
/* An open of the file counts that did not before: whoever stores to it has to ask again. Waits for nobody. */
void server_unready(struct server *s, uint64_t ino);
/* The times of a file move if it has been stored to. With no lock held. */
void server_look(struct server *s, uint64_t ino);

#endif
