/* SPDX-License-Identifier: BSD-3-Clause */
/* Parts of null_fuse: options, request handlers, receive loops. */
#ifndef UMBRA_BENCH_NULL_FUSE_H
#define UMBRA_BENCH_NULL_FUSE_H

#define FUSE_USE_VERSION 312

#include <fuse_lowlevel.h>

struct null_opts {
	int dio;
	int writeback;
	int noflush;
	unsigned int threads_count;
	char *loop;
	int cpu;
};

extern const struct fuse_lowlevel_ops null_ops;

/* Serves until unmounted, by the loop that opts->loop names; 0 or -errno. */
int null_loop(struct fuse_session *se, const struct null_opts *opts);

/* One worker that stays on the caller's core: see null_caller.c. */
int null_loop_caller(struct fuse_session *se);

void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void op_write(fuse_req_t req, fuse_ino_t ino, const char *src, size_t size, off_t off,
	      struct fuse_file_info *fi);
void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len, struct fuse_file_info *fi);
void op_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in, struct fuse_file_info *fi_in,
			fuse_ino_t ino_out, off_t off_out, struct fuse_file_info *fi_out, size_t len,
			int flags);
void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags);
void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);

#endif
