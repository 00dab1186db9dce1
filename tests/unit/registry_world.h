/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A registry over files that stand in, with clients that keep a table of what they have mapped. A client says that it has let go after its table does.
 */
#ifndef UMBRA_TESTS_REGISTRY_WORLD_H
#define UMBRA_TESTS_REGISTRY_WORLD_H

#include "fake_fs.h"
#include "registry/registry.h"

enum manner {
	CLIENT_PROMPT,   /* answers before the call that asks it returns */
	CLIENT_LATER,    /* client_answer() does, when told() has said so */
	CLIENT_DEAD,     /* takes messages, never answers */
	CLIENT_REFUSING, /* takes none */
};
struct page {
	uint64_t dev_blk; /* 0: a hole */
	bool have, write;
};
struct client {
	struct world *w;
	struct session *s;
	enum manner manner;
	pid_t pid;
	uid_t uid; /* 0 if it is not set before the start */
	bool ended;
	bool gone; /* its process, before it has ended */
	bool deaf; /* answers to grants fail */
	_Atomic unsigned lost, revokes, answers;
	uint32_t handles[FAKE_FILES + 1]; /* 0: not attached */
	pthread_mutex_t lock;             /* of what follows */
	struct page pages[FAKE_FILES + 1][FAKE_FILE_BLK];
	struct revoke asked[64];
	unsigned asked_count;
};
struct world {
	struct fs *fs;
	struct fake_fs *fake;
	struct registry *r;
	struct client *clients;
	unsigned count;
	void (*told)(void *arg, struct client *c); /* a client that answers later has been asked */
	void *told_arg;
	bool leaks; /* memory was wanting: blocks may be kept that the registry does not know of */
};

void world_open(struct world *w, unsigned clients, unsigned revoke_ms);
/* All that are left end, and are reaped. */
void world_close(struct world *w);
void client_start(struct client *c, enum manner manner, bool write);
void client_end(struct client *c, bool clean);
must_check int client_attach(struct client *c, uint64_t ino, bool write);
must_check int client_grant(struct client *c, uint64_t ino, uint64_t lo, uint64_t hi, bool write,
			    bool release);
must_check int client_release(struct client *c, uint64_t ino, uint64_t lo, uint64_t hi);
void client_detach(struct client *c, uint64_t ino);
/* Answers all that it has been asked; how many. */
unsigned client_answer(struct client *c);
/* Fills the file, [0, blocks). */
void world_fill(struct world *w, uint64_t ino, uint64_t blocks);
/*
 * Shadows are what clients have; masters are the sum of shadows; what is kept is what is free with a master; nobody has what is another's. Nothing is under
 * way.
 */
void world_check(struct world *w);

#endif
