/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bad memory under file data, at random: pages lose lines while files that share them are written, cut, punched, shifted, cloned, deduplicated, put
 * back from copies. Some want zeroes in the place of what they lose. A plain model says at each step which bytes each file has and which it has
 * lost: no more, and no less.
 */
#include <errno.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "fs/owners.h"
#include "lib/testfs.h"
#include "lib/testpoison.h"

#define FILES 5u
#define BLOCKS_MAX 20u
#define BYTES_MAX (BLOCKS_MAX * BLOCK_SIZE)
#define LINES_MAX (BYTES_MAX / LINE_SIZE)
#define STEPS 6000u
#define OWNERS_MAX 64u

struct model {
	uint64_t ino, size;
	bool zero; /* wants zeroes for what it loses */
	uint8_t bytes[BYTES_MAX];
	bool lost[LINES_MAX];
};

static struct testfs t;
static struct testpoison *poison;
static struct model files[FILES];
static uint64_t seed, losses_made, healed_made, zeroed_made, put_back;
static uint8_t buf[BYTES_MAX];

static uint64_t random_below(uint64_t limit)
{
	return testfs_below(&seed, limit);
}

static void name_of(const struct model *f, char name[8])
{
	snprintf(name, 8, "f%u", (unsigned)(f - files));
}

static void bytes_random(uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)(1 + random_below(255));
}

/* ---- the model ---- */

static bool model_may_store(const struct model *f, uint64_t off, uint64_t end)
{
	for (uint64_t line = off / LINE_SIZE; line * LINE_SIZE < end && line < LINES_MAX; line++) {
		uint64_t start = line * LINE_SIZE;

		if (f->lost[line] && (off > start || (end < start + LINE_SIZE && end < f->size)))
			return false;
	}
	return true;
}

/* Lines that [off, end) covers are whole. */
static void model_heal(struct model *f, uint64_t off, uint64_t end)
{
	for (uint64_t line = 0; line < LINES_MAX; line++) {
		uint64_t start = line * LINE_SIZE;

		if (f->lost[line] && off <= start && start < end &&
		    (end >= start + LINE_SIZE || end >= f->size)) {
			f->lost[line] = false;
			healed_made++;
		}
	}
}

static void model_cut(struct model *f, uint64_t size)
{
	for (uint64_t line = (size + LINE_SIZE - 1) / LINE_SIZE; line < LINES_MAX; line++)
		f->lost[line] = false;
	memset(f->bytes + size, 0, BYTES_MAX - size);
	f->size = size;
}

static uint64_t model_first_lost(const struct model *f, uint64_t off, uint64_t end)
{
	for (uint64_t line = off / LINE_SIZE; line * LINE_SIZE < end; line++) {
		if (f->lost[line])
			return line * LINE_SIZE > off ? line * LINE_SIZE : off;
	}
	return end;
}

/* ---- comparing ---- */

static void read_check(const struct model *f, uint64_t off, uint64_t len)
{
	uint64_t end = off + len > f->size ? f->size : off + len, lost;
	ssize_t n = fs_read(t.fs, f->ino, buf, len, off);

	if (off >= f->size) {
		assert_int_equal(n, 0);
		return;
	}
	lost = model_first_lost(f, off, end);
	assert_int_equal(n, lost == off ? -EIO : (ssize_t)(lost - off));
	if (n > 0)
		assert_memory_equal(buf, f->bytes + off, (size_t)n);
	n = fs_read_pages(t.fs, f->ino, buf, len, off);
	assert_int_equal(n, lost < end ? -EIO : (ssize_t)(end - off));
	if (n > 0)
		assert_memory_equal(buf, f->bytes + off, (size_t)n);
}

static void file_check(const struct model *f)
{
	for (uint64_t off = 0; off < f->size;) {
		uint64_t lost = model_first_lost(f, off, f->size);

		read_check(f, off, f->size - off);
		off = lost == off ? (off / LINE_SIZE + 1) * LINE_SIZE : lost;
	}
	assert_int_equal(testfs_attr(&t, f->ino).size, f->size);
}

static void all_check(void)
{
	for (unsigned i = 0; i < FILES; i++)
		file_check(&files[i]);
}

/* ---- steps ---- */

static void file_make(struct model *f)
{
	char name[8];
	uint64_t size = 2 * BLOCK_SIZE + random_below(BYTES_MAX / 2);

	name_of(f, name);
	memset(f, 0, sizeof(*f));
	f->ino = testfs_node(&t, INODE_ROOT, name, S_IFREG | 0644);
	f->size = size;
	bytes_random(f->bytes, size);
	assert_int_equal(fs_write(t.fs, &testfs_root, f->ino, f->bytes, size, 0, 0), size);
}

