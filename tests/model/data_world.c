/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Random writes, truncates, fallocates, clones and dedupes, on the file system and on byte arrays. What does not fit is refused by both: a small
 * pool is full now and then.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "model/data_world.h"
#include "repair/check.h"

#define FILE_MAX ((uint64_t)4 << 20)
#define BLK 4096u

/* ---- numbers ---- */

static uint64_t below(struct world *w, uint64_t limit)
{
	return testfs_below(&w->random, limit);
}

static uint64_t any_off(struct world *w, const struct file *f)
{
	uint64_t limit = u64_min(f->size + (below(w, 4) ? 0 : 100000) + 1, FILE_MAX - 1),
		 off = below(w, limit);

	return below(w, 2) ? u64_align_down(off, BLK) : off;
}

static uint64_t any_len(struct world *w)
{
	uint64_t len;

	switch (below(w, 6)) {
	case 0:
		return 1 + below(w, 300);
	case 1:
		return BLK * (1 + below(w, 4));
	case 2:
		return BLK * (1 + below(w, 100));
	case 3:
		return 1 + below(w, 10000);
	case 4:
		len = 1 + below(w, 200000);
		return len;
	default:
		return below(w, 8) ? 1 + below(w, BLK) : 1 + below(w, 1000000);
	}
}

static struct file *any_file(struct world *w)
{
	return &w->files[below(w, WORLD_FILES)];
}

static void fill(struct world *w, uint8_t *bytes, uint64_t len)
{
	for (uint64_t i = 0; i < len; i += 8) {
		uint64_t word = testfs_random(&w->random);

		memcpy(bytes + i, &word, u64_min(8, len - i));
	}
}

/* ---- comparing ---- */

static void differs(struct world *w, const struct file *f, uint64_t at, uint8_t is, uint8_t should)
{
	fail_msg("step %u (%s): file %s of %" PRIu64 " bytes: byte %" PRIu64 " (block %" PRIu64
		 ") is %02x, not %02x",
		 w->step, w->doing, f->name, f->size, at, at / BLK, is, should);
}

static void compare(struct world *w, const struct file *f, uint64_t off, uint64_t len)
{
	uint64_t want = off < f->size ? u64_min(len, f->size - off) : 0;
	ssize_t got = fs_read(w->t.fs, f->ino, w->seen, len, off);

	if (got != (ssize_t)want)
		fail_msg("step %u: read of %s gave %zd, not %" PRIu64, w->step, f->name, got, want);
	for (uint64_t i = 0; memcmp(w->seen, f->bytes + off, want) != 0 && i < want; i++) {
		if (w->seen[i] != f->bytes[off + i])
			differs(w, f, off + i, w->seen[i], f->bytes[off + i]);
	}
}

static void compare_size(struct world *w, const struct file *f)
{
	struct inode_attr a;

	assert_int_equal(fs_getattr(w->t.fs, f->ino, &a), 0);
	if (a.size != f->size)
		fail_msg("step %u: %s has %" PRIu64 " bytes, not %" PRIu64, w->step, f->name, a.size,
			 f->size);
}

static void finding(void *arg, enum check_kind kind, const char *text)
{
	(void)arg;
	printf("# %s: %s\n", check_kind_name(kind), text);
}

void world_compare(struct world *w)
{
	for (unsigned i = 0; i < WORLD_FILES; i++) {
		compare_size(w, &w->files[i]);
		compare(w, &w->files[i], 0, FILE_MAX);
	}
}

void world_check(struct world *w)
{
	struct check_opts opts = { .found = finding, .limit = 5 };
	struct check_report report;

	world_compare(w);
	assert_int_equal(check_pool(w->t.pool, &opts, &report), 0);
	if (report.findings)
		fail_msg("step %u: %" PRIu64 " findings", w->step, report.findings);
	if (report.intents)
		fail_msg("step %u: %" PRIu64 " intents are left", w->step, report.intents);
}

/* An operation gave up for want of space: nothing has changed. */
static void unchanged(struct world *w, const struct file *f)
{
	w->full++;
	compare_size(w, f);
	compare(w, f, 0, FILE_MAX);
}

/* The same, but bytes of [off, end) that lie in blocks of their own may already be as they would have become (NULL: zero). */
static void partly_changed(struct world *w, struct file *f, const uint8_t *would, uint64_t off, uint64_t end)
{
	assert_int_equal(fs_read(w->t.fs, f->ino, w->seen, FILE_MAX, 0), (ssize_t)f->size);
	for (uint64_t i = off; i < end && i < f->size; i++) {
		if (w->seen[i] == (would ? would[i - off] : 0))
			f->bytes[i] = w->seen[i];
	}
	unchanged(w, f);
}

