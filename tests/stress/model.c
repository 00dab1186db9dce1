/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The model of a worker's files.
 */
#include "model.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static const char *const names[STEP_KINDS] = {
	[STEP_CREATE] = "create",
	[STEP_TMPFILE] = "tmpfile",
	[STEP_SYMLINK] = "symlink",
	[STEP_MKDIR] = "mkdir",
	[STEP_WRITE] = "write",
	[STEP_APPEND] = "append",
	[STEP_TRUNCATE] = "truncate",
	[STEP_ALLOC] = "fallocate",
	[STEP_ALLOC_KEEP] = "fallocate keep",
	[STEP_PUNCH] = "punch",
	[STEP_ZERO] = "zero range",
	[STEP_COLLAPSE] = "collapse",
	[STEP_INSERT] = "insert",
	[STEP_UNSHARE] = "unshare",
	[STEP_CLONE] = "clone",
	[STEP_CLONE_RANGE] = "clone range",
	[STEP_CLONE_BASE] = "clone of the base",
	[STEP_COPY] = "copy range",
	[STEP_DEDUPE] = "dedupe",
	[STEP_RENAME] = "rename",
	[STEP_EXCHANGE] = "exchange",
	[STEP_LINK] = "link",
	[STEP_UNLINK] = "unlink",
	[STEP_SETXATTR] = "setxattr",
	[STEP_REMOVEXATTR] = "removexattr",
	[STEP_CHMOD] = "chmod",
	[STEP_MMAP] = "mmap",
	[STEP_FSYNC] = "fsync",
};

const char *step_name(enum step_kind kind)
{
	return names[kind];
}

uint64_t model_mix(uint64_t z)
{
	z += 0x9e3779b97f4a7c15u;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

void model_content(uint64_t serial, uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i += 8) {
		uint64_t word = model_mix(serial * 1000003u + i);

		memcpy(bytes + i, &word, len - i < 8 ? len - i : 8);
	}
}

size_t model_target(uint64_t serial, char *target)
{
	size_t len = serial & 1 ? 1 + serial / 2 % 60 : 1 + serial / 2 % MODEL_TARGET_MAX;

	for (size_t i = 0; i < len; i++)
		target[i] = (char)('a' + (serial + i * 7) % 26);
	target[len] = '\0';
	return len;
}

bool model_make(struct model *m, const uint8_t *base)
{
	memset(m, 0, sizeof(*m));
	m->base = base;
	for (unsigned i = 0; i < MODEL_NAMES; i++) {
		m->names[i] = -1;
		m->objects[i].data = calloc(1, MODEL_SIZE_MAX);
		if (!m->objects[i].data) {
			model_free(m);
			return false;
		}
	}
	return true;
}

void model_free(struct model *m)
{
	for (unsigned i = 0; i < MODEL_NAMES; i++)
		free(m->objects[i].data);
}

static void object_copy(struct object *to, const struct object *from)
{
	uint8_t *data = to->data;

	*to = *from;
	to->data = data;
	memcpy(data, from->data, MODEL_SIZE_MAX);
}

bool model_copy(struct model *to, const struct model *from)
{
	if (!model_make(to, from->base))
		return false;
	memcpy(to->names, from->names, sizeof(to->names));
	for (unsigned i = 0; i < MODEL_NAMES; i++)
		object_copy(&to->objects[i], &from->objects[i]);
	return true;
}

bool model_save(const struct model *m, FILE *f)
{
	if (fwrite(m->names, sizeof(m->names), 1, f) != 1)
		return false;
	for (unsigned i = 0; i < MODEL_NAMES; i++) {
		const struct object *o = &m->objects[i];

		if (fwrite(o, sizeof(*o), 1, f) != 1 || (o->size && fwrite(o->data, o->size, 1, f) != 1))
			return false;
	}
	return true;
}

bool model_load(struct model *m, FILE *f)
{
	if (fread(m->names, sizeof(m->names), 1, f) != 1)
		return false;
	for (unsigned i = 0; i < MODEL_NAMES; i++) {
		struct object *o = &m->objects[i];
		uint8_t *data = o->data;

		if (fread(o, sizeof(*o), 1, f) != 1 || o->size > MODEL_SIZE_MAX)
			return false;
		o->data = data;
		if (o->size && fread(o->data, o->size, 1, f) != 1)
			return false;
	}
	return true;
}

struct object *model_object(struct model *m, unsigned name)
{
	return m->names[name] < 0 ? NULL : &m->objects[m->names[name]];
}

