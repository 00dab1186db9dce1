/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A transaction without a device: see fake_txn.h.
 */
#include "lib/fake_txn.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct fake_unit {
	uint32_t magic;
	uint8_t *home;  /* committed, NULL if it was not there */
	uint8_t *image; /* of this transaction */
	bool is_live;
	bool was_live; /* at the last commit */
	bool is_listed;
};

struct txn {
	struct fake_unit *units; /* by laddr / BLOCK_SIZE */
	size_t unit_count, unit_room;
	uint64_t *touched; /* indexes into units */
	size_t touched_count, touched_room;
	long limit;
	bool expects_lies;
	uint64_t nodes, nodes_committed;
	uint64_t gets;
};

struct txn *fake_txn_new(void)
{
	struct txn *tx = calloc(1, sizeof(*tx));

	assert(tx);
	tx->limit = -1;
	tx->unit_count = 1; /* address 0 is none */
	return tx;
}

void fake_txn_free(struct txn *tx)
{
	for (size_t i = 0; i < tx->unit_count && tx->units; i++) {
		free(tx->units[i].home);
		free(tx->units[i].image);
	}
	free(tx->units);
	free(tx->touched);
	free(tx);
}

static struct fake_unit *unit_add(struct txn *tx, uint64_t *laddr)
{
	if (tx->unit_count >= tx->unit_room) {
		tx->unit_room = tx->unit_room ? tx->unit_room * 2 : 64;
		tx->units = realloc(tx->units, tx->unit_room * sizeof(*tx->units));
		assert(tx->units);
		if (tx->unit_count == 1)
			tx->units[0] = (struct fake_unit){ 0 };
	}
	*laddr = tx->unit_count * BLOCK_SIZE;
	tx->units[tx->unit_count] = (struct fake_unit){ 0 };
	return &tx->units[tx->unit_count++];
}

static struct fake_unit *unit_find(struct txn *tx, uint64_t laddr, uint32_t magic)
{
	struct fake_unit *u = NULL;

	if (laddr % BLOCK_SIZE == 0 && laddr / BLOCK_SIZE < tx->unit_count)
		u = &tx->units[laddr / BLOCK_SIZE];
	if (u && u->is_live && u->magic == magic && (u->image || u->home))
		return u;
	if (!tx->expects_lies) {
		fprintf(stderr, "unit 0x%llx: not there\n", (unsigned long long)laddr);
		abort();
	}
	return NULL;
}

static void unit_touch(struct txn *tx, struct fake_unit *u)
{
	if (u->is_listed)
		return;
	u->is_listed = true;
	if (tx->touched_count == tx->touched_room) {
		tx->touched_room = tx->touched_room ? tx->touched_room * 2 : 64;
		tx->touched = realloc(tx->touched, tx->touched_room * sizeof(*tx->touched));
		assert(tx->touched);
	}
	tx->touched[tx->touched_count++] = (uint64_t)(u - tx->units);
}

static void header_fill(void *unit, uint32_t magic, uint64_t laddr, uint64_t owner)
{
	struct m_unit_hdr *h = unit;

	memset(unit, 0, BLOCK_SIZE);
	h->uh_magic = le32_of(magic);
	h->uh_laddr = le64_of(laddr);
	h->uh_owner = le64_of(owner);
}

uint64_t fake_unit_add(struct txn *tx, uint32_t magic, uint64_t owner)
{
	uint64_t laddr;
	struct fake_unit *u = unit_add(tx, &laddr);

	*u = (struct fake_unit){ .magic = magic, .is_live = true, .was_live = true };
	u->home = malloc(BLOCK_SIZE);
	assert(u->home);
	header_fill(u->home, magic, laddr, owner);
	return laddr;
}

void *fake_unit_bytes(struct txn *tx, uint64_t laddr)
{
	if (laddr / BLOCK_SIZE >= tx->unit_count || !tx->units[laddr / BLOCK_SIZE].is_live)
		return NULL;
	return tx->units[laddr / BLOCK_SIZE].home;
}