static void model_write(struct file *f, const uint8_t *bytes, uint64_t off, uint64_t len)
{
	if (bytes)
		memcpy(f->bytes + off, bytes, len);
	else
		memset(f->bytes + off, 0, len);
	f->size = u64_max(f->size, off + len);
}

static void model_resize(struct file *f, uint64_t size)
{
	if (size < f->size)
		memset(f->bytes + size, 0, f->size - size);
	f->size = size;
}

/* ---- operations ---- */

static void op_write(struct world *w)
{
	struct file *f = any_file(w);
	bool append = below(w, 5) == 0;
	uint64_t off = append ? f->size : any_off(w, f), len = any_len(w);
	ssize_t got;

	len = u64_min(len, FILE_MAX - off);
	if (len == 0)
		return;
	fill(w, w->buf, len);
	got = fs_write(w->t.fs, &testfs_root, f->ino, w->buf, len, append ? 0 : off,
		       append ? FS_WRITE_APPEND : 0);
	if (got == -ENOSPC) {
		unchanged(w, f);
		return;
	}
	if (got <= 0 || (uint64_t)got > len)
		fail_msg("step %u: write gave %zd", w->step, got);
	model_write(f, w->buf, off, (uint64_t)got);
}

static void op_read(struct world *w)
{
	struct file *f = any_file(w);
	uint64_t off = any_off(w, f); /* not an argument: compilers differ in which they evaluate first */

	compare(w, f, off, any_len(w));
}

static void op_truncate(struct world *w)
{
	struct file *f = any_file(w);
	struct fs_set set = { .what = FS_SET_SIZE };
	struct inode_attr a;
	int rc;

	set.size = below(w, 3) ? any_off(w, f) : below(w, u64_min(f->size * 2 + 300, FILE_MAX));
	rc = fs_setattr(w->t.fs, &testfs_root, f->ino, &set, &a);
	if (rc == -ENOSPC) {
		assert_true(set.size > f->size); /* giving back always works */
		unchanged(w, f);
		return;
	}
	assert_int_equal(rc, 0);
	assert_int_equal(a.size, set.size);
	model_resize(f, set.size);
}

static void model_collapse(struct file *f, uint64_t off, uint64_t len)
{
	memmove(f->bytes + off, f->bytes + off + len, f->size - off - len);
	model_resize(f, f->size - len);
}

static void model_insert(struct file *f, uint64_t off, uint64_t len)
{
	memmove(f->bytes + off + len, f->bytes + off, f->size - off);
	memset(f->bytes + off, 0, len);
	f->size += len;
}

static void op_shift(struct world *w)
{
	struct file *f = any_file(w);
	bool insert = below(w, 2);
	uint64_t off = u64_align_down(any_off(w, f), BLK), len = u64_align_up(any_len(w), BLK);
	bool fits = insert ? off < f->size && f->size + len <= FILE_MAX : off + len < f->size;
	int rc;

	if (insert && f->size + len > FILE_MAX)
		return;
	rc = fs_fallocate(w->t.fs, &testfs_root, f->ino,
			  insert ? FALLOC_FL_INSERT_RANGE : FALLOC_FL_COLLAPSE_RANGE, off, len);
	if (rc == -ENOSPC) {
		unchanged(w, f);
		return;
	}
	if (rc != (fits ? 0 : -EINVAL))
		fail_msg("step %u: %s of %s gave %d", w->step, insert ? "insert" : "collapse", f->name, rc);
	if (rc)
		return;
	if (insert)
		model_insert(f, off, len);
	else
		model_collapse(f, off, len);
}

static void op_fallocate(struct world *w)
{
	static const int modes[] = {
		0,
		FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_ZERO_RANGE,
		FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_UNSHARE_RANGE,
		FALLOC_FL_UNSHARE_RANGE | FALLOC_FL_KEEP_SIZE,
	};
	struct file *f = any_file(w);
	int mode = modes[below(w, ARRAY_SIZE(modes))], rc;
	uint64_t off = any_off(w, f), len = u64_min(any_len(w), FILE_MAX - off);
	bool zeroes = mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE),
	     grows = !(mode & FALLOC_FL_KEEP_SIZE);

	rc = fs_fallocate(w->t.fs, &testfs_root, f->ino, mode, off, len);
	if (rc == -ENOSPC) {
		assert_false(mode & FALLOC_FL_PUNCH_HOLE && off % BLK == 0 && len % BLK == 0);
		if (zeroes)
			partly_changed(w, f, NULL, off, off + len);
		else
			unchanged(w, f);
		return;
	}
	if (rc)
		fail_msg("step %u: fallocate mode %d gave %d", w->step, mode, rc);
	if (zeroes && off < f->size)
		memset(f->bytes + off, 0, u64_min(len, f->size - off));
	if (grows)
		f->size = u64_max(f->size, off + len);
}

