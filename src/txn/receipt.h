/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Receipts: what has become of a request, in memory that outlives the process.
 *
 * A process may be killed after it has carried out a request and before it has answered it. Who takes over is asked the same again, and has to know. A receipt is
 * in memory that another process keeps (it is of no use after a power loss: nobody asks again then). The commit writes it in this order:
 *
 *	what the request's answer would be, and the number of the transaction	| the record is not durable: nothing has happened
 *	(the record is durable)							| it has; a replay finds the record, and so does receipt_settle()
 *	that it is so								| before the record is retired
 *
 * so at every instruction either the receipt says that it has happened, or the journal does, or it has not. Each receipt is of one request, whose thread
 * alone writes it; a request of several transactions has what the last one of them said.
 */
#ifndef UMBRA_TXN_RECEIPT_H
#define UMBRA_TXN_RECEIPT_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define RECEIPT_MAKES 0x1u    /* value is an inode, to which the answer gives a reference */
#define RECEIPT_REF 0x2u      /* that reference has been counted */
#define RECEIPT_OPENED 0x4u   /* an open has been counted; of which kind: RECEIPT_OPEN_SHIFT */
#define RECEIPT_RELEASED 0x8u /* an open has been, or is about to be, counted down */
#define RECEIPT_OPEN_SHIFT 8

/* The layout is that of all builds that may follow one another: fuse/kept.h has its version. */
struct txn_receipt {
	_Atomic uint64_t unique; /* of the request; 0: nobody's */
	uint64_t tried_seq;      /* the transaction that may have happened, and what it would say */
	int64_t tried_value;
	int32_t tried_result;
	int32_t result;
	_Atomic uint64_t done_seq; /* the last one that has happened; 0: none */
	int64_t value;             /* an inode, or how far the request has come */
	_Atomic uint32_t flags;
	uint32_t tried_flags;
	uint64_t source; /* the inode that a token has named */
};
static_assert(sizeof(struct txn_receipt) == 64, "a line for each");

/* Before the record is stored, and when it is durable. */
void receipt_try(struct txn_receipt *receipt, uint64_t seq, int32_t result, int64_t value, uint32_t flags);
void receipt_do(struct txn_receipt *receipt);

/* A replay has found the record of that transaction. */
void receipt_settle(struct txn_receipt *receipt, uint64_t seq);

static inline bool receipt_is_done(const struct txn_receipt *receipt)
{
	return receipt && atomic_load_explicit(&receipt->done_seq, memory_order_acquire) != 0;
}

static inline bool receipt_has(const struct txn_receipt *receipt, uint32_t flag)
{
	return receipt && atomic_load_explicit(&receipt->flags, memory_order_relaxed) & flag;
}

static inline void receipt_note(struct txn_receipt *receipt, uint32_t flags)
{
	if (receipt)
		atomic_fetch_or_explicit(&receipt->flags, flags, memory_order_release);
}

#endif
