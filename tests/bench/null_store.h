/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The in-memory store behind null_fuse: nodes, names, extended attributes, file data.
 *
 * It is the yardstick, so it does the least that still keeps every byte: arrays, one hash table
 * for all names, no sorting, nothing persistent.
 *
 * Lock order: store_lock (names, link and lookup counts), then node.lock (attributes, data, xattrs)
 * by address when two are taken.
 */
#ifndef UMBRA_BENCH_NULL_STORE_H
#define UMBRA_BENCH_NULL_STORE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#define NULL_NAME_MAX 255

/* File bytes, shared by every clone; bytes between a file's size and cap_bytes are zero. */
struct buf {
	unsigned int refs_count;
	size_t cap_bytes;
	char *mem;
};

struct xattr {
	struct xattr *next;
	char *name;
	size_t size_bytes;
	char value[];
};

/* One name. slot_index is its place in the directory's array and, plus 3, its readdir cookie. */
struct dentry {
	struct dentry *next;
	struct node *parent;
	struct node *node;
	uint32_t hash;
	uint32_t slot_index;
	uint16_t name_len;
	char name[];
};

/* The entries of a directory. A free slot holds an odd number: the next free index * 2 + 1. */
struct dir {
	uintptr_t *slots;
	uint32_t slots_count;
	uint32_t slots_cap;
	uint32_t used_count;
	uint32_t free_head;
};

struct node {
	pthread_rwlock_t lock;
	struct stat st;
	uint64_t lookups_count;
	struct node *parent;
	struct dir *dir;
	struct buf *buf;
	struct xattr *xattrs;
	char *link;
};

extern pthread_mutex_t store_lock;
extern struct node store_root;

/* Total of nodes, for statfs. */
extern uint64_t store_nodes_count;

void store_init(void);

/* A new node of this mode with no name yet; NULL without memory. */
struct node *node_new(mode_t mode, uid_t uid, gid_t gid, dev_t rdev);

/* Frees the node when it has no link and no lookup left. store_lock held. */
void node_put(struct node *node);

/* Sets the time stamps named in which to now. node.lock held for writing. */
#define NODE_ATIME 1u
#define NODE_MTIME 2u
#define NODE_CTIME 4u
void node_touch(struct node *node, unsigned int which);

/* Names. All with store_lock held; name_add and name_del keep link counts. */
struct dentry *name_find(const struct node *parent, const char *name);
int name_add(struct node *parent, const char *name, struct node *node);
void name_del(struct dentry *de);
/* Points an existing name at another node, which keeps its link count. */
void name_set(struct dentry *de, struct node *node);
/* The first entry at or after slot *index, which is moved to it; NULL at the end. */
struct dentry *dir_next(const struct node *node, uint32_t *index);

/* Data. node.lock held for writing (data_read: for reading). Results: 0 or -errno. */
int data_resize(struct node *node, uint64_t size_bytes);
int data_write(struct node *node, const char *src, size_t size_bytes, uint64_t off_bytes);
/* Address of the bytes at off_bytes, and in *size_bytes how many of the wanted there are. */
const char *data_read(const struct node *node, uint64_t off_bytes, size_t *size_bytes);
/* Copies, or shares the buffer when the whole source replaces the whole target. */
int data_clone(struct node *dst, uint64_t dst_off_bytes, struct node *src, uint64_t src_off_bytes,
	       size_t size_bytes);
int data_punch(struct node *node, uint64_t off_bytes, uint64_t size_bytes);

/* Extended attributes; node.lock held. flags as in setxattr(2). */
int xattr_put(struct node *node, const char *name, const char *value, size_t size_bytes, int flags);
const struct xattr *xattr_find(const struct node *node, const char *name);
int xattr_del(struct node *node, const char *name);

#endif