static void op_clone(struct world *w)
{
	struct file *src = any_file(w), *dst = any_file(w);
	uint64_t src_off = any_off(w, src), dst_off = any_off(w, dst), len = any_len(w), cut, shared;
	int64_t got;

	if (below(w, 3) == 0) { /* the whole file */
		src_off = dst_off = 0;
		len = FILE_MAX;
	} else if (below(w, 2)) {
		src_off = u64_align_down(src_off, BLK);
		dst_off = u64_align_down(dst_off, BLK);
	}
	len = u64_min(len, FILE_MAX - dst_off);
	cut = src_off < src->size ? u64_min(len, src->size - src_off) : 0;
	got = fs_clone(w->t.fs, &testfs_root, src->ino, src_off, dst->ino, dst_off, len, 0, &shared);
	memcpy(w->buf, src->bytes + src_off, cut);
	if (got == -ENOSPC) {
		/* Only the edges are copied if the rest can be shared. Else all is, and what was stored counts as done. */
		uint64_t in_step = (src_off ^ dst_off) % BLK == 0,
			 edge_end = in_step ? u64_align_up(dst_off, BLK) : dst_off;

		partly_changed(w, dst, w->buf, dst_off, u64_min(edge_end, dst_off + cut));
		return;
	}
	if (src == dst && src_off < dst_off + cut && dst_off < src_off + cut) {
		if (got != -EINVAL && cut != 0)
			fail_msg("step %u: overlapping clone gave %" PRId64, w->step, got);
		return;
	}
	if (got < 0 || (uint64_t)got > cut || (got == 0 && cut != 0) || shared > (uint64_t)got)
		fail_msg("step %u: clone of %" PRIu64 " bytes gave %" PRId64, w->step, cut, got);
	if (got > 0)
		model_write(dst, w->buf, dst_off, (uint64_t)got);
}

static void op_dedupe(struct world *w)
{
	struct file *a = any_file(w), *b = any_file(w);
	uint64_t a_off = u64_align_down(any_off(w, a), BLK), b_off = u64_align_down(any_off(w, b), BLK);
	uint64_t len = BLK * (1 + below(w, 20));
	bool same = false, equal, sound;
	int rc;

	if (below(w, 2)) {
		b_off = a_off; /* of clones that is equal */
		len = u64_min(len, a->size > a_off ? a->size - a_off : 0);
	}
	if (len == 0)
		return;
	sound = a_off + len <= a->size && b_off + len <= b->size &&
		(len % BLK == 0 || (a_off + len == a->size && b_off + len == b->size)) &&
		(a != b || a_off + len <= b_off || b_off + len <= a_off);
	rc = fs_dedupe(w->t.fs, a->ino, a_off, b->ino, b_off, len, &same);
	if (rc == -ENOSPC)
		return;
	if (rc != (sound ? 0 : -EINVAL))
		fail_msg("step %u: dedupe gave %d", w->step, rc);
	if (rc)
		return;
	equal = memcmp(a->bytes + a_off, b->bytes + b_off, len) == 0;
	if (same != equal)
		fail_msg("step %u: dedupe says %s", w->step, same ? "equal" : "different");
}

/* A hole reads as zero, and the next data begins where it ends. */
static void op_seek(struct world *w)
{
	struct file *f = any_file(w);
	uint64_t off = any_off(w, f), hole, data;
	int rc = fs_seek(w->t.fs, f->ino, off, SEEK_HOLE, &hole);

	if (off >= f->size) {
		assert_int_equal(rc, -ENXIO);
		return;
	}
	assert_int_equal(rc, 0);
	assert_true(hole >= off && hole <= f->size);
	rc = fs_seek(w->t.fs, f->ino, off, SEEK_DATA, &data);
	if (rc == -ENXIO)
		data = f->size;
	else
		assert_int_equal(rc, 0);
	assert_true(data >= off && data <= f->size);
	assert_true(data == off || hole == off);
	for (uint64_t i = off; i < data; i++) {
		if (f->bytes[i])
			fail_msg("step %u: %s: byte %" PRIu64 " is said to lie in a hole", w->step, f->name,
				 i);
	}
}