static void step_again(struct model *f)
{
	char name[8];

	name_of(f, name);
	assert_int_equal(testfs_unlink(&t, INODE_ROOT, name), 0);
	file_make(f);
}

/* A place that often lies at the border of lines or blocks. */
static uint64_t place_random(uint64_t limit)
{
	uint64_t at = random_below(limit + 1);

	switch (random_below(4)) {
	case 0:
		return at / BLOCK_SIZE * BLOCK_SIZE;
	case 1:
	case 2:
		return at / LINE_SIZE * LINE_SIZE;
	default:
		return at;
	}
}

static void range_random(uint64_t limit, uint64_t *off, uint64_t *end)
{
	uint64_t a = place_random(limit), b = place_random(limit);

	*off = a < b ? a : b;
	*end = a < b ? b : a;
}

static void step_write(struct model *f)
{
	static uint8_t new_bytes[BYTES_MAX];
	uint64_t off, end, stored_end;

	range_random(BYTES_MAX, &off, &end);
	if (random_below(2))
		end = off + random_below(3 * LINE_SIZE);
	if (end > BYTES_MAX || off == end)
		return;
	bytes_random(new_bytes, end - off);
	/* A store that ends in the middle of a lost line is cut short before it. */
	stored_end = model_may_store(f, off, end) ? end : end / LINE_SIZE * LINE_SIZE;
	if (stored_end <= off || !model_may_store(f, off, stored_end)) {
		assert_int_equal(fs_write(t.fs, &testfs_root, f->ino, new_bytes, end - off, off, 0), -EIO);
		return;
	}
	memcpy(f->bytes + off, new_bytes, stored_end - off);
	assert_int_equal(fs_write(t.fs, &testfs_root, f->ino, new_bytes, end - off, off, 0),
			 stored_end - off);
	end = stored_end;
	model_heal(f, off, end);
	if (end > f->size)
		f->size = end;
}

static void step_truncate(struct model *f)
{
	struct fs_set set = { .what = FS_SET_SIZE, .size = place_random(BYTES_MAX) };
	struct inode_attr attr;

	assert_int_equal(fs_setattr(t.fs, &testfs_root, f->ino, &set, &attr), 0);
	if (set.size < f->size)
		model_cut(f, set.size);
	f->size = set.size;
}

static void step_fallocate(struct model *f)
{
	static const int modes[] = {
		FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_ZERO_RANGE,
		FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_UNSHARE_RANGE,
		0,
	};
	int mode = modes[random_below(ARRAY_SIZE(modes))], rc;
	uint64_t off, end;

	range_random(BYTES_MAX, &off, &end);
	if (off == end)
		return;
	rc = fs_fallocate(t.fs, &testfs_root, f->ino, mode, off, end - off);
	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) {
		if (!model_may_store(f, off, end)) {
			assert_int_equal(rc, -EIO);
			return;
		}
		memset(f->bytes + off, 0, end - off);
		model_heal(f, off, end);
	}
	assert_int_equal(rc, 0);
	if (!(mode & FALLOC_FL_KEEP_SIZE) && end > f->size)
		f->size = end;
}

static void step_shift(struct model *f)
{
	uint64_t size_blk = f->size / BLOCK_SIZE, at, count;
	bool insert = random_below(2);

	if (size_blk < 3)
		return;
	at = random_below(size_blk);
	count = 1 + random_below(3);
	if (insert ? f->size + count * BLOCK_SIZE > BYTES_MAX : (at + count) * BLOCK_SIZE >= f->size)
		return;
	assert_int_equal(fs_fallocate(t.fs, &testfs_root, f->ino,
				      insert ? FALLOC_FL_INSERT_RANGE : FALLOC_FL_COLLAPSE_RANGE,
				      at * BLOCK_SIZE, count * BLOCK_SIZE),
			 0);
	for (unsigned i = 0; i < 2; i++) {
		uint8_t *start = i ? (uint8_t *)f->lost : f->bytes;
		size_t unit = i ? BLOCK_SIZE / LINE_SIZE : BLOCK_SIZE, all = BLOCKS_MAX * unit;
		size_t from = at * unit, by = count * unit;

		if (insert) {
			memmove(start + from + by, start + from, all - from - by);
			memset(start + from, 0, by);
		} else {
			memmove(start + from, start + from + by, all - from - by);
			memset(start + all - by, 0, by);
		}
	}
	f->size += insert ? count * BLOCK_SIZE : 0 - count * BLOCK_SIZE;
}