/* ---- what a step does ---- */

static struct object *object_new(struct model *m, unsigned name, enum object_kind kind, uint32_t mode)
{
	for (int32_t i = 0; i < MODEL_NAMES; i++) {
		struct object *o = &m->objects[i];

		if (o->kind == OBJECT_NONE) {
			o->kind = kind;
			o->mode = mode;
			o->links = 1;
			m->names[name] = i;
			return o;
		}
	}
	abort(); /* as many objects as names */
}

static void name_drop(struct model *m, unsigned name)
{
	struct object *o = model_object(m, name);
	uint8_t *data;

	if (!o)
		return;
	m->names[name] = -1;
	if (--o->links > 0)
		return;
	data = o->data;
	memset(data, 0, MODEL_SIZE_MAX);
	*o = (struct object){ .data = data };
}

static void size_set(struct object *o, uint32_t size)
{
	if (size < o->size)
		memset(o->data + size, 0, o->size - size);
	o->size = size;
}

static void grow_to(struct object *o, uint32_t end)
{
	if (end > o->size)
		o->size = end;
}

static void bytes_take(struct object *o, uint32_t off, const uint8_t *bytes, uint32_t len)
{
	memmove(o->data + off, bytes, len);
	grow_to(o, off + len);
}

static void content_put(struct object *o, const struct step *s)
{
	model_content(s->serial, o->data + s->off, s->len);
	grow_to(o, s->off + s->len);
}

/* Bytes of a range, as far as there are any. */
static void zero_put(struct object *o, const struct step *s)
{
	if (s->off < o->size)
		memset(o->data + s->off, 0, s->len < o->size - s->off ? s->len : o->size - s->off);
}

static void apply_data(struct model *m, struct object *o, const struct step *s)
{
	struct object *src = s->kind == STEP_CLONE || s->kind == STEP_CLONE_RANGE || s->kind == STEP_COPY ?
				     model_object(m, s->a) :
				     NULL;

	switch (s->kind) {
	case STEP_WRITE:
	case STEP_APPEND:
	case STEP_MMAP:
		content_put(o, s);
		break;
	case STEP_TRUNCATE:
		size_set(o, s->len);
		break;
	case STEP_ALLOC:
	case STEP_UNSHARE:
		grow_to(o, s->off + s->len);
		break;
	case STEP_ZERO:
		zero_put(o, s);
		grow_to(o, s->off + s->len);
		break;
	case STEP_PUNCH:
		zero_put(o, s);
		break;
	case STEP_COLLAPSE:
		memmove(o->data + s->off, o->data + s->off + s->len, o->size - s->off - s->len);
		size_set(o, o->size - s->len);
		break;
	case STEP_INSERT:
		memmove(o->data + s->off + s->len, o->data + s->off, o->size - s->off);
		memset(o->data + s->off, 0, s->len);
		o->size += s->len;
		break;
	case STEP_CLONE:
		memcpy(o->data, src->data, MODEL_SIZE_MAX);
		o->size = src->size;
		break;
	case STEP_CLONE_RANGE:
	case STEP_COPY:
		bytes_take(o, s->off, src->data + s->src_off, s->len);
		break;
	case STEP_CLONE_BASE:
		bytes_take(o, s->off, m->base + s->src_off, s->len);
		break;
	default: /* nothing that can be seen */
		break;
	}
}

static void apply_names(struct model *m, const struct step *s)
{
	int32_t a = m->names[s->a];
	struct object *o;

	switch (s->kind) {
	case STEP_CREATE:
		object_new(m, s->a, OBJECT_FILE, s->which);
		break;
	case STEP_TMPFILE:
		o = object_new(m, s->a, OBJECT_FILE, s->which);
		content_put(o, s);
		break;
	case STEP_SYMLINK:
		object_new(m, s->a, OBJECT_LINK, 0777)->serial = s->serial;
		break;
	case STEP_MKDIR:
		object_new(m, s->a, OBJECT_DIR, s->which);
		break;
	case STEP_RENAME:
		if (a == m->names[s->b]) /* two names of one file: nothing happens */
			break;
		name_drop(m, s->b);
		m->names[s->b] = a;
		m->names[s->a] = -1;
		break;
	case STEP_EXCHANGE:
		m->names[s->a] = m->names[s->b];
		m->names[s->b] = a;
		break;
	case STEP_LINK:
		m->names[s->b] = a;
		m->objects[a].links++;
		break;
	default: /* unlink */
		name_drop(m, s->a);
		break;
	}
}

