/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * FUSE over io_uring as the kernel speaks it (protocol 7.42, Linux 6.14); system headers may be older.
 *
 * An entry is a pair of buffers that the kernel fills with one request and that carries its reply back. REGISTER hands an entry to the
 * kernel for the queue of one core; the command completes when there is a request in it. COMMIT_AND_FETCH hands the reply to the
 * kernel and the entry along with it; it completes with the next request.
 */
#ifndef UMBRA_FUSE_URING_WIRE_H
#define UMBRA_FUSE_URING_WIRE_H

#include <assert.h>
#include <stdint.h>

#define URING_FEATURE (1ull << 41) /* of INIT: requests may go over io_uring */

#define URING_REGISTER 1u
#define URING_COMMIT_AND_FETCH 2u

#define URING_IN_OUT_SIZE 128u
#define URING_OP_IN_SIZE 128u

struct uring_in_out {
	uint64_t flags;
	uint64_t commit_id;    /* that the reply has to name */
	uint32_t payload_size; /* bytes in the payload buffer, of the request or of the reply */
	uint32_t padding;
	uint64_t reserved;
};

/* The first buffer of an entry; the second one is the payload. */
struct uring_head {
	char in_out[URING_IN_OUT_SIZE]; /* fuse_in_header, fuse_out_header */
	char op_in[URING_OP_IN_SIZE];   /* the request's first argument */
	struct uring_in_out ring;
};
static_assert(sizeof(struct uring_head) == 288, "the protocol's fuse_uring_req_header");

/* What an io_uring command says besides. */
struct uring_cmd {
	uint64_t flags;
	uint64_t commit_id; /* COMMIT_AND_FETCH */
	uint16_t queue;     /* number of a core */
	uint8_t padding[6];
};
static_assert(sizeof(struct uring_cmd) == 24, "the protocol's fuse_uring_cmd_req");

#endif
