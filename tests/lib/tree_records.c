/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Random records of every kind of tree: see tree_records.h.
 */
#include "lib/tree_records.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct rng rng_start(const char *test)
{
	const char *text = getenv("UMBRA_SEED");
	struct timespec now;
	struct rng rng;

	clock_gettime(CLOCK_REALTIME, &now);
	rng.state = (uint64_t)now.tv_nsec * 1000003u + (uint64_t)now.tv_sec + (uint64_t)getpid();
	if (text)
		rng.state = strtoull(text, NULL, 0);
	printf("# %s: UMBRA_SEED=%llu\n", test, (unsigned long long)rng.state);
	fflush(stdout);
	return rng;
}

uint64_t rng_next(struct rng *rng)
{
	uint64_t z = rng->state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

uint64_t rng_below(struct rng *rng, uint64_t below)
{
	return rng_next(rng) % below;
}

static size_t dirent_make(uint64_t index, struct rng *rng, void *rec)
{
	struct m_dirent *m = rec;
	size_t name_len = rng_below(rng, 8) ? 1 + rng_below(rng, 30) : rng_below(rng, 256);
	size_t size_bytes = u64_align_up(sizeof(*m) + name_len, 8);

	memset(m, 0, size_bytes);
	m->de_key = le64_of(index * 3);
	m->de_len_bytes = le16_of((uint16_t)size_bytes);
	m->de_type = name_len ? DT_REG : 0;
	m->de_namelen = (uint8_t)name_len;
	m->de_ino = le64_of(1 + rng_below(rng, 1u << 30));
	memset(m->de_name, 'a' + (int)rng_below(rng, 26), name_len);
	return size_bytes;
}

static size_t attr_make(uint64_t index, struct rng *rng, void *rec)
{
	struct m_attr *m = rec;
	bool is_parent = index >= 1u << 20;
	size_t name_len = 1 + rng_below(rng, rng_below(rng, 4) ? 20 : 255);
	size_t value_len = rng_below(rng, rng_below(rng, 4) ? 40 : 513);
	bool is_large = !is_parent && value_len && rng_below(rng, 10) == 0;
	size_t data_len = value_len;

	if (is_large) {
		value_len *= 128;
		name_len = u64_align_up(name_len, 8) - 1;
		data_len = 1 + u64_div_up(value_len, XVAL_DATA_SIZE) * 8;
	}
	if (is_parent)
		data_len = 16;
	memset(rec, 0, NODE_REC_MAX);
	m->at_key = le64_of(is_parent ? ATTR_KEY_PARENT | index : index * 5);
	m->at_len_bytes = le16_of((uint16_t)u64_align_up(sizeof(*m) + name_len + data_len, 8));
	m->at_type = is_parent ? ATTR_PARENT : ATTR_XATTR;
	m->at_namelen = (uint8_t)name_len;
	m->at_value_len = le32_of(is_parent ? 0 : (uint32_t)value_len);
	m->at_flags = is_large ? ATTR_LARGE : 0;
	memset(m->at_data, 'a' + (int)rng_below(rng, 26), name_len + data_len - is_large);
	if (is_large)
		m->at_data[name_len + data_len - 1] = 0;
	return le16_get(m->at_len_bytes);
}

void tree_key_make(enum node_kind kind, uint64_t index, struct bt_key *key)
{
	union tree_record rec;
	struct rng any = { index };

	tree_record_make(kind, index, &any, &rec);
	node_ops(kind)->rec_key(&rec, key);
}

static uint64_t rmap_count(struct rng *rng)
{
	if (rng_below(rng, 50) == 0)
		return 1 + rng_below(rng, 5000);
	return 1 + rng_below(rng, 20);
}

size_t tree_record_make(enum node_kind kind, uint64_t index, struct rng *rng, union tree_record *rec)
{
	size_t size_bytes = node_ops(kind)->rec_size_bytes;
	uint64_t count = 1 + rng_below(rng, 16), other = 1 + rng_below(rng, 1u << 30);

	memset(rec, 0, size_bytes);
	switch (kind) {
	case NODE_EXTENT:
		extent_encode((void *)rec, &(struct extent){ index * 16, other, count, count & 1 });
		break;
	case NODE_DIR:
		return dirent_make(index, rng, rec);
	case NODE_ATTR:
		return attr_make(index, rng, rec);
	case NODE_REFCOUNT:
		refcount_encode((void *)rec, &(struct refcount){ index * 16, count, 2 + other % 9 });
		break;
	case NODE_RMAP:
		rmap_encode((void *)rec,
			    &(struct rmap){ index / 4, 1 + (index / 2 & 1), index & 1, rmap_count(rng), 0 });
		break;
	case NODE_INODES:
		rec->words[0] = le64_of(index * CLUSTER_INODES);
		rec->words[1] = le64_of(other);
		break;
	case NODE_ORPHAN:
		rec->words[0] = le64_of(index + 1);
		rec->words[1] = le64_of(other);
		break;
	case NODE_FORWARD:
		rec->words[0] = le64_of(index * 16);
		rec->words[1] = le64_of(other);
		rec->words[3] = le64_of(count);
		break;
	case NODE_LOSS:
		rec->words[0] = le64_of(1 + index / 8);
		rec->words[1] = le64_of(index % 8);
		rec->words[2] = le64_of(other);
		break;
	default:
		abort();
	}
	return size_bytes;
}