void model_apply(struct model *m, const struct step *s)
{
	struct object *o = model_object(m, s->a);

	switch (s->kind) {
	case STEP_CREATE:
	case STEP_TMPFILE:
	case STEP_SYMLINK:
	case STEP_MKDIR:
	case STEP_RENAME:
	case STEP_EXCHANGE:
	case STEP_LINK:
	case STEP_UNLINK:
		apply_names(m, s);
		break;
	case STEP_SETXATTR:
		o->xattr_size[s->which] = s->len;
		o->xattr_serial[s->which] = s->serial;
		break;
	case STEP_REMOVEXATTR:
		o->xattr_size[s->which] = 0;
		break;
	case STEP_CHMOD:
		o->mode = s->which;
		break;
	case STEP_CLONE:
	case STEP_CLONE_RANGE:
	case STEP_COPY:
		apply_data(m, model_object(m, s->b), s);
		break;
	default:
		apply_data(m, o, s);
		break;
	}
}

uint64_t model_sum(struct model *m, const struct step *s)
{
	const struct object *objects[2] = { model_object(m, s->a), model_object(m, s->b) };
	uint64_t sum = s->kind;

	for (unsigned i = 0; i < 2; i++) {
		if (objects[i])
			sum = XXH3_64bits_withSeed(objects[i]->data, objects[i]->size,
						   sum * 31 + objects[i]->kind + objects[i]->mode);
	}
	return sum;
}

/* ---- which step ---- */

static bool can_be_cloned(const struct object *a, const struct object *b)
{
	return a && b && a != b && a->kind == OBJECT_FILE && b->kind == OBJECT_FILE;
}

static uint32_t below(uint64_t *random, uint32_t limit)
{
	*random = model_mix(*random);
	return limit ? (uint32_t)(*random % limit) : 0;
}

/* A range that ends before MODEL_SIZE_MAX; half of them in whole blocks. */
static void pick_range(struct step *s, uint32_t size, uint64_t *random)
{
	uint32_t room;

	s->off = below(random, size + 2 * MODEL_BLOCK);
	s->len = 1 + below(random, below(random, 3) ? 12000 : 64 << 10);
	if (below(random, 2)) {
		s->off &= ~(uint32_t)(MODEL_BLOCK - 1);
		s->len = (s->len + MODEL_BLOCK - 1) & ~(uint32_t)(MODEL_BLOCK - 1);
	}
	if (s->off > MODEL_SIZE_MAX - MODEL_BLOCK)
		s->off = MODEL_SIZE_MAX - MODEL_BLOCK;
	room = MODEL_SIZE_MAX - s->off;
	if (s->len > room)
		s->len = room;
}

/* Whole blocks of a source of so many bytes, to a place in b. False: there are none. */
static bool pick_blocks(struct step *s, uint32_t src_size, const struct object *b, uint64_t *random)
{
	uint32_t blocks = src_size / MODEL_BLOCK;

	if (!blocks)
		return false;
	s->src_off = below(random, blocks) * MODEL_BLOCK;
	s->len = (1 + below(random, blocks - s->src_off / MODEL_BLOCK)) * MODEL_BLOCK;
	s->off = below(random, b->size / MODEL_BLOCK + 2) * MODEL_BLOCK;
	if (s->off > MODEL_SIZE_MAX / 2)
		s->off = MODEL_SIZE_MAX / 2;
	if (s->len > MODEL_SIZE_MAX - s->off)
		s->len = MODEL_SIZE_MAX - s->off;
	return true;
}

/* Whole blocks in the middle of a file. */
static bool pick_shift(struct step *s, const struct object *o, uint64_t *random)
{
	uint32_t blocks = (o->size - (o->size > 0)) / MODEL_BLOCK; /* with something after them */
	uint32_t room = (MODEL_SIZE_MAX - o->size) / MODEL_BLOCK;

	if (blocks < 2 || (s->kind == STEP_INSERT && !room))
		return false;
	s->off = below(random, blocks) * MODEL_BLOCK;
	s->len = (s->kind == STEP_INSERT ? 1 + below(random, room < 8 ? room : 8) :
					   1 + below(random, blocks - s->off / MODEL_BLOCK)) *
		 MODEL_BLOCK;
	return s->kind == STEP_INSERT || s->off + s->len < o->size;
}

