/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A transaction's life: images of units in DRAM, end hooks, locks given back at the end.
 *
 * A thread keeps the memory of its last transaction for the next one.
 *
 * Memory may run out. Images then cannot be had (-ENOMEM); small pieces can: the arena always has ARENA_RESERVE for
 * them. Once that has to be touched the transaction is starved: the next lock or image that it asks for is refused, so
 * that it ends soon.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "txn/internal.h"

#define TABLE_START 64u
#define ARENA_BLOCK ((size_t)256 << 10)
#define ARENA_RESERVE ((size_t)64 << 10)

static pthread_key_t spare_key;
static pthread_once_t spare_once = PTHREAD_ONCE_INIT;

static void txn_free_memory(void *arg)
{
	struct txn *tx = arg;

	while (tx->arena) {
		struct arena_block *next = tx->arena->next;

		free(tx->arena);
		tx->arena = next;
	}
	free(tx->table);
	free(tx->held);
	free(tx);
}

static void spare_init(void)
{
	int rc = pthread_key_create(&spare_key, txn_free_memory);

	assert(rc == 0);
	(void)rc;
}

/* A new block of the arena, for a piece of so many bytes. */
static bool arena_grow(struct txn *tx, size_t need)
{
	size_t size = u64_max(ARENA_BLOCK, need + ARENA_RESERVE);
	struct arena_block *block = aligned_alloc(64, u64_align_up(sizeof(*block) + size, 64));

	if (!block)
		return false;
	block->next = tx->arena;
	block->used = 0;
	block->size = size;
	tx->arena = block;
	return true;
}

static struct txn *txn_make(void)
{
	struct txn *tx = calloc(1, sizeof(*tx));

	if (!tx)
		return NULL;
	tx->table_size = TABLE_START;
	tx->table = calloc(TABLE_START, sizeof(*tx->table));
	tx->held_size = 16;
	tx->held = malloc(tx->held_size * sizeof(*tx->held));
	if (tx->table && tx->held && arena_grow(tx, 0))
		return tx;
	txn_free_memory(tx);
	return NULL;
}

static void txn_take_seq(struct txn *tx)
{
	struct pool *pool = tx->pool;

	tx->seq = atomic_fetch_add(&pool->seq, 1);
	if (tx->seq + 4096 >= pool->seq_limit && super_extend_seq(pool) != 0)
		pool_fail(pool, "the superblock cannot be written");
}

struct txn *txn_begin(struct pool *pool, enum txn_mode mode)
{
	struct txn *tx;

	pool_hold(pool);
	pthread_once(&spare_once, spare_init);
	tx = pthread_getspecific(spare_key);
	if (tx)
		pthread_setspecific(spare_key, NULL);
	else
		tx = txn_make();
	if (!tx) {
		pool_release(pool);
		return NULL;
	}
	tx->pool = pool;
	tx->mode = mode;
	tx->seq = 0;
	tx->images_tail = &tx->images;
	if (mode != TXN_READ)
		txn_take_seq(tx);
	return tx;
}

/* Forgets images, hooks and memory, but for one block of the arena and the tables. */
static void txn_clear(struct txn *tx)
{
	struct arena_block *arena = tx->arena;

	while (arena->next) {
		struct arena_block *next = arena->next;

		free(arena);
		arena = next;
	}
	arena->used = 0;
	tx->arena = arena;
	tx->starved = false;
	if (tx->table_size > TABLE_START) {
		struct image **table = calloc(TABLE_START, sizeof(*table));

		if (table) {
			free(tx->table);
			tx->table = table;
			tx->table_size = TABLE_START;
		}
	}
	if (tx->image_count != 0)
		memset(tx->table, 0, tx->table_size * sizeof(*tx->table));
	tx->images = NULL;
	tx->images_tail = &tx->images;
	tx->image_count = 0;
	tx->hooks = tx->last_hook = NULL;
	tx->remap = NULL;
	tx->moved = NULL;
	tx->dropped = NULL;
	tx->receipt = NULL;
	tx->data_stored = false;
}

static void run_hooks(struct txn *tx, bool committed)
{
	struct txn_end_hook *hook = committed ? tx->hooks : tx->last_hook;

	while (hook) {
		hook->fn(hook->arg, committed);
		hook = committed ? hook->next : hook->prev;
	}
}

