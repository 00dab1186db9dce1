/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A pool in memory for fuzzing: something of every kind on it, always the same, and quickly as it was again.
 *
 * It looks as after a crash: a record in the journal that is not applied, intents, orphans. It is made once for each process; its
 * UUID, hash keys and places do not depend on the day, so that an input means the same tomorrow.
 */
#ifndef UMBRA_TESTS_FUZZ_POOL_H
#define UMBRA_TESTS_FUZZ_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dax/dax.h"
#include "txn/pool.h"

#define FUZZ_POOL_BYTES ((uint64_t)32 << 20)
#define FUZZ_AG_BYTES ((uint64_t)16 << 20)
#define FUZZ_UNITS_MAX 2048u

enum fuzz_unit_kind { FUZZ_UNIT, FUZZ_SUPER, FUZZ_RECORD };

/* A unit that is in use, or the record in the journal, and where its copies are. */
struct fuzz_unit {
	uint64_t laddr;
	uint64_t off[2];
	uint32_t size_bytes;
	enum fuzz_unit_kind kind;
};

enum fuzz_file {
	FUZZ_ROOT,
	FUZZ_FILE,
	FUZZ_CLONE,
	FUZZ_PIECES,
	FUZZ_SMALL,
	FUZZ_UNWRITTEN,
	FUZZ_ATTRS,
	FUZZ_LINKED,
	FUZZ_DIR,
	FUZZ_LINKS,
	FUZZ_P,
	FUZZ_Q,
	FUZZ_LINK,
	FUZZ_FILES
};

extern struct fuzz_unit fuzz_units[FUZZ_UNITS_MAX];
extern unsigned fuzz_unit_count;
extern uint64_t fuzz_inos[FUZZ_FILES];
extern const char *const fuzz_names[FUZZ_FILES]; /* in their directory */

/* To be called first. */
void fuzz_pool_make(void);

/* The bytes as they are now; and as they were made. */
uint8_t *fuzz_pool_bytes(void);
const uint8_t *fuzz_pool_base(void);
/* Says that a part of the bytes is written to by hand. */
void fuzz_pool_touch(uint64_t off, size_t len_bytes);
bool fuzz_pool_is_touched(uint64_t page);
/* Makes everything as it was. No dax may be open. */
void fuzz_pool_restore(void);

/* The pool as a device; a store to a read-only one stops the program. */
struct dax *fuzz_dax_open(bool readonly);

/* Names that get long, for trees with levels. */
void fuzz_long_name(char name[256], unsigned i);

/* What the media cannot be the reason of: prints it and stops the program. */
void fuzz_stop(const char *what, int64_t rc, const char *why) __attribute__((noreturn));

#endif
