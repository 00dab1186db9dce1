/* SPDX-License-Identifier: BSD-3-Clause */
/* Nodes, names and extended attributes of the in-memory store. Locks: see null_store.h. */
#define _GNU_SOURCE
#include "null_store.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

pthread_mutex_t store_lock = PTHREAD_MUTEX_INITIALIZER;
struct node store_root;
uint64_t store_nodes_count;

static uint64_t next_ino = 2;
static struct dentry **table;
static uint32_t table_size;
static uint32_t table_used_count;

static int node_setup(struct node *node, mode_t mode)
{
	pthread_rwlock_init(&node->lock, NULL);
	node->st.st_mode = mode;
	node->st.st_blksize = 4096;
	if (S_ISDIR(mode)) {
		node->dir = calloc(1, sizeof(*node->dir));
		if (!node->dir)
			return -ENOMEM;
		node->dir->free_head = UINT32_MAX;
		node->st.st_nlink = 1;
	}
	node_touch(node, NODE_ATIME | NODE_MTIME | NODE_CTIME);
	store_nodes_count++;
	return 0;
}

void store_init(void)
{
	int rc;

	table_size = 1u << 16;
	table = calloc(table_size, sizeof(*table));
	assert(table);
	rc = node_setup(&store_root, S_IFDIR | 0777);
	assert(rc == 0);
	store_root.st.st_ino = 1;
	store_root.st.st_nlink = 2;
	store_root.parent = &store_root;
}

struct node *node_new(mode_t mode, uid_t uid, gid_t gid, dev_t rdev)
{
	struct node *node = calloc(1, sizeof(*node));

	if (!node)
		return NULL;
	if (node_setup(node, mode)) {
		free(node);
		return NULL;
	}
	node->st.st_ino = next_ino++;
	node->st.st_uid = uid;
	node->st.st_gid = gid;
	node->st.st_rdev = rdev;
	return node;
}

void node_put(struct node *node)
{
	struct xattr *x;
	uint64_t links_count = node->st.st_nlink;

	/* A directory links to itself. */
	if (node->dir)
		links_count--;
	if (node == &store_root || node->lookups_count || links_count)
		return;
	while ((x = node->xattrs) != NULL) {
		node->xattrs = x->next;
		free(x->name);
		free(x);
	}
	if (node->buf)
		data_resize(node, 0);
	if (node->dir)
		free(node->dir->slots);
	free(node->dir);
	free(node->link);
	pthread_rwlock_destroy(&node->lock);
	free(node);
	store_nodes_count--;
}

void node_touch(struct node *node, unsigned int which)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	if (which & NODE_ATIME)
		node->st.st_atim = now;
	if (which & NODE_MTIME)
		node->st.st_mtim = now;
	if (which & NODE_CTIME)
		node->st.st_ctim = now;
}

static uint32_t name_hash(const struct node *parent, const char *name, size_t *len)
{
	uint64_t h = (uintptr_t)parent * 0x9e3779b97f4a7c15u;
	size_t i;

	for (i = 0; name[i]; i++)
		h = (h ^ (unsigned char)name[i]) * 0x100000001b3u;
	*len = i;
	return (uint32_t)(h ^ (h >> 32));
}

struct dentry *name_find(const struct node *parent, const char *name)
{
	size_t len;
	uint32_t hash = name_hash(parent, name, &len);
	struct dentry *de = table[hash & (table_size - 1)];

	while (de && (de->hash != hash || de->parent != parent || de->name_len != len ||
		      memcmp(de->name, name, len) != 0))
		de = de->next;
	return de;
}

static void table_grow(void)
{
	uint32_t size = table_size * 4;
	struct dentry **grown = calloc(size, sizeof(*grown));
	struct dentry *de;

	if (!grown)
		return;
	for (uint32_t i = 0; i < table_size; i++) {
		while ((de = table[i]) != NULL) {
			table[i] = de->next;
			de->next = grown[de->hash & (size - 1)];
			grown[de->hash & (size - 1)] = de;
		}
	}
	free(table);
	table = grown;
	table_size = size;
}

