/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a mount keeps when its daemon ends: memory that another process holds (daemon/keeper.h), for the daemon that takes over.
 *
 *	head		what was agreed with the kernel, where it is mounted
 *	receipts	of requests that are under way (txn/receipt.h)
 *	tokens		(token.h)
 *	cells		how often the kernel knows each inode (fs/ledger.h); as long as numbers of inodes can be, nearly all of it never touched
 *
 * Whoever takes over believes the head only if it is of the layout that he knows. Nothing in here says where anything lies on the device.
 */
#ifndef UMBRA_FUSE_KEPT_H
#define UMBRA_FUSE_KEPT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "fs/ledger.h"
#include "txn/receipt.h"
#include "util/util.h"

#define KEPT_MAGIC 0x6b65707461726d75ull
/* Goes up with every change of the layout, also that of receipts, tokens and cells. */
#define KEPT_VERSION 2u
#define KEPT_INIT_MAX 256u
#define KEPT_WHY_MAX 256u
#define KEPT_PATH_MAX 4096u

enum kept_upgrade {
	KEPT_UPGRADE_NONE,
	KEPT_UPGRADE_RUNS,
	KEPT_UPGRADE_DONE,
	KEPT_UPGRADE_FAILED, /* the daemon before it serves again */
};

struct kept_head {
	uint64_t magic;
	uint32_t version, head_size;
	uint64_t size_bytes, receipts_off, tokens_off, tokens_size, cells_off, cell_count;
	uint32_t receipt_count;
	_Atomic uint32_t is_agreed; /* init_* are valid; the kernel may have the answer, or not */
	uint32_t init_size, answer_size;
	uint8_t init[KEPT_INIT_MAX], answer[KEPT_INIT_MAX]; /* the request, the body of the answer */
	uint32_t dev_major, dev_minor;                      /* of the mount */
	_Atomic uint32_t starts;                            /* daemons so far */
	_Atomic uint32_t
		receipts_short; /* requests had none, so many since all of them were known to be answered */
	uint64_t trying;        /* a request that is carried out again now; 0: none */
	uint32_t trying_count;
	/* the keeper's */
	_Atomic uint32_t deaths, upgrade; /* enum kept_upgrade */
	char upgrade_why[KEPT_WHY_MAX];
	/* the first daemon's */
	char dir[KEPT_PATH_MAX], source[KEPT_PATH_MAX];
};

struct kept;

/* -errno */
must_check int kept_new(uint64_t cell_count, struct kept **out);
/* Of a daemon before this one; fd stays the caller's. -EPROTO: it is of another layout. */
must_check int kept_take(int fd, struct kept **out);
void kept_close(struct kept *kept); /* may be NULL */

int kept_fd(const struct kept *kept);
bool kept_is_taken(const struct kept *kept);
struct kept_head *kept_head(struct kept *kept);
void *kept_tokens(struct kept *kept);
const struct fs_ledger *kept_ledger(const struct kept *kept);

/* For pool_opts: arg is the kept. */
void kept_applied(void *arg, uint64_t seq);

/* What is agreed with the kernel: the request as it came, and the answer before it is sent. False: too long. */
must_check bool kept_init(struct kept *kept, const void *request, size_t size);
void kept_agree(struct kept *kept, const struct iovec *iov, int count);

/* ---- receipts ---- */

/* That of the request which this thread is at; NULL: it has none. */
extern _Thread_local struct txn_receipt *kept_now;

/* A new one. NULL: all are in use. */
struct txn_receipt *kept_claim(struct kept *kept, uint64_t unique);
/* All that had none at that count of receipts_short have been answered. */
void kept_settled(struct kept *kept, uint32_t short_count);
/* NULL: there is none. */
struct txn_receipt *kept_find(struct kept *kept, uint64_t unique);
/* The request has been answered. */
void kept_release(struct txn_receipt *receipt);
/* All but those of these requests have been answered; sorted. */
void kept_sweep(struct kept *kept, const uint64_t *uniques, size_t count);

#endif
