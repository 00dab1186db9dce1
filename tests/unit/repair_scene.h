/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A pool with something of every kind, images of it as bytes, and damage to its metadata units.
 */
#ifndef UMBRA_TESTS_REPAIR_SCENE_H
#define UMBRA_TESTS_REPAIR_SCENE_H

#include "crash/snapshot.h"
#include "lib/testfs.h"
#include "repair/repair.h"

#define SCENE_BYTES ((uint64_t)32 << 20)
#define SCENE_UNITS_MAX 64u

enum scene_what {
	SCENE_NOTHING, /* other structures have all that the unit knows */
	SCENE_RECORD,  /* the inode at .path: what only its record knew */
	SCENE_XATTRS,  /* some extended attributes of .path */
	SCENE_LOSSES,  /* what was lost of .path, which no call can read */
};

struct scene_unit {
	const char *name;
	uint64_t off[2]; /* of its copies on the device */
	size_t size;
	enum scene_what knows;
	const char *path; /* "" is the root directory */
	bool record;      /* a journal record, no unit */
};

struct scene {
	uint8_t *image; /* SCENE_BYTES; as after a crash: not unmounted */
	uint8_t *older; /* the same pool some operations ago */
	struct snapshot want;
	struct snapshot before; /* live: as if that transaction had never been */
	struct scene_unit units[SCENE_UNITS_MAX];
	unsigned unit_count;
};

/* An image that is used again and again: only the blocks that were written are restored. */
struct scene_image {
	uint8_t *bytes;   /* SCENE_BYTES */
	uint8_t *written; /* for each block */
};

/* live: a transaction is in the journal that was not applied (and the only unit in the list is its record). */
void scene_make(struct scene *s, bool live);
void scene_free(struct scene *s);

void scene_image_make(const struct scene *s, struct scene_image *im);
void scene_image_reset(const struct scene *s, struct scene_image *im);
void scene_image_free(struct scene_image *im);
/* Whoever writes to it himself says where, before or after. */
void scene_image_mark(struct scene_image *im, uint64_t off, size_t len_bytes);

enum scene_damage { SCENE_ZERO, SCENE_RANDOM, SCENE_FLIP, SCENE_OLDER, SCENE_OTHER, SCENE_DAMAGES };
extern const char *const scene_damage_names[SCENE_DAMAGES];

/* Damages copies (bit 0 the primary, bit 1 the mirror) of a unit in an image. False: that cannot be done to it (there is no older one). */
bool scene_damage(const struct scene *s, struct scene_image *im, const struct scene_unit *u,
		  enum scene_damage how, unsigned copies, uint64_t *random);

/* What a run of repair said and did. */
struct scene_run {
	struct repair_report report;
	char *lost; /* lines about losses, one after the other */
	int rc;
	char why[256];
};

/* Repair of an image in place; trace may be NULL. loud: all it says to standard output. */
void scene_repair(struct scene_run *run, struct scene_image *im, const struct dax_trace *trace, bool loud);
void scene_run_free(struct scene_run *run);

/*
 * Repair has been run on an image: a second run finds nothing, and what can be read differs from s->want in nothing but what u (damaged in
 * copies) alone knew; that has been named by run (NULL: it was run more than once). False: why says what is wrong. Writes to the image.
 */
bool scene_is_mended(const struct scene *s, struct scene_image *im, const struct scene_unit *u,
		     enum scene_damage how, unsigned copies, const struct scene_run *run, char *why,
		     size_t why_size);

#endif
