/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Setting scenes: the files before an operation, and clearing up after it.
 */
#include "crash/scenes.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "space/space.h"

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

	if (s->rough)
		return;
	must(rc, "write");
	if ((uint64_t)rc != len)
		must(-ENOSPC, "short write");
}

uint64_t scene_make(struct scene *s, uint64_t dir, const char *name, uint32_t mode)
{
	struct inode_attr a;
	int rc = testfs_mknod(s->t, dir, name, mode, &a);

	if (rc == -EEXIST)
		rc = testfs_lookup(s->t, dir, name, &a);
	if (rc && s->rough)
		return 0;
	must(rc, name);
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
	for (; s->opens > 0; s->opens--)
		fs_closed(s->t->fs, s->file, FS_OPEN_WRITE);
	if (s->tmp)
		fs_forget(s->t->fs, s->tmp, 1);
	dir_clear(s->t, INODE_ROOT);
	fs_work(s->t->fs);
}

/* ---- trees that are about to get another node ---- */

static uint64_t units_free(struct scene *s)
{
	struct space_totals totals;

	must(space_totals(s->t->pool, &totals), "space_totals");
	return totals.meta_free_units;
}

static unsigned full_count(struct scene *s, void (*add)(struct scene *s, uint64_t ino, unsigned i),
			   uint32_t mode, unsigned nodes)
{
	uint64_t ino = scene_make(s, INODE_ROOT, "probe", mode);
	unsigned i;

	for (i = 0; i < 1000; i++) {
		uint64_t before = units_free(s);

		add(s, ino, i);
		/* Inodes take units by eights. */
		if ((before - units_free(s)) % 8 != 0 && nodes-- == 0)
			break;
	}
	if (S_ISDIR(mode)) {
		dir_clear(s->t, ino);
		must(testfs_rmdir(s->t, INODE_ROOT, "probe"), "rmdir");
	} else {
		must(testfs_unlink(s->t, INODE_ROOT, "probe"), "unlink");
	}
	fs_work(s->t->fs);
	return i;
}

unsigned scene_full(struct scene *s, void (*add)(struct scene *s, uint64_t ino, unsigned i), uint32_t mode,
		    unsigned nodes)
{
	static struct {
		void (*add)(struct scene *s, uint64_t ino, unsigned i);
		unsigned nodes, count;
	} known[16];
	unsigned k = 0;

	while (k < ARRAY_SIZE(known) && known[k].add && (known[k].add != add || known[k].nodes != nodes))
		k++;
	if (k == ARRAY_SIZE(known))
		abort();
	if (!known[k].add) {
		known[k].count = full_count(s, add, mode, nodes);
		known[k].nodes = nodes;
		known[k].add = add;
	}
	return known[k].count;
}

/* ---- running ---- */

const struct scene_op *scene_op(unsigned i)
{
	return i < file_op_count ? &file_ops[i] : &name_ops[i - file_op_count];
}

unsigned scene_op_count(void)
{
	return file_op_count + name_op_count;
}

bool scene_op_is_long(const struct scene_op *op)
{
	static const char *const names[] = {
		"truncate-zero", "truncate-mid", "open-truncate", "punch-large", "collapse",    "insert",
		"clone-whole",   "clone-onto",   "dedupe",        "unlink",      "rename-over", "clone-files",
	};

	for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
		if (strcmp(op->name, names[i]) == 0)
			return true;
	}
	return false;
}

struct running {
	struct scene *s;
	const struct scene_op *op;
	struct snapshot_mix mix;
};

static void run_op(struct testfs *t, void *arg)
{
	struct running *r = arg;

	(void)t;
	r->s->result = r->op->run(r->s);
	r->mix.stays = r->s->result < 0;
}

/* What a failed operation has stored in place may stay on its way; it is nothing for the next one to be asked about. */
static void settle_failed(struct scene *s)
{
	if (s->result < 0)
		(void)!dax_fence(s->t->dax);
}

static bool wanted(const char *name)
{
	const char *only = getenv("UMBRA_CRASH_ONLY");

	return !only || strstr(name, only);
}

static bool cut(struct crash *c, struct scene *s, const char *name, const struct scene_op *op,
		bool all_shared)
{
	struct running running = { .s = s, .op = op };
	bool ok;

	if (!all_shared && op->mix)
		op->mix(s, &running.mix);
	ok = crash_run(c, name, run_op, &running, &running.mix);
	settle_failed(s);
	if (getenv("UMBRA_CRASH_VERBOSE"))
		printf("# %s: %s\n", name, s->result < 0 ? strerror((int)-s->result) : "ok");
	if (s->wrong)
		printf("# %s: %s\n", name, s->wrong);
	return ok && !s->wrong;
}

bool scene_run(struct crash *c, const struct file_state *state, const struct scene_op *op)
{
	struct scene s;
	char name[100];
	bool ok;

	snprintf(name, sizeof(name), "%s%s%s", op->name, state ? "/" : "", state ? state->name : "");
	if (!wanted(name))
		return true;
	scene_begin(&s, crash_live(c));
	if (state)
		state->make(&s);
	if (op->make)
		op->make(&s);
	ok = cut(c, &s, name, op, state && state->all_shared);
	scene_end(&s);
	return ok;
}

static bool is_name_op(const struct scene_op *op)
{
	return op >= name_ops && op < name_ops + name_op_count;
}

/* Names and attributes before the state (it may leave no space), what goes with the data after it. */
static void make_all(struct scene *s, const struct file_state *state, const struct scene_op *const ops[2])
{
	s->rough = true;
	for (unsigned i = 0; i < 2; i++) {
		if (ops[i]->make && is_name_op(ops[i]))
			ops[i]->make(s);
	}
	state->make(s);
	for (unsigned i = 0; i < 2; i++) {
		if (ops[i]->make && !is_name_op(ops[i]))
			ops[i]->make(s);
	}
}

bool scene_pair(struct crash *c, const struct file_state *state, const struct scene_op *first,
		const struct scene_op *op)
{
	struct scene s;
	char name[150];
	bool ok;

	snprintf(name, sizeof(name), "%s+%s/%s", first->name, op->name, state->name);
	if (!wanted(name))
		return true;
	scene_begin(&s, crash_live(c));
	make_all(&s, state, (const struct scene_op *const[]){ first, op });
	s.result = first->run(&s);
	settle_failed(&s);
	ok = cut(c, &s, name, op, false);
	scene_end(&s);
	return ok;
}

bool scene_sequence(struct crash *c, uint64_t *random, unsigned length)
{
	const struct file_state *state = &file_states[testfs_below(random, file_state_count)];
	const struct scene_op *op = &name_ops[testfs_below(random, name_op_count)];
	char said[1000];
	struct scene s;
	size_t used;
	bool ok = true;

	scene_begin(&s, crash_live(c));
	make_all(&s, state, (const struct scene_op *const[]){ op, op });
	used = (size_t)snprintf(said, sizeof(said), "%s (%s)", state->name, op->name);
	for (unsigned i = 0; i < length && ok; i++) {
		/* What an operation needs is made before it now and then, not cut. */
		op = scene_op((unsigned)testfs_below(random, scene_op_count()));
		if (op->make && testfs_below(random, 4) == 0)
			op->make(&s);
		ok = cut(c, &s, op->name, op, false);
		if (used < sizeof(said))
			used += (size_t)snprintf(said + used, sizeof(said) - used, ", %s", op->name);
	}
	if (!ok)
		printf("# after: %s\n", said);
	scene_end(&s);
	return ok;
}