static void model_copy(struct model *dst, uint64_t dst_off, const struct model *src, uint64_t src_off,
		       uint64_t len)
{
	memmove(dst->bytes + dst_off, src->bytes + src_off, len);
	memmove(dst->lost + dst_off / LINE_SIZE, src->lost + src_off / LINE_SIZE,
		(len + LINE_SIZE - 1) / LINE_SIZE);
	if (dst_off + len > dst->size)
		dst->size = dst_off + len;
}

static void step_clone(struct model *f)
{
	struct model *src = &files[random_below(FILES)];
	uint64_t src_off = random_below(BLOCKS_MAX) * BLOCK_SIZE,
		 dst_off = random_below(BLOCKS_MAX) * BLOCK_SIZE;
	uint64_t len = (1 + random_below(BLOCKS_MAX)) * BLOCK_SIZE;

	if (src_off >= src->size || dst_off >= BYTES_MAX)
		return;
	if (len > src->size - src_off) {
		len = src->size - src_off;
		if (len % BLOCK_SIZE && dst_off + len < f->size)
			len = len / BLOCK_SIZE * BLOCK_SIZE;
	}
	if (len == 0 || len > BYTES_MAX - dst_off ||
	    (src == f && src_off < dst_off + len && dst_off < src_off + len))
		return;
	assert_int_equal(fs_clone(t.fs, &testfs_root, src->ino, src_off, f->ino, dst_off, len, 0, NULL), len);
	model_copy(f, dst_off, src, src_off, len);
}

static void step_clone_file(struct model *f)
{
	struct model *src = &files[random_below(FILES)];
	struct fs_clone_item item = { .src = src->ino };
	unsigned done;
	int rc;
	char name[8];

	if (src == f)
		return;
	name_of(f, name);
	assert_int_equal(testfs_unlink(&t, INODE_ROOT, name), 0);
	item.name = name;
	item.name_len = strlen(name);
	rc = fs_clone_files(t.fs, &testfs_root, INODE_ROOT, &item, 1, &done);
	*f = *src;
	if (rc == -EXDEV) { /* its last block cannot be shared: the caller's to copy */
		f->zero = false;
		f->ino = testfs_node(&t, INODE_ROOT, name, S_IFREG | 0644);
		assert_int_equal(fs_clone(t.fs, &testfs_root, src->ino, 0, f->ino, 0, src->size, 0, NULL),
				 src->size);
		return;
	}
	assert_int_equal(rc, 0);
	f->ino = item.new_ino;
}

static void step_dedupe(struct model *f)
{
	struct model *src = &files[random_below(FILES)];
	uint64_t off = random_below(BLOCKS_MAX) * BLOCK_SIZE, len = (1 + random_below(4)) * BLOCK_SIZE;
	uint64_t least = src->size < f->size ? src->size : f->size;
	bool same = false;
	int rc;

	if (src == f || off + len > least)
		return;
	rc = fs_dedupe(t.fs, src->ino, off, f->ino, off, len, &same);
	if (model_first_lost(src, off, off + len) < off + len ||
	    model_first_lost(f, off, off + len) < off + len) {
		/* Different before that is seen. */
		assert_true(rc == -EIO || (rc == 0 && !same));
		return;
	}
	assert_int_equal(rc, 0);
	assert_int_equal(same, memcmp(src->bytes + off, f->bytes + off, len) == 0);
}

static uint64_t lines_random(void)
{
	switch (random_below(4)) {
	case 0:
		return 1ull << random_below(64);
	case 1:
		return UINT64_MAX;
	case 2:
		return 0xfull << random_below(61);
	default:
		return testfs_random(&seed) | 1;
	}
}

static void model_lose(uint64_t ino, uint64_t off, uint64_t lines)
{
	for (unsigned i = 0; i < FILES; i++) {
		struct model *f = &files[i];

		if (f->ino != ino)
			continue;
		for (unsigned line = 0; line < 64; line++) {
			uint64_t start = off + line * LINE_SIZE;

			if (!(lines >> line & 1) || start >= f->size || f->lost[start / LINE_SIZE])
				continue;
			if (f->zero)
				memset(f->bytes + start, 0, LINE_SIZE);
			else
				f->lost[start / LINE_SIZE] = true;
			zeroed_made += f->zero;
		}
	}
}