const char *fake_txn_commit(struct txn *tx)
{
	const char *why = NULL;

	for (size_t i = 0; i < tx->touched_count; i++) {
		struct fake_unit *u = &tx->units[tx->touched[i]];

		u->is_listed = false;
		u->was_live = u->is_live;
		if (!u->is_live) {
			free(u->image);
			free(u->home);
			u->image = u->home = NULL;
		} else if (u->image) {
			if (u->magic == MAGIC_NODE && !why)
				why = node_body_check(u->image + NODE_BODY_OFF, NODE_BODY_SIZE);
			free(u->home);
			u->home = u->image;
			u->image = NULL;
		}
	}
	tx->touched_count = 0;
	tx->nodes_committed = tx->nodes;
	return why;
}

void fake_txn_abort(struct txn *tx)
{
	for (size_t i = 0; i < tx->touched_count; i++) {
		struct fake_unit *u = &tx->units[tx->touched[i]];

		u->is_listed = false;
		u->is_live = u->was_live;
		free(u->image);
		u->image = NULL;
	}
	tx->touched_count = 0;
	tx->nodes = tx->nodes_committed;
}

void fake_alloc_limit(struct txn *tx, long count)
{
	tx->limit = count;
}

void fake_expect_lies(struct txn *tx)
{
	tx->expects_lies = true;
}

uint64_t fake_node_count(const struct txn *tx)
{
	return tx->nodes;
}

uint64_t fake_laddr_max(const struct txn *tx)
{
	return (tx->unit_count - 1) * BLOCK_SIZE;
}

uint64_t fake_get_count(const struct txn *tx)
{
	return tx->gets;
}

static int node_alloc(struct txn *tx, uint64_t owner, uint64_t hint_laddr, uint64_t *laddr)
{
	struct fake_unit *u;

	(void)owner;
	(void)hint_laddr;
	if (tx->limit == 0)
		return -ENOSPC;
	if (tx->limit > 0)
		tx->limit--;
	u = unit_add(tx, laddr);
	u->magic = MAGIC_NODE;
	u->is_live = true;
	unit_touch(tx, u);
	tx->nodes++;
	return 0;
}

static int node_free(struct txn *tx, uint64_t laddr)
{
	struct fake_unit *u = unit_find(tx, laddr, MAGIC_NODE);

	if (!u)
		return -EUCLEAN;
	u->is_live = false;
	unit_touch(tx, u);
	tx->nodes--;
	return 0;
}

const struct bt_alloc fake_alloc = { .alloc = node_alloc, .free = node_free };

int txn_get(struct txn *tx, uint64_t laddr, uint32_t magic, const void **unit)
{
	const struct fake_unit *u = unit_find(tx, laddr, magic);

	tx->gets++;
	if (!u)
		return -EUCLEAN;
	*unit = u->image ? u->image : u->home;
	return 0;
}

int txn_edit(struct txn *tx, uint64_t laddr, uint32_t magic, void **unit)
{
	struct fake_unit *u = unit_find(tx, laddr, magic);

	if (!u)
		return -EUCLEAN;
	if (!u->image) {
		u->image = malloc(BLOCK_SIZE);
		assert(u->image);
		memcpy(u->image, u->home, BLOCK_SIZE);
		unit_touch(tx, u);
	}
	*unit = u->image;
	return 0;
}

int txn_new(struct txn *tx, uint64_t laddr, uint32_t magic, uint64_t owner, void **unit)
{
	struct fake_unit *u = &tx->units[laddr / BLOCK_SIZE];

	assert(u->is_live && u->magic == magic && !u->image);
	u->image = malloc(BLOCK_SIZE);
	assert(u->image);
	header_fill(u->image, magic, laddr, owner);
	*unit = u->image;
	return 0;
}

void txn_forget(struct txn *tx, uint64_t laddr)
{
	(void)tx;
	(void)laddr; /* bytes stay until the end of the transaction, as in the real one */
}