static void file_make(struct world *w, struct file *f)
{
	struct inode_attr a;
	int rc = testfs_mknod(&w->t, w->dir, f->name, S_IFREG | 0644, &a);

	if (rc)
		fail_msg("step %u: create gave %d", w->step, rc);
	fs_forget(w->t.fs, a.ino, 1);
	f->ino = a.ino;
	model_resize(f, 0);
}

/* The file "filler" takes all space but a little, so that the others run out of it. */
static void op_filler(struct world *w)
{
	uint64_t leave_blk = below(w, 2) ? below(w, 30) : below(w, 600), off = 0;
	struct inode_attr a;
	struct fs_statfs st;
	int rc;

	if (below(w, 10))
		return;
	rc = testfs_unlink(&w->t, w->dir, "filler");
	assert_true(rc == 0 || rc == -ENOENT);
	fs_work(w->t.fs);
	assert_int_equal(fs_statfs(w->t.fs, &st), 0);
	rc = testfs_mknod(&w->t, w->dir, "filler", S_IFREG | 0600, &a);
	if (rc) {
		assert_int_equal(rc, -ENOSPC);
		return;
	}
	fs_forget(w->t.fs, a.ino, 1);
	for (uint64_t len = st.free_blk / 2 * BLK; len >= BLK; len /= 2) {
		assert_int_equal(fs_statfs(w->t.fs, &st), 0);
		if (st.free_blk < leave_blk + len / BLK)
			continue;
		rc = fs_fallocate(w->t.fs, &testfs_root, a.ino, FALLOC_FL_KEEP_SIZE, off, len);
		assert_true(rc == 0 || rc == -ENOSPC);
		off += len;
	}
}

static void op_again(struct world *w)
{
	struct file *f = any_file(w);

	if (below(w, 3))
		return;
	assert_int_equal(testfs_unlink(&w->t, w->dir, f->name), 0);
	file_make(w, f);
}

static void op_reopen(struct world *w)
{
	if (below(w, 10))
		return;
	if (below(w, 2) || w->no_crash)
		testfs_remount(&w->t);
	else
		testfs_crash(&w->t);
}

static const struct {
	void (*fn)(struct world *w);
	const char *name;
	unsigned share; /* how often */
} ops[] = {
	{ op_write, "write", 4 },   { op_read, "read", 2 },           { op_truncate, "truncate", 1 },
	{ op_shift, "shift", 1 },   { op_fallocate, "fallocate", 2 }, { op_clone, "clone", 3 },
	{ op_dedupe, "dedupe", 1 }, { op_seek, "seek", 1 },           { op_again, "again", 1 },
	{ op_reopen, "reopen", 1 }, { op_filler, "filler", 1 },
};

void world_step(struct world *w)
{
	uint64_t total = 0, pick;
	size_t i;

	w->step++;
	for (i = 0; i < ARRAY_SIZE(ops); i++)
		total += ops[i].share;
	pick = below(w, total);
	for (i = 0; pick >= ops[i].share; i++)
		pick -= ops[i].share;
	w->doing = ops[i].name;
	ops[i].fn(w);
}

void world_make(struct world *w, uint64_t dir, uint64_t seed)
{
	w->dir = dir;
	w->random = seed;
	w->buf = malloc(FILE_MAX);
	w->seen = malloc(FILE_MAX);
	for (unsigned i = 0; i < WORLD_FILES; i++) {
		snprintf(w->files[i].name, sizeof(w->files[i].name), "f%u", i);
		w->files[i].bytes = calloc(1, FILE_MAX);
		file_make(w, &w->files[i]);
	}
}

void world_empty(struct world *w)
{
	int rc = testfs_unlink(&w->t, w->dir, "filler");

	assert_true(rc == 0 || rc == -ENOENT);
	for (unsigned i = 0; i < WORLD_FILES; i++)
		assert_int_equal(testfs_unlink(&w->t, w->dir, w->files[i].name), 0);
	fs_work(w->t.fs);
}

void world_free(struct world *w)
{
	for (unsigned i = 0; i < WORLD_FILES; i++)
		free(w->files[i].bytes);
	free(w->buf);
	free(w->seen);
}
