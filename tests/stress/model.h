/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a worker of the load makes of its files, in plain memory: which step comes next, and what it does. Both follow from a seed and from
 * the steps before, so that who knows how many steps were acknowledged knows everything that must be there.
 */
#ifndef UMBRA_TESTS_STRESS_MODEL_H
#define UMBRA_TESTS_STRESS_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum {
	MODEL_NAMES = 32, /* of each worker; as many objects */
	MODEL_SIZE_MAX = 256 << 10,
	MODEL_BLOCK = 4096,
	MODEL_XATTRS = 3,
	MODEL_XATTR_MAX = 9000,
	MODEL_TARGET_MAX = 3000,
	MODEL_BASE_SIZE = 1 << 20, /* of the file that all workers share blocks of */
};

enum object_kind { OBJECT_NONE, OBJECT_FILE, OBJECT_DIR, OBJECT_LINK };

struct object {
	uint32_t kind;
	uint32_t mode;
	uint32_t links;
	uint32_t size;
	uint32_t xattr_size[MODEL_XATTRS]; /* 0: it is not there */
	uint64_t xattr_serial[MODEL_XATTRS];
	uint64_t serial; /* of a symbolic link's target */
	uint8_t *data;   /* MODEL_SIZE_MAX bytes, zero from size on */
};

struct model {
	int32_t names[MODEL_NAMES]; /* index of an object; -1: there is none */
	struct object objects[MODEL_NAMES];
	const uint8_t *base;
};

/* Each is one system call that counts, so that a crash leaves it done or not done. */
enum step_kind {
	STEP_CREATE,
	STEP_TMPFILE,
	STEP_SYMLINK,
	STEP_MKDIR,
	STEP_WRITE,
	STEP_APPEND,
	STEP_TRUNCATE,
	STEP_ALLOC,
	STEP_ALLOC_KEEP,
	STEP_PUNCH,
	STEP_ZERO,
	STEP_COLLAPSE,
	STEP_INSERT,
	STEP_UNSHARE,
	STEP_CLONE,
	STEP_CLONE_RANGE,
	STEP_CLONE_BASE,
	STEP_COPY,
	STEP_DEDUPE,
	STEP_RENAME,
	STEP_EXCHANGE,
	STEP_LINK,
	STEP_UNLINK,
	STEP_SETXATTR,
	STEP_REMOVEXATTR,
	STEP_CHMOD,
	STEP_MMAP,
	STEP_FSYNC,
	STEP_KINDS
};

struct step {
	enum step_kind kind;
	unsigned a, b; /* names */
	uint64_t serial;
	uint32_t off, src_off, len;
	uint32_t which; /* attribute, mode */
};

uint64_t model_mix(uint64_t z);
/* len bytes of content number serial. */
void model_content(uint64_t serial, uint8_t *bytes, size_t len);
/* A NUL-terminated target; returns its length. */
size_t model_target(uint64_t serial, char *target);

/* base: MODEL_BASE_SIZE bytes that stay the caller's. False: no memory. */
bool model_make(struct model *m, const uint8_t *base);
void model_free(struct model *m);
bool model_copy(struct model *to, const struct model *from);
bool model_save(const struct model *m, FILE *f);
bool model_load(struct model *m, FILE *f);

struct object *model_object(struct model *m, unsigned name); /* NULL: there is none */
const char *step_name(enum step_kind kind);

/* Step number index of the seed: something that can be done to what is there. */
void model_pick(const struct model *m, uint64_t seed, uint64_t index, struct step *s);
void model_apply(struct model *m, const struct step *s);
/* Of all that the step's names lead to. */
uint64_t model_sum(struct model *m, const struct step *s);

#endif
