/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests that are asked again, since the daemon that was at them is gone: what it has done already is not done once more.
 *
 * Requests that can be carried out twice (reads, writes in place, times, copies) need nothing. All others have a receipt from their first byte on
 * (kept.h, txn/receipt.h); their handlers look into it before they begin.
 */
#ifndef UMBRA_FUSE_AGAIN_H
#define UMBRA_FUSE_AGAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/fs.h"
#include "fuse/kept.h"

struct session;

/* Before a request is carried out, as libfuse gets it. False: it has been answered. And after it, on the same thread. */
bool again_begin(struct session *session, char *request, size_t size);
void again_end(void);

/* The thread's request has been carried out; what it was answered. */
bool again_is_done(int *result);
/* It has made an inode, or a name for one: *rc is 0, and attr what that is now, with the reference of the answer. */
bool again_is_made(struct fs *fs, struct inode_attr *attr, int *rc);
/* How far it has come (bytes, files). */
uint64_t again_so_far(void);

/* A LOOKUP has given a reference, and may have been asked again: then the one of before goes. */
void again_looked_up(uint64_t ino);
void again_lookup(struct fs *fs);
/* An open has been counted, with these flags (FS_OPEN_*). */
void again_opened(unsigned flags);
/* It was, for a request that is asked again: *flags, and the caller counts it down. */
bool again_is_opened(unsigned *flags);
/* True: the open is to be counted down; for once. */
bool again_release(void);

/* For ioctls that name a file by a token, which is good once. 0: none yet. */
uint64_t again_source(void);
void again_took_token(uint64_t ino);

#endif
