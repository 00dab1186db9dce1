/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What can be saved of a block in bad memory, line by line.
 *
 * Devices lose lines of 64 bytes, or a few in a row; a kernel that knows of the error may refuse the whole page. Each line that cannot be read costs a
 * signal, so a block that is good as a whole is read at once.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "dax/priv.h"

#define LINE_BYTES 64u
#define BLOCK_LINES (DAX_BLOCK_BYTES / LINE_BYTES)

bool dax_has_memory(const struct dax *dax, uint64_t off)
{
	off_t hole;

	off = u64_align_down(off, DAX_BLOCK_BYTES);
	if (dax->device || dax->fd < 0)
		return true;
	/* To the end of what is there the kernel may have a long way, page by page. */
	if (dax->whole_blocks)
		return lseek(dax->fd, (off_t)off, SEEK_DATA) == (off_t)off;
	/* The host's blocks are smaller than ours: some of them may be there, and then there was no room for the next one. */
	hole = lseek(dax->fd, (off_t)off, SEEK_HOLE);
	return hole >= 0 && (uint64_t)hole >= off + DAX_BLOCK_BYTES;
}

static bool line_read(const struct dax *dax, uint64_t off, uint8_t *line)
{
	if (dax->line_fn)
		return dax->line_fn(dax->line_ctx, off, line);
	return dax_load(dax, line, off, LINE_BYTES, NULL) == 0;
}

int dax_salvage(const struct dax *dax, uint64_t off, void *buf, uint64_t *bad_lines)
{
	uint8_t *bytes = buf;

	off = u64_align_down(off, DAX_BLOCK_BYTES);
	*bad_lines = 0;
	if (dax_load(dax, buf, off, DAX_BLOCK_BYTES, NULL) == 0)
		return 0;
	if (!dax_has_memory(dax, off))
		return -EIO;
	for (unsigned i = 0; i < BLOCK_LINES; i++) {
		if (line_read(dax, off + i * LINE_BYTES, bytes + i * LINE_BYTES))
			continue;
		*bad_lines |= 1ull << i;
		memset(bytes + i * LINE_BYTES, 0, LINE_BYTES);
	}
	return 0;
}

void dax_on_salvage(struct dax *dax, dax_line_fn fn, void *ctx)
{
	dax->line_fn = fn;
	dax->line_ctx = ctx;
}
