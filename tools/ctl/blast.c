/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a range of the device holds, in figures. See blast.h.
 *
 * To count files once, the inode numbers that have been seen are remembered: a bit each, in pieces of 4096 numbers (numbers of inodes lie close
 * together), so a whole device takes about a bit for each of its files.
 */
#include "blast.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_BYTES 4096u
#define PIECE_INODES 4096u
#define TABLE_FIRST 64u

struct piece {
	uint64_t number; /* of the piece, + 1; 0: none */
	uint64_t bits[PIECE_INODES / 64];
};

/* A hash table with free places after those that are taken. */
struct blast_inodes {
	size_t count, size;
	struct piece **pieces;
};

static size_t place_of(const struct blast_inodes *set, uint64_t number)
{
	size_t at = (number * 0x9e3779b97f4a7c15ull >> 32) & (set->size - 1);

	while (set->pieces[at] && set->pieces[at]->number != number)
		at = (at + 1) & (set->size - 1);
	return at;
}

static int table_grow(struct blast_inodes *set)
{
	struct blast_inodes bigger = { .count = set->count, .size = set->size ? set->size * 2 : TABLE_FIRST };

	bigger.pieces = calloc(bigger.size, sizeof(*bigger.pieces));
	if (!bigger.pieces)
		return ENOMEM;
	for (size_t i = 0; i < set->size; i++)
		if (set->pieces[i])
			bigger.pieces[place_of(&bigger, set->pieces[i]->number)] = set->pieces[i];
	free(set->pieces);
	*set = bigger;
	return 0;
}

/* *is_new: it has not been seen before. */
static int inode_see(struct blast *blast, uint64_t ino, bool *is_new)
{
	uint64_t number = ino / PIECE_INODES + 1, bit = ino % PIECE_INODES;
	struct blast_inodes *set = blast->inodes;
	struct piece **piece;

	if (!set)
		set = blast->inodes = calloc(1, sizeof(*set));
	if (!set || (set->count * 2 >= set->size && table_grow(set)))
		return ENOMEM;
	piece = &set->pieces[place_of(set, number)];
	if (!*piece) {
		*piece = calloc(1, sizeof(**piece));
		if (!*piece)
			return ENOMEM;
		(*piece)->number = number;
		set->count++;
	}
	*is_new = !((*piece)->bits[bit / 64] >> bit % 64 & 1);
	(*piece)->bits[bit / 64] |= 1ull << bit % 64;
	return 0;
}

/* How much of [off, off + len) lies past *end, which moves. */
static uint64_t bytes_past(uint64_t *end, uint64_t off, uint64_t len)
{
	uint64_t start = off > *end ? off : *end;

	if (off + len <= start)
		return 0;
	*end = off + len;
	return *end - start;
}

/* Of a file, from off to end, and by no record before: what of it is in the last bad range is not out of use. */
static void bad_keep(struct blast *blast, uint64_t off, uint64_t end)
{
	uint64_t from = off > blast->bad_off ? off : blast->bad_off;
	uint64_t to = end < blast->bad_end ? end : blast->bad_end;

	if (from >= to)
		return;
	blast->bad_bytes -= to - from;
	blast->kept_bytes += to - from;
}

int blast_add(struct blast *blast, const struct umbra_owner *owner)
{
	bool is_new = false;
	int rc = 0;

	blast->owned_bytes += bytes_past(&blast->owned_end, owner->dev_off, owner->len);
	switch (owner->kind) {
	case UMBRA_OWNER_FILE:
		rc = inode_see(blast, owner->ino, &is_new);
		blast->files += is_new;
		bad_keep(blast, owner->dev_off > blast->data_end ? owner->dev_off : blast->data_end,
			 owner->dev_off + owner->len);
		blast->data_bytes += bytes_past(&blast->data_end, owner->dev_off, owner->len);
		blast->file_bytes += owner->len;
		break;
	case UMBRA_OWNER_BAD: /* records that begin before this one are known, and reach to data_end at most */
		blast->bad_bytes += owner->len;
		blast->bad_off = owner->dev_off;
		blast->bad_end = owner->dev_off + owner->len;
		bad_keep(blast, owner->dev_off, blast->data_end);
		break;
	case UMBRA_OWNER_FORWARD:
	case UMBRA_OWNER_SPARE:
		break;
	default:
		blast->meta_units += owner->len / BLOCK_BYTES;
	}
	return rc;
}

void blast_print(const struct blast *blast)
{
	char len[ARGS_SIZE_TEXT], data[ARGS_SIZE_TEXT], of_files[ARGS_SIZE_TEXT], left[ARGS_SIZE_TEXT],
		bad[ARGS_SIZE_TEXT];

	printf("%s at %#llx would hit:\n", args_size_text(blast->len, len, sizeof(len)),
	       (unsigned long long)blast->off);
	printf("%16llu  file%s\n", (unsigned long long)blast->files, blast->files == 1 ? "" : "s");
	printf("%16llu  bytes of file data (%s), %llu bytes of files (%s) where several share it\n",
	       (unsigned long long)blast->data_bytes, args_size_text(blast->data_bytes, data, sizeof(data)),
	       (unsigned long long)blast->file_bytes,
	       args_size_text(blast->file_bytes, of_files, sizeof(of_files)));
	printf("%16llu  units of metadata (4 KiB each)\n", (unsigned long long)blast->meta_units);
	printf("%16llu  bytes that are free (%s)\n", (unsigned long long)(blast->len - blast->owned_bytes),
	       args_size_text(blast->len - blast->owned_bytes, left, sizeof(left)));
	printf("%16llu  bytes that are out of use already (%s)\n", (unsigned long long)blast->bad_bytes,
	       args_size_text(blast->bad_bytes, bad, sizeof(bad)));
	if (blast->kept_bytes)
		printf("%16llu  bytes in bad memory that files could not leave (%s)\n",
		       (unsigned long long)blast->kept_bytes,
		       args_size_text(blast->kept_bytes, bad, sizeof(bad)));
}

struct json_object *blast_json(const struct blast *blast)
{
	struct json_object *o = json_object_new_object();

	json_object_object_add(o, "kind", json_object_new_string("summary"));
	json_object_object_add(o, "dev_off", json_u64(blast->off));
	json_object_object_add(o, "len", json_u64(blast->len));
	json_object_object_add(o, "files", json_u64(blast->files));
	json_object_object_add(o, "data_bytes", json_u64(blast->data_bytes));
	json_object_object_add(o, "file_bytes", json_u64(blast->file_bytes));
	json_object_object_add(o, "metadata_units", json_u64(blast->meta_units));
	json_object_object_add(o, "free_bytes", json_u64(blast->len - blast->owned_bytes));
	json_object_object_add(o, "bad_bytes", json_u64(blast->bad_bytes));
	json_object_object_add(o, "bad_kept_bytes", json_u64(blast->kept_bytes));
	return o;
}

void blast_free(struct blast *blast)
{
	struct blast_inodes *set = blast->inodes;

	if (!set)
		return;
	for (size_t i = 0; i < set->size; i++)
		free(set->pieces[i]);
	free(set->pieces);
	free(set);
	blast->inodes = NULL;
}