static int slot_add(struct dir *dir, struct dentry *de)
{
	uint32_t i = dir->free_head;

	if (i != UINT32_MAX) {
		dir->free_head = (uint32_t)(dir->slots[i] >> 1);
	} else {
		if (dir->slots_count == dir->slots_cap) {
			uint32_t cap = dir->slots_cap ? dir->slots_cap * 2 : 16;
			uintptr_t *grown = realloc(dir->slots, cap * sizeof(*grown));

			if (!grown)
				return -ENOMEM;
			dir->slots = grown;
			dir->slots_cap = cap;
		}
		i = dir->slots_count++;
	}
	dir->slots[i] = (uintptr_t)de;
	dir->used_count++;
	de->slot_index = i;
	return 0;
}

int name_add(struct node *parent, const char *name, struct node *node)
{
	size_t len;
	uint32_t hash = name_hash(parent, name, &len);
	struct dentry *de;

	if (len > NULL_NAME_MAX)
		return -ENAMETOOLONG;
	de = malloc(sizeof(*de) + len + 1);
	if (!de)
		return -ENOMEM;
	memcpy(de->name, name, len + 1);
	de->name_len = (uint16_t)len;
	de->hash = hash;
	de->parent = parent;
	de->node = node;
	if (slot_add(parent->dir, de)) {
		free(de);
		return -ENOMEM;
	}
	if (table_used_count++ > table_size)
		table_grow();
	de->next = table[hash & (table_size - 1)];
	table[hash & (table_size - 1)] = de;
	node->st.st_nlink++;
	node->parent = parent;
	if (node->dir)
		parent->st.st_nlink++;
	return 0;
}

void name_del(struct dentry *de)
{
	struct dir *dir = de->parent->dir;
	struct dentry **at = &table[de->hash & (table_size - 1)];

	while (*at != de)
		at = &(*at)->next;
	*at = de->next;
	table_used_count--;
	dir->slots[de->slot_index] = ((uintptr_t)dir->free_head << 1) | 1;
	dir->free_head = de->slot_index;
	dir->used_count--;
	de->node->st.st_nlink--;
	if (de->node->dir)
		de->parent->st.st_nlink--;
	free(de);
}

void name_set(struct dentry *de, struct node *node)
{
	if (de->node->dir)
		de->parent->st.st_nlink--;
	if (node->dir)
		de->parent->st.st_nlink++;
	de->node = node;
	node->parent = de->parent;
}

struct dentry *dir_next(const struct node *node, uint32_t *index)
{
	const struct dir *dir = node->dir;

	for (; *index < dir->slots_count; (*index)++)
		if (!(dir->slots[*index] & 1))
			return (struct dentry *)dir->slots[*index];
	return NULL;
}

const struct xattr *xattr_find(const struct node *node, const char *name)
{
	const struct xattr *x = node->xattrs;

	while (x && strcmp(x->name, name) != 0)
		x = x->next;
	return x;
}

int xattr_put(struct node *node, const char *name, const char *value, size_t size_bytes, int flags)
{
	const struct xattr *old = xattr_find(node, name);
	struct xattr *x;

	if (old && (flags & XATTR_CREATE))
		return -EEXIST;
	if (!old && (flags & XATTR_REPLACE))
		return -ENODATA;
	x = malloc(sizeof(*x) + size_bytes);
	if (!x)
		return -ENOMEM;
	x->name = strdup(name);
	if (!x->name) {
		free(x);
		return -ENOMEM;
	}
	x->size_bytes = size_bytes;
	memcpy(x->value, value, size_bytes);
	if (old)
		xattr_del(node, name);
	x->next = node->xattrs;
	node->xattrs = x;
	return 0;
}

int xattr_del(struct node *node, const char *name)
{
	struct xattr **at = &node->xattrs;
	struct xattr *x;

	while (*at && strcmp((*at)->name, name) != 0)
		at = &(*at)->next;
	x = *at;
	if (!x)
		return -ENODATA;
	*at = x->next;
	free(x->name);
	free(x);
	return 0;
}
