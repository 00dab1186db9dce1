/* SPDX-License-Identifier: BSD-3-Clause */
#include "quality.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static const char *const names[] = {
	[QUALITY_HUGE] = "huge",           [QUALITY_HOLE] = "hole",           [QUALITY_HOLES] = "holes",
	[QUALITY_UNWRITTEN] = "unwritten", [QUALITY_SCATTERED] = "scattered", [QUALITY_END] = "end",
	[QUALITY_INLINE] = "inline",
};

/* Bytes of the file in the piece at off. */
static uint64_t bytes_in(const struct quality_sum *q, uint64_t off)
{
	if (off >= q->size)
		return 0;
	return q->size - off < QUALITY_PIECE ? q->size - off : QUALITY_PIECE;
}

static enum quality verdict(const struct quality_sum *q)
{
	if (q->inlined)
		return QUALITY_INLINE;
	if (q->covered == 0)
		return QUALITY_HOLE;
	if (q->scattered)
		return QUALITY_SCATTERED;
	if (q->in_file_unwritten)
		return QUALITY_UNWRITTEN;
	if (q->covered == QUALITY_PIECE)
		return QUALITY_HUGE;
	return q->covered < bytes_in(q, q->at) ? QUALITY_HOLES : QUALITY_END;
}

/* The piece in work has ended. */
static void piece_end(struct quality_sum *q)
{
	uint64_t bytes = bytes_in(q, q->at);
	struct quality_run *last = q->run_count > 0 ? &q->runs[q->run_count - 1] : NULL, *more;
	enum quality quality = verdict(q);

	if (bytes > 0) {
		q->pieces++;
		q->huge_pieces += quality == QUALITY_HUGE;
		q->huge_bytes += quality == QUALITY_HUGE ? bytes : 0;
		if (last && last->quality == quality) {
			last->len += bytes;
		} else {
			if (q->run_count == q->run_room) {
				q->run_room = q->run_room ? 2 * q->run_room : 64;
				more = realloc(q->runs, q->run_room * sizeof(*more));
				q->failed |= !more;
				q->runs = more ? more : q->runs;
			}
			if (!q->failed)
				q->runs[q->run_count++] = (struct quality_run){ q->at, bytes, quality };
		}
	}
	q->at += QUALITY_PIECE;
	q->covered = 0;
	q->scattered = q->in_file_unwritten = q->inlined = false;
}

void quality_add(struct quality_sum *q, const struct umbra_extent *e)
{
	uint64_t off = e->file_off, end = off + e->len;

	while (off < end && !q->failed) {
		uint64_t stop, dev = e->dev_off + (off - e->file_off);

		if (off >= q->size && q->at >= q->size)
			return;
		while (q->at + QUALITY_PIECE <= off && q->at < q->size)
			piece_end(q);
		if (q->at >= q->size)
			return;
		stop = end < q->at + QUALITY_PIECE ? end : q->at + QUALITY_PIECE;
		if (q->covered == 0)
			q->dev = dev - (off - q->at);
		q->scattered |= dev - (off - q->at) != q->dev || q->dev % QUALITY_PIECE != 0;
		q->inlined |= e->flags & UMBRA_EXTENT_INLINE;
		q->in_file_unwritten |= e->flags & UMBRA_EXTENT_UNWRITTEN && off < q->size;
		q->covered += stop - off;
		off = stop;
	}
}

int quality_end(struct quality_sum *q)
{
	while (q->at < q->size && !q->failed)
		piece_end(q);
	return q->failed ? ENOMEM : 0;
}

int quality_print(struct quality_sum *q, bool json)
{
	unsigned percent = q->size ? (unsigned)((double)q->huge_bytes * 100 / (double)q->size) : 0;
	struct json_object *o = json_object_new_object(), *list = json_object_new_array();
	char huge[ARGS_SIZE_TEXT], size[ARGS_SIZE_TEXT];

	for (size_t i = 0; i < q->run_count; i++) {
		const struct quality_run *r = &q->runs[i];
		struct json_object *run = json_object_new_object();

		json_object_object_add(run, "file_off", json_u64(r->off));
		json_object_object_add(run, "len", json_u64(r->len));
		json_object_object_add(run, "quality", json_object_new_string(names[r->quality]));
		json_object_array_add(list, run);
		if (!json && i == 0)
			printf("%16s %16s  %s\n", "FILE", "LENGTH", "QUALITY");
		if (!json)
			printf("%#16llx %#16llx  %s\n", (unsigned long long)r->off,
			       (unsigned long long)r->len, names[r->quality]);
	}
	json_object_object_add(o, "size", json_u64(q->size));
	json_object_object_add(o, "huge_bytes", json_u64(q->huge_bytes));
	json_object_object_add(o, "percent", json_u64(percent));
	json_object_object_add(o, "pieces", json_u64(q->pieces));
	json_object_object_add(o, "huge_pieces", json_u64(q->huge_pieces));
	json_object_object_add(o, "runs", list);
	free(q->runs);
	if (json)
		return ctl_print_json(o);
	json_object_put(o);
	printf("%s of %s (%u %%) can be mapped by large pages: %llu of %llu piece%s of 2 MiB\n",
	       args_size_text(q->huge_bytes, huge, sizeof(huge)), args_size_text(q->size, size, sizeof(size)),
	       percent, (unsigned long long)q->huge_pieces, (unsigned long long)q->pieces,
	       q->pieces == 1 ? "" : "s");
	return ctl_finish();
}