/* Gives back the locks from that order on. */
static void unlock_from(struct txn *tx, uint64_t order)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < tx->held_count; i++) {
		if (tx->held[i].lock->order < order)
			tx->held[kept++] = tx->held[i];
		else
			pthread_rwlock_unlock(&tx->held[i].lock->rw);
	}
	tx->held_count = kept;
}

static void txn_end(struct txn *tx, bool committed)
{
	struct pool *pool = tx->pool;

	run_hooks(tx, committed);
	unlock_from(tx, 0);
	txn_clear(tx);
	tx->request_id = 0;
	tx->result = 0;
	if (pthread_getspecific(spare_key))
		txn_free_memory(tx); /* another transaction of this thread ended before */
	else
		pthread_setspecific(spare_key, tx);
	pool_release(pool);
}

/* Makes the edits durable; the transaction is still open. */
static int txn_write(struct txn *tx)
{
	struct pool *pool = tx->pool;
	int rc = 0;

	if (tx->mode != TXN_READ && txn_is_dirty(tx)) {
		rc = pool->readonly || pool_failed(pool) ? -EROFS : commit_images(tx);
		if (rc)
			pool->stats.aborts++;
		else
			pool->stats.commits++;
	} else if (tx->data_stored) {
		rc = dax_fence(pool->dax);
	}
	return rc;
}

int txn_commit(struct txn *tx)
{
	int rc = txn_write(tx);

	txn_end(tx, rc == 0);
	return rc;
}

void txn_abort(struct txn *tx)
{
	if (tx->mode != TXN_READ)
		tx->pool->stats.aborts++;
	txn_end(tx, false);
}

static void txn_go_on(struct txn *tx, bool committed)
{
	run_hooks(tx, committed);
	unlock_from(tx, TXN_ORDER_AG);
	txn_clear(tx);
	txn_take_seq(tx);
}

int txn_roll(struct txn *tx)
{
	int rc = txn_write(tx);

	txn_go_on(tx, rc == 0);
	return rc;
}

void txn_undo(struct txn *tx)
{
	txn_go_on(tx, false);
}

void txn_set_freeing(struct txn *tx)
{
	assert(tx->mode != TXN_READ);
	tx->mode = TXN_FREEING;
}

struct pool *txn_pool(const struct txn *tx)
{
	return tx->pool;
}

uint64_t txn_seq(const struct txn *tx)
{
	return tx->seq;
}

enum txn_mode txn_mode(const struct txn *tx)
{
	return tx->mode;
}

bool txn_is_dirty(const struct txn *tx)
{
	return tx->images != NULL;
}

void *txn_alloc(struct txn *tx, size_t size_bytes)
{
	size_t need = u64_align_up(size_bytes, 64);
	struct arena_block *block = tx->arena;
	void *p;

	if (block->size - block->used < need + ARENA_RESERVE) {
		if (!arena_grow(tx, need)) {
			tx->starved = true;
			if (size_bytes > TXN_ALLOC_SMALL)
				return NULL;
			/* Nobody takes so many small ones without asking for a lock or an image in between. */
			assert(block->size - block->used >= need);
		}
		block = tx->arena;
	}
	p = block->bytes + block->used;
	block->used += need;
	return p;
}

static unsigned table_slot(const struct txn *tx, uint64_t laddr)
{
	return (unsigned)((laddr >> INODE_SHIFT) * 0x9e3779b97f4a7c15ull >> 40) & (tx->table_size - 1);
}

static struct image *image_find(const struct txn *tx, uint64_t laddr)
{
	if (!tx->images)
		return NULL;
	for (unsigned i = table_slot(tx, laddr);; i = (i + 1) & (tx->table_size - 1)) {
		if (!tx->table[i] || tx->table[i]->laddr == laddr)
			return tx->table[i];
	}
}

static void table_put(struct txn *tx, struct image *image)
{
	unsigned i = table_slot(tx, image->laddr);

	while (tx->table[i])
		i = (i + 1) & (tx->table_size - 1);
	tx->table[i] = image;
}

/* Twice as large. Without memory for it the table goes on being used until it is nearly full. */
static bool table_grow(struct txn *tx)
{
	struct image **table = calloc(tx->table_size * 2, sizeof(*table));

	if (!table) {
		tx->starved = true;
		return tx->image_count + 8 < tx->table_size;
	}
	free(tx->table);
	tx->table = table;
	tx->table_size *= 2;
	for (struct image *i = tx->images; i; i = i->next)
		table_put(tx, i);
	return true;
}

