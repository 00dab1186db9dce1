/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * See receipt.h. Stores of a process that is killed are seen by others up to one of them, in their order; so a release is all that it takes.
 */
#include "txn/receipt.h"

#include "util/sabotage.h"

void receipt_try(struct txn_receipt *receipt, uint64_t seq, int32_t result, int64_t value, uint32_t flags)
{
	if (sabotage_point("receipt-try"))
		return;
	/* What it says is not believed before it is all there. */
	receipt->tried_seq = 0;
	atomic_thread_fence(memory_order_release);
	receipt->tried_result = result;
	receipt->tried_value = value;
	receipt->tried_flags = flags;
	atomic_thread_fence(memory_order_release);
	receipt->tried_seq = seq;
	atomic_thread_fence(memory_order_release);
}

void receipt_do(struct txn_receipt *receipt)
{
	if (receipt->tried_seq == 0 || sabotage_point("receipt-do"))
		return;
	receipt->result = receipt->tried_result;
	receipt->value = receipt->tried_value;
	receipt_note(receipt, receipt->tried_flags);
	atomic_store_explicit(&receipt->done_seq, receipt->tried_seq, memory_order_release);
}

void receipt_settle(struct txn_receipt *receipt, uint64_t seq)
{
	if (receipt->tried_seq == seq && !sabotage_point("receipt-settle"))
		receipt_do(receipt);
}
