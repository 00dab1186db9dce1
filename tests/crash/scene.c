/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Setting scenes: the files before an operation, and clearing up after it.
 */
#include "crash/scenes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define BYTES_MAX ((size_t)1 << 20)

static void must(int64_t rc, const char *what)
{
	if (rc >= 0)
		return;
	fprintf(stderr, "scene: %s: %s\n", what, strerror((int)-rc));
	abort();
}

const uint8_t *scene_bytes(uint64_t len, uint8_t seed)
{
	static uint8_t bytes[BYTES_MAX];

	if (len > sizeof(bytes))
		abort();
	/* No two words are the same, so that a word in the wrong place shows. */
	for (uint64_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)((i >> 3) * 37 + (i >> 11) * 11 + seed * 101u + 1);
	return bytes;
}

void scene_fill(struct scene *s, uint64_t ino, uint64_t off, uint64_t len, uint8_t seed)
{
	ssize_t rc = fs_write(s->t->fs, &testfs_root, ino, scene_bytes(len, seed), len, off, 0);

	must(rc, "write");
	if ((uint64_t)rc != len)
		must(-28, "short write");
}

uint64_t scene_make(struct scene *s, uint64_t dir, const char *name, uint32_t mode)
{
	struct inode_attr a;

	must(testfs_mknod(s->t, dir, name, mode, &a), name);
	fs_forget(s->t->fs, a.ino, 1);
	return a.ino;
}

void scene_begin(struct scene *s, struct testfs *t)
{
	*s = (struct scene){ .t = t };
	s->file = scene_make(s, INODE_ROOT, "f", S_IFREG | 0644);
	s->other = scene_make(s, INODE_ROOT, "o", S_IFREG | 0644);
}

struct names {
	unsigned count;
	struct {
		uint64_t ino;
		uint8_t type;
		char name[FS_NAME_MAX + 1];
	} list[256];
};

static int name_note(void *arg, const struct fs_dirent *d)
{
	struct names *n = arg;

	if (d->name_len <= 2 && d->name[0] == '.' && d->name[d->name_len - 1] == '.')
		return 0;
	if (n->count == ARRAY_SIZE(n->list))
		return 1;
	n->list[n->count].ino = d->ino;
	n->list[n->count].type = d->type;
	memcpy(n->list[n->count].name, d->name, d->name_len);
	n->list[n->count++].name[d->name_len] = 0;
	return 0;
}

static void dir_clear(struct testfs *t, uint64_t dir)
{
	struct names *n = malloc(sizeof(*n));

	if (!n)
		abort();
	do {
		n->count = 0;
		must(fs_readdir(t->fs, dir, 0, false, name_note, n), "readdir");
		for (unsigned i = 0; i < n->count; i++) {
			if (n->list[i].type == 4) { /* DT_DIR */
				dir_clear(t, n->list[i].ino);
				must(testfs_rmdir(t, dir, n->list[i].name), "rmdir");
			} else {
				must(testfs_unlink(t, dir, n->list[i].name), "unlink");
			}
		}
	} while (n->count != 0);
	free(n);
}

void scene_end(struct scene *s)
{
	dir_clear(s->t, INODE_ROOT);
	fs_work(s->t->fs);
}

static void run_file_op(struct testfs *t, void *arg)
{
	void **both = arg;
	struct scene *s = both[0];
	const struct file_op *op = both[1];

	(void)t;
	s->result = op->run(s);
}

static void run_name_op(struct testfs *t, void *arg)
{
	void **both = arg;
	struct scene *s = both[0];
	const struct name_op *op = both[1];

	(void)t;
	s->result = op->run(s);
}

static bool wanted(const char *name)
{
	const char *only = getenv("UMBRA_CRASH_ONLY");

	return !only || strstr(name, only);
}

static void talk(const struct scene *s, const char *name)
{
	if (getenv("UMBRA_CRASH_VERBOSE"))
		printf("# %s: %s\n", name, s->result < 0 ? strerror((int)-s->result) : "ok");
}

bool scene_file(struct crash *c, const struct file_state *state, const struct file_op *op)
{
	struct snapshot_mix mix = { 0 };
	struct scene s;
	void *both[2] = { &s, (void *)(uintptr_t)op };
	char name[100];
	bool ok;

	snprintf(name, sizeof(name), "%s/%s", op->name, state->name);
	if (!wanted(name))
		return true;
	scene_begin(&s, crash_live(c));
	state->make(&s);
	if (op->make)
		op->make(&s);
	if (!state->all_shared && op->mix)
		op->mix(&s, &mix);
	ok = crash_run(c, name, run_file_op, both, &mix);
	talk(&s, name);
	scene_end(&s);
	return ok;
}

bool scene_name(struct crash *c, const struct name_op *op)
{
	struct scene s;
	void *both[2] = { &s, (void *)(uintptr_t)op };
	bool ok;

	if (!wanted(op->name))
		return true;
	scene_begin(&s, crash_live(c));
	if (op->make)
		op->make(&s);
	ok = crash_run(c, op->name, run_name_op, both, NULL);
	talk(&s, op->name);
	scene_end(&s);
	return ok;
}

/* One of both kinds by chance; what it needs besides is made before, not cut. */
static bool any_op(struct crash *c, struct scene *s, uint64_t *random, char *name, size_t name_size)
{
	struct snapshot_mix mix = { 0 };
	const struct file_op *file_op;
	const struct name_op *name_op;
	void *both[2] = { s, NULL };
	bool ok;

	if (testfs_below(random, 3) == 0) {
		name_op = &name_ops[testfs_below(random, name_op_count)];
		both[1] = (void *)(uintptr_t)name_op;
		snprintf(name, name_size, "%s", name_op->name);
		ok = crash_run(c, name, run_name_op, both, NULL);
	} else {
		file_op = &file_ops[testfs_below(random, file_op_count)];
		both[1] = (void *)(uintptr_t)file_op;
		if (file_op->mix)
			file_op->mix(s, &mix);
		snprintf(name, name_size, "%s", file_op->name);
		ok = crash_run(c, name, run_file_op, both, &mix);
	}
	talk(s, name);
	return ok;
}

bool scene_sequence(struct crash *c, uint64_t *random, unsigned length)
{
	const struct file_state *state = &file_states[testfs_below(random, file_state_count)];
	const struct name_op *around = &name_ops[testfs_below(random, name_op_count)];
	char said[400], name[40];
	struct scene s;
	size_t used;
	bool ok = true;

	scene_begin(&s, crash_live(c));
	if (around->make && !around->makes_odd)
		around->make(&s);
	state->make(&s);
	used = (size_t)snprintf(said, sizeof(said), "%s", state->name);
	for (unsigned i = 0; i < length && ok; i++) {
		ok = any_op(c, &s, random, name, sizeof(name));
		used += (size_t)snprintf(said + used, sizeof(said) - used, ", %s", name);
	}
	if (!ok)
		printf("# after: %s (%s)\n", said, around->name);
	scene_end(&s);
	return ok;
}
