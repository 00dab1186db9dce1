/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Files of every type, users and times for the mounted tests: what the tables of the tests are
 * made of. All of it ends the case when it fails, for then nothing after it means anything.
 */
#ifndef UMBRA_TESTS_MOUNTED_FILES_H
#define UMBRA_TESTS_MOUNTED_FILES_H

#include "check.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum file_type { T_REG, T_DIR, T_FIFO, T_BLK, T_CHR, T_SOCK, T_LNK, T_COUNT };
extern const char *const type_name[T_COUNT];

/* Each type in turn, and the failure message says which. */
#define FOR_TYPES(t) for (int t = 0; t < T_COUNT && (check_context("%s", type_name[t]), true); t++)

/* Makes a file of this type (a symlink points at "target-of-link") with this mode. */
void type_make(int type, const char *path, mode_t mode);
/* rmdir for a directory, unlink for the rest. */
int type_unlink(int type, const char *path);
mode_t type_mode(int type);

/* A regular file of this content, mode 0644; size bytes of a pattern that starts with byte. */
void file_make(const char *path, const void *data, size_t size);
void file_fill(const char *path, size_t size, unsigned char byte);
int file_open(const char *path, int flags);
void bytes_fill(unsigned char *bytes, size_t size, unsigned char byte);
/* Memory that nobody has, which the compiler cannot see through. */
void *pointer_bad(void);
/* A page-aligned buffer. */
void *buffer_make(size_t size);

struct stat path_stat(const char *path); /* lstat */
struct stat fd_stat(int fd);

/* Ordinary users, each with a group of the same number. */
enum { USER_A = 65534, USER_B = 65533, USER_C = 65532 };

/* The effective user, group and groups from here on; user_root goes back. */
void user_is(uid_t uid, gid_t gid);
void user_groups_are(uid_t uid, gid_t gid, size_t count, const gid_t *groups);
void user_root(void);

/* An assertion as somebody else. */
#define OK_AS(uid, expr) (user_is((uid), (uid)), (void)OK(expr), user_root())
#define ERR_AS(uid, want, expr) (user_is((uid), (uid)), (void)ERR((want), (expr)), user_root())

/* Waits until a time stamp taken now is later than any that was taken before. */
void clock_tick(void);
int time_compare(struct timespec a, struct timespec b);
/* Are these times of the two states the same? */
bool ctime_same(const struct stat *a, const struct stat *b);
bool mtime_same(const struct stat *a, const struct stat *b);
bool atime_same(const struct stat *a, const struct stat *b);

/* A small random generator: the same sequence for the same seed everywhere. */
struct rnd {
	uint64_t state;
};
uint64_t rnd_next(struct rnd *r);
uint64_t rnd_below(struct rnd *r, uint64_t bound);

/* Names and paths of an exact length. The path leads, through ./ and slashes, to what. */
char *name_make(size_t len, char c);
char *path_make(size_t len, const char *what);

#endif
