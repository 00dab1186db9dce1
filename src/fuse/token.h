/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Tokens: names of open files that one process gives to another call (UMBRA_IOC_TOKEN).
 *
 * A table of fixed size; the oldest token of a user makes room for a new one of that user. A token is used up by the first one who shows it, right or wrong process.
 */
#ifndef UMBRA_FUSE_TOKEN_H
#define UMBRA_FUSE_TOKEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <umbra/ioctl.h>

#include "util/util.h"

/*
 * fi->fh of an open file or directory: what a later request must know of the open, which it does not carry itself.
 */
#define OPS_FH_WRITE 0x1u
#define OPS_FH_READ 0x2u
#define OPS_FH_DIR 0x4u
#define OPS_FH_DIRECT 0x8u /* bypasses the page cache */
#define OPS_FH_APPEND 0x10u
#define OPS_FH_FLAGS 0xffu
#define OPS_FH_OPEN_SHIFT 8 /* above: a number of its own, of files */

struct token_table;

struct token_file {
	uint64_t ino, gen;
	unsigned mode; /* OPS_FH_* */
	uint64_t open; /* number of an open that counts in fs_cached_opens(); 0: it does not */
	uid_t uid;     /* user that asked: whose share of the table it takes */
	pid_t pid;     /* process (not thread) that asked */
};

/* memory: NULL, or token_table_size() bytes, zero at first, that outlive the table: the next one that is opened on them has its tokens. */
must_check int token_open(void *memory, struct token_table **out);
size_t token_table_size(void);
void token_close(struct token_table *table);

must_check int token_make(struct token_table *table, const struct token_file *file,
			  struct umbra_token *token);
/* What token_use() would give, without using it up. False: an error. */
bool token_look(struct token_table *table, const struct umbra_token *token, pid_t pid,
		struct token_file *file);
/* -EACCES: no such token, used, expired, or another process's. */
must_check int token_use(struct token_table *table, const struct umbra_token *token, pid_t pid,
			 struct token_file *file);

/* The process that a thread belongs to; the number itself where that cannot be seen. */
pid_t token_process(pid_t thread);

#endif
