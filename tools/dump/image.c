/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * umbradump --save: a sparse file with both copies of the superblock, the journal, and every unit in use of every metadata chunk, as they
 * lie. A copy of a unit that is not sound goes along unchanged (it is why somebody makes an image), but for hidden names: what it
 * holds cannot be told then, so it is left out.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dump.h"

struct image {
	const struct dump *d;
	const char *path;
	int fd;
	bool hide_names;
	uint64_t unit_count, unsound_count, left_out_count;
};

static int block_write(struct image *im, uint64_t off, const void *bytes, size_t len_bytes)
{
	if (pwrite(im->fd, bytes, len_bytes, (off_t)off) == (ssize_t)len_bytes)
		return 0;
	return dump_fail("%s: %s", im->path, errno ? strerror(errno) : "short write");
}

/* One unit of size_bytes in buf: sound ones lose what they must not tell. False: it is left out. */
static bool unit_prepare(struct image *im, uint64_t laddr, void *buf, size_t size_bytes)
{
	const char *why = unit_check_header(buf, size_bytes, 0, laddr, &im->d->super->uuid);

	if (!why)
		why = unit_check_body(buf, size_bytes);
	if (why) {
		im->unsound_count++;
		im->left_out_count += im->hide_names;
		return !im->hide_names;
	}
	if (hide_unit(im->d, buf, im->hide_names))
		unit_seal(buf, size_bytes, le64_get(((struct m_unit_hdr *)buf)->uh_seq));
	return true;
}

static bool is_inode_unit(const uint8_t *buf)
{
	for (size_t at = 0; at < BLOCK_SIZE; at += INODE_SIZE)
		if (unit_magic(buf + at) == MAGIC_INODE)
			return true;
	return false;
}

static bool is_zero(const uint8_t *buf, size_t len_bytes)
{
	return buf[0] == 0 && memcmp(buf, buf + 1, len_bytes - 1) == 0;
}

static int unit_save(struct image *im, uint64_t laddr, uint64_t off)
{
	_Alignas(64) uint8_t buf[BLOCK_SIZE];

	im->unit_count++;
	if (dax_load(im->d->dax, buf, off, sizeof(buf), NULL)) {
		im->unsound_count++;
		return 0; /* zeros stand for bad memory */
	}
	if (is_zero(buf, sizeof(buf)))
		return 0;
	if (!is_inode_unit(buf))
		return unit_prepare(im, laddr, buf, sizeof(buf)) ? block_write(im, off, buf, sizeof(buf)) : 0;
	for (size_t at = 0; at < sizeof(buf); at += INODE_SIZE)
		if (!is_zero(buf + at, INODE_SIZE) && !unit_prepare(im, laddr + at, buf + at, INODE_SIZE))
			memset(buf + at, 0, INODE_SIZE);
	return block_write(im, off, buf, sizeof(buf));
}

static int chunk_save(struct image *im, uint64_t lchunk, const struct m_chunk *chunk, unsigned fixed_units)
{
	for (unsigned unit = 0; unit < CHUNK_BLOCKS; unit++) {
		uint64_t laddr = (lchunk << CHUNK_SHIFT) + (uint64_t)unit * BLOCK_SIZE, off;

		if (unit >= fixed_units && !(chunk && chunk->ck_used[unit / 8] >> unit % 8 & 1))
			continue;
		for (unsigned copy = 0; copy < 2; copy++)
			if (pool_place(im->d->pool, laddr, copy, &off) == 0 && unit_save(im, laddr, off))
				return 1;
	}
	return 0;
}

static int group_save(struct image *im, uint32_t agno)
{
	uint32_t chunks = (uint32_t)(im->d->super->ag_size_blk / CHUNK_BLOCKS);
	uint64_t first = (uint64_t)agno * chunks;
	_Alignas(64) struct m_chunks m;

	for (uint32_t i = 0; i < ag_table_units(chunks); i++) {
		uint64_t laddr = pool_ag_unit(im->d->pool, agno, AG_UNIT_TABLE + i);
		const char *why;
		bool sound = dump_unit_read(im->d, laddr, MAGIC_CHUNKS, &m, &why) >= 0 && !why;

		if (!sound)
			dump_fail(
				"warning: group %u, piece %u of the chunk table: %s: its chunks are missing",
				agno, i, why);
		for (uint32_t k = 0; k < CHUNKS_PER_UNIT && i * CHUNKS_PER_UNIT + k < chunks; k++) {
			uint32_t slot = i * CHUNKS_PER_UNIT + k;
			const struct m_chunk *chunk = sound ? &m.ct_chunks[k] : NULL;

			if ((slot == 0 || (chunk && le32_get(chunk->ck_primary))) &&
			    chunk_save(im, first + slot, chunk, slot == 0 ? ag_fixed_units(chunks) : 0))
				return 1;
		}
	}
	return 0;
}

static int supers_save(struct image *im)
{
	const uint64_t blks[2] = { 0, im->d->super->size_blk - 1 };
	_Alignas(64) uint8_t buf[BLOCK_SIZE];

	for (unsigned i = 0; i < 2; i++) {
		if (dax_load(im->d->dax, buf, blks[i] * BLOCK_SIZE, sizeof(buf), NULL))
			continue;
		if (unit_prepare(im, OWNER_SUPER, buf, sizeof(buf)) &&
		    block_write(im, blks[i] * BLOCK_SIZE, buf, sizeof(buf)))
			return 1;
	}
	return 0;
}

/* Records hold lines of any unit, so none goes into an image without names. */
static int lanes_save(struct image *im)
{
	const struct super *super = im->d->super;
	uint8_t *lane;
	int rc = 0;

	if (im->hide_names)
		return 0;
	lane = malloc(super->lane_size_bytes);
	if (!lane)
		return dump_fail("%s", strerror(ENOMEM));
	for (uint32_t i = 0; i < super->lane_count * 2 && rc == 0; i++) {
		uint64_t off = (i % 2 ? super->lanes[i / 2].mirror_blk : super->lanes[i / 2].primary_blk) *
			       BLOCK_SIZE;

		if (dax_load(im->d->dax, lane, off, super->lane_size_bytes, NULL) == 0 &&
		    record_check(lane, super->lane_size_bytes, i / 2, &super->uuid) == NULL)
			rc = block_write(im, off, lane, super->lane_size_bytes);
	}
	free(lane);
	return rc;
}

static int all_save(struct image *im)
{
	if (ftruncate(im->fd, (off_t)(im->d->super->size_blk * BLOCK_SIZE)))
		return dump_fail("%s: %s", im->path, strerror(errno));
	if (supers_save(im) || lanes_save(im))
		return 1;
	for (uint32_t agno = 0; agno < im->d->super->ag_count; agno++)
		if (group_save(im, agno))
			return 1;
	return 0;
}

int dump_image_save(const struct dump *d, const char *path, bool hide_names)
{
	struct image im = { .d = d, .path = path, .hide_names = hide_names };
	int rc;

	im.fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, S_IRUSR | S_IWUSR);
	if (im.fd < 0)
		return dump_fail("%s: %s", path, strerror(errno));
	rc = all_save(&im);
	if (close(im.fd) && rc == 0)
		rc = dump_fail("%s: %s", path, strerror(errno));
	if (rc) {
		unlink(path);
		return rc;
	}
	printf("%s: %" PRIu64 " blocks of metadata; %" PRIu64
	       " units or free inodes in them are not sound%s\n",
	       path, im.unit_count, im.unsound_count, im.left_out_count ? ", and were left out" : "");
	return 0;
}
