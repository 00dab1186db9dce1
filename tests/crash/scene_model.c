/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What an operation on data makes of the two files of a scene, by the bytes: an array for each. So that a file system that is wrong
 * by itself is not taken for the measure of its images.
 */
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>

#include "crash/scenes.h"

#define BLK 4096u

/* One file: size bytes, and room for as many as it may get. */
struct model_file {
	uint64_t ino, size;
	uint8_t *bytes;
	size_t room;
	bool known; /* else it is no file any more */
};

struct scene_model {
	struct model_file files[2];
};

static void room_for(struct model_file *f, uint64_t size)
{
	if (size <= f->room)
		return;
	f->bytes = realloc(f->bytes, size);
	if (!f->bytes)
		abort();
	f->room = size;
}

static void file_read(struct testfs *t, struct model_file *f)
{
	struct inode_attr attr;

	f->known = fs_getattr(t->fs, f->ino, &attr) == 0;
	if (!f->known)
		return;
	f->size = attr.size;
	room_for(f, f->size);
	f->known = fs_read(t->fs, f->ino, f->bytes, f->size, 0) == (ssize_t)f->size;
}

struct scene_model *model_begin(struct scene *s)
{
	struct scene_model *m = calloc(1, sizeof(*m));

	if (!m)
		abort();
	m->files[0].ino = s->file;
	m->files[1].ino = s->other;
	for (unsigned i = 0; i < 2; i++)
		file_read(s->t, &m->files[i]);
	return m;
}

static struct model_file *file_of(struct scene_model *m, uint64_t ino)
{
	return &m->files[m->files[0].ino == ino ? 0 : 1];
}

void model_size(struct scene_model *m, uint64_t ino, uint64_t size)
{
	struct model_file *f = file_of(m, ino);

	room_for(f, size);
	if (size > f->size)
		memset(f->bytes + f->size, 0, size - f->size);
	f->size = size;
}

uint64_t model_size_of(struct scene_model *m, uint64_t ino)
{
	return file_of(m, ino)->size;
}

void model_write(struct scene_model *m, uint64_t ino, uint64_t off, const uint8_t *bytes, uint64_t len)
{
	struct model_file *f = file_of(m, ino);

	model_size(m, ino, u64_max(f->size, off + len));
	memcpy(f->bytes + off, bytes, len);
}

void model_share(struct scene_model *m, uint64_t src, uint64_t src_off, uint64_t dst, uint64_t dst_off,
		 uint64_t len)
{
	struct model_file *from = file_of(m, src);
	uint8_t *copy = malloc(len + 1);

	if (!copy)
		abort();
	if (from->known && src_off + len <= from->size) {
		memcpy(copy, from->bytes + src_off, len);
		model_write(m, dst, dst_off, copy, len);
	}
	free(copy);
}

void model_falloc(struct scene_model *m, uint64_t ino, int mode, uint64_t off, uint64_t len)
{
	struct model_file *f = file_of(m, ino);
	uint64_t end = u64_min(off + len, f->size), old = f->size;

	if (mode == FALLOC_FL_COLLAPSE_RANGE) {
		memmove(f->bytes + off, f->bytes + off + len, old - off - len);
		f->size -= len;
		return;
	}
	if (mode == FALLOC_FL_INSERT_RANGE) {
		model_size(m, ino, old + len);
		memmove(f->bytes + off + len, f->bytes + off, old - off);
		memset(f->bytes + off, 0, len);
		return;
	}
	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE) && off < end)
		memset(f->bytes + off, 0, end - off);
	if (!(mode & FALLOC_FL_KEEP_SIZE) && off + len > old)
		model_size(m, ino, off + len);
}

void model_end(struct scene *s, struct scene_model *m, bool done)
{
	for (unsigned i = 0; i < 2; i++) {
		struct model_file *f = &m->files[i], now = { .ino = f->ino };

		file_read(s->t, &now);
		if (done && f->known && now.known &&
		    (now.size != f->size || (f->size > 0 && memcmp(now.bytes, f->bytes, f->size) != 0)))
			s->wrong = i ? "the content of the other file is wrong" :
				       "the content of the file is wrong";
		free(now.bytes);
		free(f->bytes);
	}
	free(m);
}