/* One block of a file goes bad, and somebody touches it. */
static void step_poison(struct model *f)
{
	struct fs_extent extents[BLOCKS_MAX];
	struct fs_owner owners[OWNERS_MAX];
	static const struct fs_owners_pos start;
	uint64_t dev_off, off, lines = lines_random();
	unsigned count;
	int n = fs_map(t.fs, f->ino, 0, extents, BLOCKS_MAX);

	assert_true(n >= 0);
	if (n == 0)
		return;
	n = (int)random_below((unsigned)n);
	off = random_below(extents[n].len / BLOCK_SIZE) * BLOCK_SIZE;
	dev_off = extents[n].dev_off + off;
	off += extents[n].file_off;
	if ((extents[n].flags & FS_EXTENT_UNWRITTEN) || off >= f->size)
		return;
	assert_int_equal(fs_owners(t.fs, dev_off, BLOCK_SIZE, &start, owners, OWNERS_MAX, &count), 0);
	testpoison_lines(poison, dev_off, lines);
	for (unsigned i = 0; i < count; i++)
		model_lose(owners[i].owner, owners[i].file_off, lines);
	losses_made++;
	switch (random_below(3)) {
	case 0: /* a store in its place or beside it */
		step_write(f);
		break;
	case 1:
		step_fallocate(f);
		break;
	default:
		break;
	}
	/* Who has not met it so far. */
	for (unsigned i = 0; i < FILES; i++)
		file_check(&files[i]);
}

static void step_policy(struct model *f)
{
	f->zero = !f->zero;
	if (f->zero || random_below(2))
		assert_int_equal(fs_setxattr(t.fs, f->ino, "user.umbra.on_poison", f->zero ? "zero" : "eio",
					     f->zero ? 4 : 3, 0, false),
				 0);
	else
		assert_int_equal(fs_removexattr(t.fs, f->ino, "user.umbra.on_poison"), 0);
}

/* What of the lost lines can be read again is as it was: that others have it back is seen by reading. */
static void model_renew(struct model *f)
{
	for (uint64_t line = 0; line * LINE_SIZE < f->size; line++) {
		if (f->lost[line] && fs_read(t.fs, f->ino, buf, 1, line * LINE_SIZE) == 1) {
			f->lost[line] = false;
			put_back++;
		}
	}
}

/* The whole block comes back from a copy. */
static void step_heal(struct model *f)
{
	uint64_t first = model_first_lost(f, 0, f->size), off = first / BLOCK_SIZE * BLOCK_SIZE;
	uint8_t block[BLOCK_SIZE];
	struct fs_healed healed;

	if (first == f->size)
		return;
	memcpy(block, f->bytes + off, BLOCK_SIZE);
	assert_int_equal(fs_heal(t.fs, f->ino, off, block, &healed), 0);
	for (unsigned i = 0; i < FILES; i++)
		model_renew(&files[i]);
	first = model_first_lost(f, off, f->size);
	assert_true(first == f->size || first >= off + BLOCK_SIZE);
	all_check();
}

static void step_mount(void)
{
	testpoison_close(poison);
	testfs_remount(&t);
	poison = testpoison_open(t.dax);
	testfs_check(&t);
}

static void step(void)
{
	struct model *f = &files[random_below(FILES)];

	switch (random_below(44)) {
	case 0 ... 9:
		step_write(f);
		break;
	case 10 ... 12:
		step_truncate(f);
		break;
	case 13 ... 17:
		step_fallocate(f);
		break;
	case 18 ... 20:
		step_shift(f);
		break;
	case 21 ... 27:
		step_clone(f);
		break;
	case 28 ... 29:
		step_clone_file(f);
		break;
	case 30 ... 31:
		step_dedupe(f);
		break;
	case 32 ... 36:
		step_poison(f);
		break;
	case 37:
		step_again(f);
		break;
	case 38:
		if (random_below(8) == 0)
			step_mount();
		break;
	case 39 ... 40:
		step_policy(f);
		break;
	case 41:
		step_heal(f);
		break;
	default:
		all_check();
		break;
	}
	file_check(f);
}

static void test_model(void **state)
{
	(void)state;
	testfs_make(&t, NULL);
	poison = testpoison_open(t.dax);
	if (!poison) {
		testfs_free(&t);
		skip();
	}
	seed = testfs_seed();
	for (unsigned i = 0; i < FILES; i++)
		file_make(&files[i]);
	for (unsigned i = 0; i < STEPS; i++)
		step();
	all_check();
	testpoison_close(poison);
	testfs_check(&t);
	testfs_free(&t);
	printf("# %llu bad blocks, %llu lines healed, %llu zeroed, %llu put back\n",
	       (unsigned long long)losses_made, (unsigned long long)healed_made,
	       (unsigned long long)zeroed_made, (unsigned long long)put_back);
	assert_true(losses_made > 100 && healed_made > 100 && zeroed_made > 100 && put_back > 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_model),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
