/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * umbradump: what its parts share. It reads by hand, one copy at a time, and prints what is there, sound or not.
 */
#ifndef UMBRA_TOOLS_DUMP_H
#define UMBRA_TOOLS_DUMP_H

#include <stdbool.h>
#include <stdint.h>

#include "media/ag.h"
#include "media/journal.h"
#include "txn/pool.h"

#define DUMP_COPY_BEST 2u /* the first sound one */

struct dump {
	struct dax *dax;
	struct pool *pool;
	const struct super *super;
	unsigned copy; /* 0, 1 or DUMP_COPY_BEST */
	bool hex;      /* bytes after what they mean */
};

/* ---- main.c ---- */

/* "umbradump: " and a line on standard error; returns 1, the exit status for it. */
int dump_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* ---- read.c ---- */

/*
 * The block (or the 512 bytes of an inode) at laddr, as dump->copy says, into buf (BLOCK_SIZE, aligned to 64). Returns the copy that it is,
 * or -1 when there is none; *why: what is wrong with it, NULL if it is sound. magic 0: whatever it says it is.
 */
int dump_unit_read(const struct dump *d, uint64_t laddr, uint32_t magic, void *buf, const char **why);
/* "0x8000000000000003" as "group"; text has room for DUMP_OWNER_TEXT. */
const char *dump_owner_text(uint64_t owner, char *text);
#define DUMP_OWNER_TEXT 40

/* ---- print.c ---- */

void dump_super_print(const struct super *super);
/* Any unit, sound or not; size from its magic. */
void dump_unit_print(const struct dump *d, uint64_t laddr, const void *unit);
/* One record of a tree, on a line. */
void dump_record_print(enum node_kind kind, const void *rec);
void dump_hex_print(const void *bytes, size_t len_bytes);

/* ---- tree.c ---- */

/* Every record below an embedded root, in order of keys. Returns 0, or 1 when a part of it cannot be read (said on standard error). */
int dump_tree_print(const struct dump *d, const void *root, size_t root_size_bytes, enum node_kind kind);

/* ---- image.c ---- */

/* A sparse file with the pool's metadata and nothing of its files' contents. Exit status. */
int dump_image_save(const struct dump *d, const char *path, bool hide_names);

/* ---- hide.c ---- */

/* A name of the same length, the same for the same name within one run, different for different ones. */
void hide_name(uint8_t *name, size_t len);
/* What tells something about content or names in a sound unit is replaced; hide_names: names too. True: it changed. */
bool hide_unit(const struct dump *d, void *unit, bool hide_names);

#endif