/* NULL: no memory. One of INODE_SIZE can always be had while the transaction is not starved. */
static struct image *image_add(struct txn *tx, uint64_t laddr, uint32_t magic)
{
	struct image *image;
	void *data;

	if (tx->image_count * 2 >= tx->table_size && !table_grow(tx))
		return NULL;
	data = txn_alloc(tx, unit_size(magic));
	if (!data)
		return NULL;
	image = txn_alloc(tx, sizeof(*image));
	*image = (struct image){ .laddr = laddr, .magic = magic, .data = data };
	*tx->images_tail = image;
	tx->images_tail = &image->next;
	tx->image_count++;
	table_put(tx, image);
	return image;
}

int txn_get(struct txn *tx, uint64_t laddr, uint32_t magic, const void **unit)
{
	struct image *image = image_find(tx, laddr);

	if (!image)
		return unit_home(tx->pool, laddr, magic, unit);
	if (image->forgotten || image->magic != magic)
		return -EUCLEAN;
	*unit = image->data;
	return 0;
}

int txn_edit(struct txn *tx, uint64_t laddr, uint32_t magic, void **unit)
{
	struct image *image = image_find(tx, laddr);
	const void *home;
	int rc;

	assert(tx->mode != TXN_READ);
	if (image) {
		if (image->forgotten || image->magic != magic)
			return -EUCLEAN;
		*unit = image->data;
		return 0;
	}
	rc = unit_home(tx->pool, laddr, magic, &home);
	if (rc)
		return rc;
	image = tx->starved ? NULL : image_add(tx, laddr, magic);
	if (!image)
		return -ENOMEM;
	memcpy(image->data, home, unit_size(magic));
	*unit = image->data;
	return 0;
}

int txn_new(struct txn *tx, uint64_t laddr, uint32_t magic, uint64_t owner, void **unit)
{
	struct image *image = image_find(tx, laddr);
	void *data;

	assert(tx->mode != TXN_READ && laddr % unit_size(magic) == 0);
	if (tx->starved)
		return -ENOMEM;
	if (!image) {
		image = image_add(tx, laddr, magic);
		if (!image)
			return -ENOMEM;
	} else if (unit_size(image->magic) < unit_size(magic)) {
		data = txn_alloc(tx, unit_size(magic));
		if (!data)
			return -ENOMEM;
		image->data = data;
	}
	image->magic = magic;
	image->fresh = true;
	image->forgotten = false;
	memset(image->data, 0, unit_size(magic));
	unit_init(image->data, magic, laddr, owner, &tx->pool->super.uuid);
	*unit = image->data;
	return 0;
}

void txn_forget(struct txn *tx, uint64_t laddr)
{
	struct image *image = image_find(tx, laddr);

	if (!image) {
		image = image_add(tx, laddr, MAGIC_INODE);
		assert(image); /* small */
	}
	image->forgotten = true;
}

void txn_data_stored(struct txn *tx)
{
	tx->data_stored = true;
}

void txn_on_end(struct txn *tx, void (*fn)(void *arg, bool committed), void *arg)
{
	struct txn_end_hook *hook = txn_alloc(tx, sizeof(*hook));

	*hook = (struct txn_end_hook){ .fn = fn, .arg = arg, .prev = tx->last_hook };
	if (tx->last_hook)
		tx->last_hook->next = hook;
	else
		tx->hooks = hook;
	tx->last_hook = hook;
}

bool txn_has_room(const struct txn *tx, unsigned units)
{
	size_t bytes = record_length_bytes(tx->image_count + units, (tx->image_count + units) * 64);

	return bytes <= tx->pool->super.lane_size_bytes;
}

void txn_set_request(struct txn *tx, uint64_t request_id, int32_t result)
{
	tx->request_id = request_id;
	tx->result = result;
}

void txn_set_receipt(struct txn *tx, struct txn_receipt *receipt, int32_t result, int64_t value,
		     uint32_t flags)
{
	tx->receipt = receipt;
	tx->receipt_result = result;
	tx->receipt_value = value;
	tx->receipt_flags = flags;
}
