/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A server of direct mappings over a pool in memory, with some files, and clients at the other ends of socket pairs. The mount is not there: tokens say what they are for.
 */
#ifndef UMBRA_TESTS_DIRECT_WORLD_H
#define UMBRA_TESTS_DIRECT_WORLD_H

#include <stdatomic.h>

#undef BLOCK_SIZE
#include "daemon/direct_server.h"
#include "fuse/token.h"
#include "lib/testfs.h"
#include "registry/registry.h"

#define FILES 4u
#define FILE_BLK 32u
#define REVOKE_MS 60000u /* nobody is late, however slow the machine is */
#define WAIT_MS 20000    /* for what has to come */
#define BOTH (OPS_FH_READ | OPS_FH_WRITE)

extern struct testfs t;
extern struct registry *registry;
extern struct server *server;
extern uint64_t inos[FILES];
extern int device_fd;
/* What the mount says of others who have a file open; how often it has dropped pages. */
extern _Atomic uint32_t others_open, others_write, drops;
/* Called when it drops pages, before it has; NULL: nothing. */
extern void (*on_drop)(uint64_t ino);

void up(const struct server_opts *more, unsigned revoke_ms);
void down(void);
bool stats_are(uint64_t sessions, uint64_t quarantine_blk);
void stats_wait(uint64_t sessions, uint64_t quarantine_blk);
must_check int truncate_to(uint64_t ino, uint64_t size_blk);

/* A token tells the file and how it is open; byte 9: by which open if one is to be excused. */
struct umbra_token token_of(uint64_t ino, unsigned mode);

struct client {
	int fd, device_fd;
	struct umbra_slot *slots;
	uint64_t id;
	unsigned revokes;
	bool is_silent; /* it acknowledges nothing */
	union {
		struct umbra_msg msg;
		struct umbra_msg_error error;
		struct umbra_msg_welcome welcome;
		struct umbra_msg_attached attached;
		struct umbra_msg_pieces pieces;
		struct umbra_msg_lost lost;
		uint8_t bytes[UMBRA_MSG_MAX];
	} in;
};

/* It is connected; the server's end, which is the server's. */
int client_connect(struct client *c);
void client_hello(struct client *c);
void client_up(struct client *c);
void client_down(struct client *c, bool bye);
void message_send(struct client *c, void *message, uint16_t type, uint32_t size);
/* What comes next that is no REVOKE; 0: the end. */
uint16_t message_next(struct client *c);
/* The type of the answer. */
uint16_t call(struct client *c, void *message, uint16_t type, uint32_t size);
uint32_t attach(struct client *c, uint64_t ino, unsigned mode);
/* 0, or the errno of the answer. */
uint32_t map(struct client *c, uint32_t handle, uint64_t blk, uint64_t count_blk, uint32_t flags);
uint16_t detach(struct client *c, uint32_t handle);

#endif