/* Steps on one file that is there. */
static bool pick_file(const struct object *o, struct step *s, uint64_t *random)
{
	switch (s->kind) {
	case STEP_APPEND:
		pick_range(s, 0, random);
		s->off = o->size;
		if (s->len > MODEL_SIZE_MAX - o->size)
			s->len = MODEL_SIZE_MAX - o->size;
		return s->len > 0;
	case STEP_TRUNCATE:
		s->len = below(random, below(random, 2) ? o->size + 1 : MODEL_SIZE_MAX);
		return true;
	case STEP_COLLAPSE:
	case STEP_INSERT:
		return pick_shift(s, o, random);
	case STEP_CLONE_BASE:
		if (!pick_blocks(s, MODEL_BASE_SIZE, o, random))
			return false;
		if (below(random, 2)) /* so that a dedupe finds equal blocks */
			s->src_off = s->off;
		return true;
	case STEP_DEDUPE:
		if (o->size < MODEL_BLOCK)
			return false;
		s->off = s->src_off = below(random, o->size / MODEL_BLOCK) * MODEL_BLOCK;
		s->len = (1 + below(random, o->size / MODEL_BLOCK - s->off / MODEL_BLOCK)) * MODEL_BLOCK;
		return true;
	case STEP_MMAP:
		if (!o->size)
			return false;
		s->off = below(random, o->size);
		s->len = 1 + below(random, 20000);
		if (s->len > o->size - s->off)
			s->len = o->size - s->off;
		return true;
	default:
		pick_range(s, o->size, random);
		return true;
	}
}

static bool pick_two(const struct object *a, const struct object *b, struct step *s, uint64_t *random)
{
	switch (s->kind) {
	case STEP_CLONE:
		return can_be_cloned(a, b) && a->size && b->size <= a->size;
	case STEP_CLONE_RANGE:
		return can_be_cloned(a, b) && pick_blocks(s, a->size, b, random);
	case STEP_COPY:
		if (!can_be_cloned(a, b) || !a->size)
			return false;
		pick_range(s, b->size, random);
		s->src_off = below(random, a->size);
		if (below(random, 2)) /* so that blocks can be shared in between */
			s->src_off = (s->src_off & ~(uint32_t)(MODEL_BLOCK - 1)) | s->off % MODEL_BLOCK;
		if (s->src_off >= a->size)
			s->src_off = 0;
		if (s->len > a->size - s->src_off)
			s->len = a->size - s->src_off;
		return true;
	case STEP_RENAME:
		return s->a != s->b && (!b || (a->kind == OBJECT_DIR) == (b->kind == OBJECT_DIR));
	case STEP_EXCHANGE:
		return s->a != s->b && b;
	default: /* link */
		return a->kind != OBJECT_DIR && !b;
	}
}

static bool pick_try(const struct model *m, struct step *s, uint64_t *random)
{
	struct object *a = model_object((struct model *)m, s->a);
	struct object *b = model_object((struct model *)m, s->b);

	switch (s->kind) {
	case STEP_CREATE:
	case STEP_TMPFILE:
	case STEP_SYMLINK:
	case STEP_MKDIR:
		s->which = 0600 | below(random, 0200);
		s->len = 1 + below(random, 30000);
		return !a;
	case STEP_CLONE:
	case STEP_CLONE_RANGE:
	case STEP_COPY:
	case STEP_RENAME:
	case STEP_EXCHANGE:
	case STEP_LINK:
		return a && pick_two(a, b, s, random);
	case STEP_UNLINK:
		return a && below(random, 2);
	case STEP_SETXATTR:
	case STEP_REMOVEXATTR:
		s->which = below(random, MODEL_XATTRS);
		s->len = 1 + below(random, below(random, 4) ? 200 : MODEL_XATTR_MAX);
		return a && a->kind != OBJECT_LINK &&
		       (s->kind == STEP_SETXATTR || a->xattr_size[s->which] != 0);
	case STEP_CHMOD:
		s->which = 0600 | below(random, 0200);
		return a && a->kind != OBJECT_LINK;
	default:
		return a && a->kind == OBJECT_FILE && pick_file(a, s, random);
	}
}

void model_pick(const struct model *m, uint64_t seed, uint64_t index, struct step *s)
{
	uint64_t random = model_mix(seed ^ model_mix(index));

	do {
		*s = (struct step){ .kind = below(&random, STEP_KINDS) };
		s->a = below(&random, MODEL_NAMES);
		s->b = below(&random, MODEL_NAMES);
		s->serial = random;
	} while (!pick_try(m, s, &random));
}
